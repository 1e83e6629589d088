//! Implementations of the storage traits and the decorators around them.
