//! Builds and executions as records, and what is learned from them.
