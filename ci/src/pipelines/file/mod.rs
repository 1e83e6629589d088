//! Pipelines as files: TOML. What is wrong is told with its line and column, and a key that nobody knows with the nearest known
//! one. docs/pipelines.md has the format.

mod command;
mod condition;
mod declared;
mod matrix;
mod names;
mod read;
mod scope;
mod stage;
mod template;
#[cfg(test)]
mod tests;
mod triggers;
mod work;

pub use self::condition::{Facts, fits, unmet};
pub use self::declared::{
    Busy, Concurrency, Declared, DeclaredStage, Input, Matrix, Missed, Origin, Schedule, Trigger,
};
pub use self::matrix::cells;
pub use self::names::{is_name, is_word};
pub use self::read::{MAX_BYTES, read};
pub use self::template::{MAX_FILLED, Reference, TemplateError, fill};
