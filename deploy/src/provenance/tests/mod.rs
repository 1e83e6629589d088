//! Closures, their lists, and what is said of them.

mod ahead;
mod closure;
mod diff;
mod documents;
mod fake;
mod list;
mod plain;
mod revision;
