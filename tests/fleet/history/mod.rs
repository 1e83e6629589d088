//! The history of tests and build events: of one server and of several, with real Bazel and without.

mod bazel;
mod crashes;
mod frontends;
mod publisher;
mod seen;
