//! Operations, queue and leases, and the services over them.
//!
//! `queue` decides, `driver` carries out, `services` speak gRPC; `boundary` is the trait
//! between services and queue, so that a queue elsewhere can take the place of the one in
//! this process.

pub mod audit;
pub mod boundary;
mod completion;
mod config;
mod driver;
mod job;
pub mod journal;
mod names;
pub mod presence;
pub mod queue;
pub mod redis;
mod request;
mod scheduler;
mod services;
pub mod session;
pub mod snapshot;

pub use config::{Parts, SchedulerConfig};
pub use job::{DurationEstimator, NoEstimates};
pub use scheduler::Scheduler;
pub use services::execution::ExecutionService;
pub use services::operations::OperationsService;
pub use services::workers::WorkersService;
pub use snapshot::Snapshot;
