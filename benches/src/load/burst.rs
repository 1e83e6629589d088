//! Runs one kind of operation for a while and measures it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinHandle;

use super::error::CallError;
use super::process::{self, CpuClock};
use super::target::Target;

/// Longest latency that is told apart, in the histogram's unit of 100 ns: 2 minutes.
const LONGEST: u64 = 1_200_000_000;
const UNITS_PER_SECOND: f64 = 1e7;
/// Significant digits with which latencies are kept.
const DIGITS: u8 = 3;
/// How long operations may go on after a burst's end before the burst has failed.
const GRACE: Duration = Duration::from_secs(60);

/// One kind of call, made again and again by one task.
pub trait Operation: Send + 'static {
    /// Answers how many bytes of blobs were moved. A wrong answer is an error.
    fn once(&mut self) -> impl Future<Output = Result<u64, CallError>> + Send;
}

#[derive(Debug, Clone, Copy)]
pub struct Limits {
    pub in_flight: usize,
    pub duration: Duration,
    /// Most operations that are begun.
    pub operations: u64,
}

/// The measurements of one burst.
#[derive(Debug, Clone, serde::Serialize)]
pub struct Burst {
    pub operations: u64,
    pub bytes: u64,
    pub seconds: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
    /// Processor time of the server's processes per operation, in microseconds; `None`: its process
    /// is not known.
    pub server_cpu_us: Option<f64>,
    /// Processor time of the client per operation, in microseconds.
    pub client_cpu_us: f64,
}

impl Burst {
    pub fn per_second(&self) -> f64 {
        self.operations as f64 / self.seconds
    }

    /// Millions of bytes a second.
    pub fn megabytes_per_second(&self) -> f64 {
        self.bytes as f64 / self.seconds / 1e6
    }
}

struct Tally {
    latency: Histogram<u32>,
    operations: u64,
    bytes: u64,
    error: Option<CallError>,
}

/// Runs one task for each of `operations`, spread over the target's connections in turn.
pub async fn run<O: Operation>(
    target: &Target,
    limits: Limits,
    operations: Vec<O>,
) -> Result<Burst, CallError> {
    let begun = Arc::new(AtomicU64::new(0));
    let server_clock = target.pid.and_then(|pid| CpuClock::of_tree(pid).ok());
    let client_clock = CpuClock::of_process(std::process::id()).ok();
    let start = Instant::now();
    let tasks: Vec<JoinHandle<Tally>> = operations
        .into_iter()
        .enumerate()
        .map(|(n, operation)| {
            let lane = &target.lanes[n % target.lanes.len()];
            lane.runtime.spawn(repeat(operation, begun.clone(), start, limits))
        })
        .collect();
    let total = collect(tasks, limits.duration + GRACE).await?;
    let seconds = start.elapsed().as_secs_f64();
    let per_operation = |clock: Option<CpuClock>| {
        let used = clock?.elapsed().ok()?;
        Some(used.as_secs_f64() * 1e6 / total.operations.max(1) as f64)
    };
    let milliseconds = |units: u64| units as f64 / UNITS_PER_SECOND * 1e3;
    Ok(Burst {
        operations: total.operations,
        bytes: total.bytes,
        seconds,
        p50_ms: milliseconds(total.latency.value_at_quantile(0.5)),
        p99_ms: milliseconds(total.latency.value_at_quantile(0.99)),
        max_ms: milliseconds(total.latency.max()),
        server_cpu_us: per_operation(server_clock),
        client_cpu_us: per_operation(client_clock).unwrap_or_default(),
    })
}

async fn collect(tasks: Vec<JoinHandle<Tally>>, patience: Duration) -> Result<Tally, CallError> {
    let aborts: Vec<_> = tasks.iter().map(JoinHandle::abort_handle).collect();
    let all = async {
        let mut total = Tally::new();
        for task in tasks {
            let tally = task.await.map_err(CallError::lost)?;
            total.latency.add(&tally.latency).map_err(CallError::lost)?;
            total.operations += tally.operations;
            total.bytes += tally.bytes;
            total.error = total.error.or(tally.error);
        }
        Ok::<_, CallError>(total)
    };
    let Ok(total) = tokio::time::timeout(patience, all).await else {
        aborts.iter().for_each(tokio::task::AbortHandle::abort);
        return Err(CallError::TimedOut(patience.as_secs()));
    };
    let total = total?;
    match total.error {
        Some(error) => Err(error),
        None => Ok(total),
    }
}

impl Tally {
    fn new() -> Self {
        let latency = Histogram::new_with_bounds(1, LONGEST, DIGITS)
            .expect("the bounds are constants that fit each other");
        Self { latency, operations: 0, bytes: 0, error: None }
    }
}

/// The loop of one task; it ends at the first error, which fails the whole burst.
async fn repeat(
    mut operation: impl Operation,
    begun: Arc<AtomicU64>,
    start: Instant,
    limits: Limits,
) -> Tally {
    let mut tally = Tally::new();
    let mut before = Instant::now();
    while before - start < limits.duration
        && begun.fetch_add(1, Ordering::Relaxed) < limits.operations
    {
        match operation.once().await {
            Ok(bytes) => tally.bytes += bytes,
            Err(error) => {
                begun.store(limits.operations, Ordering::Relaxed);
                tally.error = Some(error);
                break;
            }
        }
        let after = Instant::now();
        let units = ((after - before).as_nanos() / 100).min(u128::from(LONGEST)) as u64;
        tally.latency.saturating_record(units);
        tally.operations += 1;
        before = after;
    }
    tally
}

/// Watches a server that nobody calls.
pub async fn watch_idle(target: &Target, duration: Duration) -> Result<Idle, CallError> {
    let pid = target
        .pid
        .ok_or_else(|| CallError::Status { code: 12, message: "no --pid for it".to_owned() })?;
    let clock = CpuClock::of_tree(pid).map_err(CallError::lost)?;
    tokio::time::sleep(duration).await;
    let used = clock.elapsed().map_err(CallError::lost)?;
    let memory = process::memory_of_tree(pid).map_err(CallError::lost)?;
    Ok(Idle { cpu_percent: used.as_secs_f64() / duration.as_secs_f64() * 100.0, memory })
}

#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct Idle {
    /// Processor time that the idle server used, in per cent of one core.
    pub cpu_percent: f64,
    pub memory: process::Memory,
}
