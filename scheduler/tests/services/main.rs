//! The services as clients and workers see them, over real gRPC.

mod execute;
mod faults;
mod harness;
mod merging;
mod operations;
mod workers;
