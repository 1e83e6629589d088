//! The process itself, under the names that all Prometheus clients use, and its version.

use std::fmt::Error;

use super::families::Families;
use crate::telemetry::process::ProcessStats;

pub fn encode(families: &mut Families<'_>, process: &ProcessStats) -> Result<(), Error> {
    families.gauges(
        "kiln_build_info",
        "1, with the version of Kiln as its label.",
        [([("version", env!("CARGO_PKG_VERSION"))], 1_u64)],
    )?;
    families.counter(
        "process_cpu_seconds",
        "Processor time of the process itself, user and system, in seconds.",
        process.cpu_seconds,
    )?;
    families.gauge(
        "process_resident_memory_bytes",
        "Resident memory of the process itself.",
        process.resident_bytes,
    )?;
    families.gauge(
        "process_virtual_memory_bytes",
        "Virtual memory of the process itself.",
        process.virtual_bytes,
    )?;
    families.gauge("process_threads", "Threads of the process itself.", process.threads)?;
    families.gauge("process_open_fds", "Open file descriptors.", process.open_fds)?;
    families.gauge("process_max_fds", "Most open file descriptors allowed.", process.max_fds)?;
    families.gauge(
        "process_start_time_seconds",
        "When the process started, in seconds since the Unix epoch.",
        process.start_seconds,
    )
}
