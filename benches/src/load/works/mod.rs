//! The works: what is called, how much of it at once, and how its answers are checked.

pub mod execute;
pub mod lookups;
pub mod names;
pub mod streams;

use std::sync::Arc;
use std::time::Duration;

use execute::Inputs;
use streams::Size;

use super::args::{Options, WorkArg};
use super::burst::{self, Burst, Limits};
use super::error::CallError;
use super::prepare::{self, LARGE_BLOBS, SMALL_BLOBS};
use super::samples::Samples;
use super::target::Target;
use super::wire::Framed;

/// Digests in one FindMissingBlobs.
const DIGESTS: usize = 1000;
/// Different FindMissingBlobs requests, sent in turn.
const FIND_REQUESTS: u64 = 16;
const SCALES: [u64; 3] = [10_000, 100_000, 1_000_000];

/// One row of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    AcHit {
        in_flight: usize,
    },
    AcMiss,
    /// FindMissingBlobs for blobs among the first `blobs` of the store; 0: among the small blobs.
    FindMissing {
        blobs: u64,
    },
    /// Hits as with `AcHit`, with so many blobs present in the store.
    AcHitAmong {
        blobs: u64,
    },
    ReadAmong {
        blobs: u64,
    },
    Write {
        size: Size,
        streams: usize,
    },
    Read {
        size: Size,
        streams: usize,
    },
    Execute {
        inputs: Inputs,
        in_flight: usize,
    },
    SandboxFloor,
    Idle,
}

/// The figure by which the targets of a row are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    PerSecond,
    MegabytesPerSecond,
    /// Median latency in milliseconds: less is better.
    Latency,
}

impl Work {
    pub fn name(self) -> String {
        match self {
            Self::AcHit { in_flight: 1 } => "ac-hit-serial".to_owned(),
            Self::AcHit { .. } => "ac-hit".to_owned(),
            Self::AcMiss => "ac-miss".to_owned(),
            Self::FindMissing { blobs: 0 } => "find-missing".to_owned(),
            Self::FindMissing { blobs } => format!("find-missing@{blobs}"),
            Self::AcHitAmong { blobs } => format!("ac-hit@{blobs}"),
            Self::ReadAmong { blobs } => format!("read-4k@{blobs}"),
            Self::Write { size, streams } => stream_name("write", size, streams),
            Self::Read { size, streams } => stream_name("read", size, streams),
            Self::Execute { inputs: Inputs::Shared, .. } => "execute-inputs".to_owned(),
            Self::Execute { inputs: Inputs::Test, in_flight } => {
                format!("execute-test-{in_flight}")
            }
            Self::Execute { in_flight: 1, .. } => "execute-serial".to_owned(),
            Self::Execute { in_flight, .. } => format!("execute-{in_flight}"),
            Self::SandboxFloor => "sandbox-floor".to_owned(),
            Self::Idle => "idle".to_owned(),
        }
    }

    pub fn measure(self) -> Measure {
        match self {
            Self::AcHit { in_flight: 1 } | Self::Execute { in_flight: 1, .. } => Measure::Latency,
            Self::Write { size: Size::Large, .. } | Self::Read { size: Size::Large, .. } => {
                Measure::MegabytesPerSecond
            }
            _ => Measure::PerSecond,
        }
    }

