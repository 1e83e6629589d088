//! Operations, queue and leases, and the services over them.
//!
//! `queue` decides, in this process or as a script in Redis (`engine`); `frontend` carries out;
//! `services` speak gRPC. `api` is the trait between services and queue.

pub mod again;
pub mod api;
mod completion;
mod config;
pub mod engine;
pub mod fanout;
pub mod frontend;
pub mod hermeticity;
mod job;
pub mod journal;
mod names;
pub mod presence;
pub mod queue;
mod reports;
mod request;
mod scheduler;
mod services;
pub mod session;
mod shard;
mod shared;
pub mod snapshot;
mod start;
mod status;

pub use config::{BaseUrl, Hedge, Parts, SchedulerConfig};
pub use job::{DurationEstimator, NoEstimates, ShardEstimator, TestShard};
pub use reports::{CaseTime, NoReports, TestReports};
pub use scheduler::Scheduler;
pub use services::admin::AdminService;
pub use services::execution::ExecutionService;
pub use services::operations::OperationsService;
pub use services::own::{Going, OwnAction, OwnActions, OwnEnd, OwnRun};
pub use services::workers::WorkersService;
pub use snapshot::Snapshot;
pub use start::{SchedulerOptions, SchedulerParts, SchedulerServices, StartError};
