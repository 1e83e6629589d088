//! Input roots: read-only directory trees on the local disk, built from the store without
//! copying where possible and kept for the next action with the same root digest.
//!
//! Each file is fetched once into a local file cache. An input root is a stack of layers,
//! directory trees of hard links to those files: large directories are layers of their own,
//! shared by all input roots that have them at the same path. A layer becomes known only when
//! it is complete, and the whole cache is emptied when a worker starts, so that a half-built
//! one is never used. Files have mode 0644 or 0755 and directories 0777, all with one fixed
//! modification time.

mod cache;
mod directory;
mod error;
mod files;
mod index;
mod key;
mod limits;
mod list;
mod load;
mod materialise;
mod plan;
mod roots;
mod stats;

pub use cache::InputRoot;
pub use directory::{Directory, DirectoryError};
pub use error::InputError;
pub use limits::{CacheLimits, FETCH_CONCURRENCY, InputLimits};
pub use list::{InputFile, InputSymlink, Listing};
pub use roots::InputRoots;
pub use stats::{InputFigures, InputStats};