    /// The works that an argument stands for.
    pub fn of(argument: WorkArg) -> Vec<Self> {
        let expand = |arguments: &[WorkArg]| arguments.iter().copied().flat_map(Self::of).collect();
        let one = |work| vec![work];
        match argument {
            WorkArg::All => {
                expand(&[WorkArg::Cache, WorkArg::SandboxFloor, WorkArg::Execute, WorkArg::Idle])
            }
            WorkArg::Cache => expand(&[
                WorkArg::AcHit,
                WorkArg::AcMiss,
                WorkArg::AcHitSerial,
                WorkArg::FindMissing,
                WorkArg::Write4k,
                WorkArg::Read4k,
                WorkArg::Write64m,
                WorkArg::Write64mX4,
                WorkArg::Read64m,
                WorkArg::Read64mX4,
            ]),
            WorkArg::Execute => {
                expand(&[WorkArg::ExecuteSerial, WorkArg::Execute4, WorkArg::ExecuteInputs])
            }
            WorkArg::Scale => SCALES
                .into_iter()
                .flat_map(|blobs| {
                    [
                        Self::FindMissing { blobs },
                        Self::AcHitAmong { blobs },
                        Self::ReadAmong { blobs },
                    ]
                })
                .collect(),
            WorkArg::AcHit => one(Self::AcHit { in_flight: 32 }),
            WorkArg::AcMiss => one(Self::AcMiss),
            WorkArg::AcHitSerial => one(Self::AcHit { in_flight: 1 }),
            WorkArg::FindMissing => one(Self::FindMissing { blobs: 0 }),
            WorkArg::Write4k => one(Self::Write { size: Size::Small, streams: 32 }),
            WorkArg::Read4k => one(Self::Read { size: Size::Small, streams: 32 }),
            WorkArg::Write64m => one(Self::Write { size: Size::Large, streams: 1 }),
            WorkArg::Write64mX4 => one(Self::Write { size: Size::Large, streams: 4 }),
            WorkArg::Read64m => one(Self::Read { size: Size::Large, streams: 1 }),
            WorkArg::Read64mX4 => one(Self::Read { size: Size::Large, streams: 4 }),
            WorkArg::ExecuteSerial => one(Self::Execute { inputs: Inputs::None, in_flight: 1 }),
            WorkArg::Execute4 => one(Self::Execute { inputs: Inputs::None, in_flight: 4 }),
            WorkArg::ExecuteInputs => one(Self::Execute { inputs: Inputs::Shared, in_flight: 4 }),
            WorkArg::ExecuteTests => {
                [1, 4].map(|in_flight| Self::Execute { inputs: Inputs::Test, in_flight }).to_vec()
            }
            WorkArg::SandboxFloor => one(Self::SandboxFloor),
            WorkArg::Idle => one(Self::Idle),
        }
    }

    fn blobs_present(self) -> u64 {
        match self {
            Self::FindMissing { blobs }
            | Self::AcHitAmong { blobs }
            | Self::ReadAmong { blobs } => blobs,
            _ => 0,
        }
    }
}

fn stream_name(verb: &str, size: Size, streams: usize) -> String {
    match (size, streams) {
        (Size::Small, _) => format!("{verb}-4k"),
        (Size::Large, 1) => format!("{verb}-64m"),
        (Size::Large, streams) => format!("{verb}-64m-x{streams}"),
    }
}

/// The options, blobs and notes that all works of a run share.
pub struct Context {
    pub options: Options,
    pub samples: Arc<Samples>,
    /// Sentences for the reader of the report.
    pub notes: Vec<String>,
}

impl Context {
    fn limits(&self, in_flight: usize, duration: Duration) -> Limits {
        Limits { in_flight, duration, operations: u64::MAX }
    }
}

/// Uploads what `work` needs; nothing the second time.
pub async fn prepare(
    work: Work,
    target: &mut Target,
    context: &mut Context,
) -> Result<(), CallError> {
    let samples = context.samples.clone();
    let blobs = work.blobs_present();
    if blobs > 0 {
        let patience = Duration::from_secs(context.options.max_fill_seconds);
        let took = prepare::fill(target, &samples, blobs, patience).await?;
        if took > Duration::from_secs(1) {
            context.notes.push(format!(
                "{}: {:.1} s to reach {blobs} blobs",
                target.name,
                took.as_secs_f64()
            ));
        }
    }
    match work {
        Work::AcHit { .. } | Work::AcHitAmong { .. } => {
            prepare::hits(target, &samples, &mut context.notes).await.map(drop)
        }
        Work::FindMissing { .. } => {
            prepare::small_blobs(target, &samples).await?;
            if target.constant {
                return Ok(());
            }
            let present = samples.small.digest(crate::sample::Key::FIRST);
            lookups::check_missing(&mut target.channel(), &target.instance, &present).await
        }
        Work::Read { size: Size::Small, .. } | Work::ReadAmong { .. } => {
            prepare::small_blobs(target, &samples).await
        }
        Work::Read { size: Size::Large, .. } => {
            prepare::large_blobs(target, &samples, context.options.chunk).await
        }
        _ => Ok(()),
    }
}

