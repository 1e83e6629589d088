//! Closures, their lists, and what is said of them.

mod closure;
mod documents;
mod fake;
mod list;
