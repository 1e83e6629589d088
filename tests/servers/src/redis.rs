//! `redis-server` as a process of its own.