/// Runs `work` on one target for about `duration`.
pub async fn run(
    work: Work,
    target: &mut Target,
    context: &mut Context,
    duration: Duration,
) -> Result<Burst, CallError> {
    match work {
        Work::AcHit { in_flight } => ac_hit(target, context, in_flight, duration).await,
        Work::AcHitAmong { .. } => ac_hit(target, context, 32, duration).await,
        Work::AcMiss => {
            let limits = context.limits(32, duration);
            try_run(target, limits, |channel| {
                lookups::Miss::new(channel, target.instance.clone(), target.numbers())
            })
            .await
        }
        Work::FindMissing { blobs } => {
            let requests = find_requests(target, &context.samples, blobs);
            let requests = lookups::Requests::new(requests, target.numbers());
            let limits = context.limits(4, duration);
            try_run(target, limits, |channel| lookups::FindMissing::new(channel, requests.clone()))
                .await
        }
        Work::Write { size, streams } => write(target, context, size, streams, duration).await,
        Work::Read { size, streams } => read(target, context, size, streams, duration).await,
        Work::ReadAmong { .. } => read(target, context, Size::Small, 32, duration).await,
        Work::Execute { inputs, in_flight } => {
            let operations = context.options.max_actions;
            let limits = Limits { operations, ..context.limits(in_flight, duration) };
            execute::run(target, &context.samples, inputs, limits).await
        }
        Work::SandboxFloor | Work::Idle => Err(CallError::wrong("this work is no series of calls")),
    }
}

async fn try_run<O: burst::Operation>(
    target: &Target,
    limits: Limits,
    make: impl Fn(super::channel::Channel) -> Result<O, CallError>,
) -> Result<Burst, CallError> {
    let mut operations = Vec::new();
    for n in 0..limits.in_flight {
        operations.push(make(target.lanes[n % target.lanes.len()].channel.clone())?);
    }
    burst::run(target, limits, operations).await
}

async fn ac_hit(
    target: &mut Target,
    context: &mut Context,
    in_flight: usize,
    duration: Duration,
) -> Result<Burst, CallError> {
    let samples = context.samples.clone();
    let hits = prepare::hits(target, &samples, &mut context.notes).await?;
    let requests = lookups::hit_requests(&hits, &target.instance);
    let requests = lookups::Requests::new(requests, target.numbers());
    try_run(target, context.limits(in_flight, duration), |channel| {
        lookups::Hit::new(channel, requests.clone(), hits.clone())
    })
    .await
}

/// Has the kernel write to disk what the burst before wrote, so that the next one does not wait for
/// that.
fn write_out_dirty_pages() {
    // Where there is no `sync`, bursts show a larger spread.
    let _ = std::process::Command::new("sync").status();
}

async fn write(
    target: &Target,
    context: &Context,
    size: Size,
    streams: usize,
    duration: Duration,
) -> Result<Burst, CallError> {
    if size == Size::Large {
        write_out_dirty_pages();
    }
    let operations = (context.options.max_write_bytes / size.bytes() as u64).max(1);
    let limits = Limits { operations, ..context.limits(streams, duration) };
    try_run(target, limits, |channel| {
        Ok(streams::Write {
            rpc: streams::Write::rpc(&channel)?,
            channel,
            samples: context.samples.clone(),
            instance: target.instance.clone(),
            numbers: target.numbers(),
            size,
            chunk: context.options.chunk,
        })
    })
    .await
}

async fn read(
    target: &Target,
    context: &Context,
    size: Size,
    streams: usize,
    duration: Duration,
) -> Result<Burst, CallError> {
    try_run(target, context.limits(streams, duration), |channel| {
        Ok(streams::Read {
            rpc: streams::Read::rpc(&channel)?,
            channel,
            samples: context.samples.clone(),
            instance: target.instance.clone(),
            numbers: target.numbers(),
            size,
            blobs: if size == Size::Small { SMALL_BLOBS } else { LARGE_BLOBS },
        })
    })
    .await
}

fn find_requests(target: &Target, samples: &Samples, blobs: u64) -> Vec<Framed> {
    let digest = |request: u64, n: u64| {
        // A fixed stride scatters the digests of a request over the whole store.
        let place = request.wrapping_mul(DIGESTS as u64).wrapping_add(n).wrapping_mul(7919);
        if blobs == 0 {
            samples.small.digest(crate::sample::Key { run: 0, index: place % SMALL_BLOBS })
        } else {
            samples.filler.digest(prepare::filler_key(place % blobs))
        }
    };
    (0..FIND_REQUESTS)
        .map(|request| {
            let digests = (0..DIGESTS as u64).map(|n| digest(request, n)).collect();
            lookups::find_request(&target.instance, digests)
        })
        .collect()
}
