//! Closures, their lists, and what is said of them.

mod closure;
mod diff;
mod documents;
mod fake;
mod list;
mod revision;
