//! A worker on another machine than its scheduler: sessions over a connection that is made again when it breaks.

mod diagnostics;
mod session;

pub use session::work_for;
