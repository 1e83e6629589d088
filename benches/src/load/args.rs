//! The command line of the load generator.

use std::num::NonZeroUsize;
use std::str::FromStr;
use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Measures REAPI servers side by side: the targets take turns, answers are checked.
#[derive(Debug, Clone, Parser)]
#[command(name = "kiln-load", version)]
pub struct Options {
    /// A server, as NAME=URL (http:// or grpc://). Give several to compare them.
    #[arg(long = "target", value_name = "NAME=URL")]
    pub targets: Vec<Named<String>>,
    /// What to measure, separated by commas.
    #[arg(long = "work", value_enum, value_delimiter = ',', default_value = "all")]
    pub works: Vec<WorkArg>,
    /// Length of one burst in seconds.
    #[arg(long, default_value_t = 2.0, value_parser = positive_seconds)]
    pub seconds: f64,
    /// Bursts of each work on each target; the median counts.
    #[arg(long, default_value_t = NonZeroUsize::new(5).unwrap_or(NonZeroUsize::MIN))]
    pub repeat: NonZeroUsize,
    /// The target that ratios refer to: a kiln-floor, whose answers are constants
    /// [default: the target named "floor", else the first].
    #[arg(long)]
    pub floor: Option<String>,
    /// Instance name sent with each call; slashes are fine.
    #[arg(long, default_value = "")]
    pub instance: String,
    /// Connections to each target; calls are spread over them.
    #[arg(long, default_value_t = NonZeroUsize::MIN)]
    pub connections: NonZeroUsize,
    /// `lean`: straight over HTTP/2, at the least cost; `tonic`: tonic's client with the copies
    /// that generated messages make.
    #[arg(long, value_enum, default_value_t = ClientKind::Lean)]
    pub client: ClientKind,
    /// `current`: a single-threaded runtime per thread; `multi`: one work-stealing runtime.
    #[arg(long, value_enum, default_value_t = ClientRuntime::Current)]
    pub client_runtime: ClientRuntime,
    /// Threads of the client.
    #[arg(long, default_value_t = NonZeroUsize::MIN)]
    pub client_threads: NonZeroUsize,
    /// Bytes of data in a message of ByteStream.Write.
    #[arg(long, default_value_t = 64 << 10, value_parser = chunk_size)]
    pub chunk: usize,
    /// HTTP/2 window of a stream in bytes; HTTP/2's default if not given.
    #[arg(long)]
    pub stream_window: Option<u32>,
    /// HTTP/2 window of a connection in bytes; HTTP/2's default if not given.
    #[arg(long)]
    pub connection_window: Option<u32>,
    /// Largest HTTP/2 frame taken in bytes; HTTP/2's default if not given.
    #[arg(long)]
    pub frame_size: Option<u32>,
    /// Send RequestMetadata with every call, as Bazel does (the lean client only).
    #[arg(long)]
    pub request_metadata: bool,
    /// Process of a target on this machine, as NAME=PID: its processor time and memory are
    /// measured as well, with those of its children.
    #[arg(long = "pid", value_name = "NAME=PID")]
    pub pids: Vec<Named<u32>>,
    /// Most bytes written to a target in one burst.
    #[arg(long, default_value_t = 1 << 30)]
    pub max_write_bytes: u64,
    /// Most actions executed in one burst.
    #[arg(long, default_value_t = 20_000)]
    pub max_actions: u64,
    /// Most seconds to spend on filling one target's store.
    #[arg(long, default_value_t = 300)]
    pub max_fill_seconds: u64,
    /// Print JSON instead of a table.
    #[arg(long)]
    pub json: bool,
    /// Write JSON to this file as well.
    #[arg(long)]
    pub json_file: Option<std::path::PathBuf>,
}

impl Options {
    pub fn burst(&self) -> Duration {
        Duration::from_secs_f64(self.seconds)
    }
}

/// A value for the target of that name.
#[derive(Debug, Clone)]
pub struct Named<T> {
    pub name: String,
    pub value: T,
}

impl<T: FromStr<Err: std::fmt::Display>> FromStr for Named<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
        let value = value.parse().map_err(|error| format!("{value:?} does not fit: {error}"))?;
        Ok(Self { name: name.to_owned(), value })
    }
}

fn positive_seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.05..=600.0).contains(&seconds) => Ok(seconds),
        _ => Err("seconds must lie between 0.05 and 600".to_owned()),
    }
}

fn chunk_size(text: &str) -> Result<usize, String> {
    match text.parse::<usize>() {
        Ok(size) if (1024..=4 << 20).contains(&size) => Ok(size),
        _ => Err("a chunk has between 1 KiB and 4 MiB (4194304) bytes".to_owned()),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ClientKind {
    Lean,
    Tonic,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ClientRuntime {
    Current,
    Multi,
}

/// A work, or a set of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum WorkArg {
    /// Every work but the scale ones.
    All,
    /// Look-ups, reads and writes.
    Cache,
    /// The three execute works.
    Execute,
    /// Look-ups with 10,000, 100,000 and 1,000,000 blobs present.
    Scale,
    AcHit,
    AcMiss,
    AcHitSerial,
    FindMissing,
    #[value(name = "write-4k")]
    Write4k,
    #[value(name = "read-4k")]
    Read4k,
    #[value(name = "write-64m")]
    Write64m,
    #[value(name = "write-64m-x4")]
    Write64mX4,
    #[value(name = "read-64m")]
    Read64m,
    #[value(name = "read-64m-x4")]
    Read64mX4,
    ExecuteSerial,
    #[value(name = "execute-4")]
    Execute4,
    ExecuteInputs,
    /// Tests that write a report, one at a time and four at a time
    ExecuteTests,
    /// Starting a process in new namespaces, on this machine, without any server.
    SandboxFloor,
    /// Processor time and memory of a server that nobody calls (needs --pid).
    Idle,
}
