//! Configuration: one TOML file, environment variables and flags, in rising precedence.

mod consistency;
mod default;
mod environment;
pub mod error;
mod files;
mod forges;
pub mod keys;
mod logs;
mod merge_queue;
mod options;
mod pipelines;
mod promotion;
mod registry;
mod releases;
mod rollouts;
mod security;
mod setting;
pub mod settings;
mod stages;
mod storage;
mod values;
mod verdicts;
mod workers;

pub use default::default_toml;
pub use error::ConfigError;
pub use logs::log_options;
pub use options::{serve_options, status_server_options, worker_options};
pub use releases::Machine;
pub use settings::{FlagValue, Settings};
pub use storage::shared_storage;
pub use values::{parse_size, parse_time, shown};
