//! What clients build, test and run through a server: some tests use real clients, others make the calls by hand.

mod bazel;
mod bazel_7;
mod buck2;
mod buildstream;
mod casd;
mod clients;
mod endings;
mod fanout;
mod faults;
mod flaky;
mod hermeticity;
mod images;
mod misbehaving;
mod persistent;
mod promises;
mod scheduling;
mod sdk;
mod shards;
#[path = "../support/mod.rs"]
mod support;
mod unprivileged;
