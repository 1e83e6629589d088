//! The history of tests and build events, at one server and at several, with real Bazel and without.

mod bazel;
mod crashes;
mod frontends;
mod publisher;
mod seen;
