//! A server that only answers: what remains above it is a real server's own cost.
//!
//! It is tonic with the generated services and, by default, tokio's default runtime.

mod cache;
mod capabilities;
mod events;
mod streams;

use std::net::SocketAddr;
use std::num::NonZeroUsize;

use clap::{Parser, ValueEnum};
use kiln_protos::bes::publish_build_event_server::PublishBuildEventServer;
use kiln_protos::bytestream::byte_stream_server::ByteStreamServer;
use kiln_protos::reapi::action_cache_server::ActionCacheServer;
use kiln_protos::reapi::capabilities_server::CapabilitiesServer;
use kiln_protos::reapi::content_addressable_storage_server::ContentAddressableStorageServer;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::Server;
use tonic::transport::server::Router;

/// Largest message taken, as in servers that advertise batches of 4 MiB.
const MAX_MESSAGE: usize = 16 << 20;
/// Connections accepted and not yet taken over by a thread.
const HANDOVER_BACKLOG: usize = 64;

type AnyError = Box<dyn std::error::Error + Send + Sync>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Runtime {
    /// One work-stealing runtime on all cores: tokio's default.
    Multi,
    /// Single-threaded runtimes; a connection stays on one of them.
    Current,
}

/// A REAPI server that only answers: the floor for any real one.
#[derive(Debug, Clone, Parser)]
#[command(name = "kiln-floor", version)]
pub struct Options {
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1:8990")]
    pub listen: SocketAddr,
    #[arg(long, value_enum, default_value_t = Runtime::Multi)]
    pub runtime: Runtime,
    /// Threads; as many as cores if not given.
    #[arg(long)]
    pub threads: Option<NonZeroUsize>,
    /// Bytes of data in a message of ByteStream.Read.
    #[arg(long, default_value_t = 64 << 10)]
    pub chunk: usize,
    /// HTTP/2 window of a stream in bytes; HTTP/2's default if not given.
    #[arg(long)]
    pub stream_window: Option<u32>,
    /// HTTP/2 window of a connection in bytes; HTTP/2's default if not given.
    #[arg(long)]
    pub connection_window: Option<u32>,
    /// Let HTTP/2 windows follow the measured bandwidth.
    #[arg(long)]
    pub adaptive_window: bool,
    /// Largest HTTP/2 frame in bytes; HTTP/2's default if not given.
    #[arg(long)]
    pub frame_size: Option<u32>,
    /// Take HTTP/1 on the same port.
    #[arg(long)]
    pub http1: bool,
    /// Leave Nagle's algorithm on.
    #[arg(long)]
    pub delay: bool,
}

/// Serves until the process is ended.
pub fn run(options: &Options) -> Result<(), AnyError> {
    let answers = Answers::new(options.chunk);
    match options.runtime {
        Runtime::Multi => run_multi(options, &answers),
        Runtime::Current => run_current(options, &answers),
    }
}

#[derive(Clone)]
struct Answers {
    cache: cache::Cache,
    streams: streams::Streams,
}

impl Answers {
    fn new(chunk: usize) -> Self {
        Self { cache: cache::Cache::new(), streams: streams::Streams::new(chunk) }
    }
}

fn run_multi(options: &Options, answers: &Answers) -> Result<(), AnyError> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = options.threads {
        builder.worker_threads(threads.get());
    }
    builder.enable_all().build()?.block_on(async {
        let listener = TcpListener::bind(options.listen).await?;
        let delay = options.delay;
        let incoming = TcpListenerStream::new(listener).map(move |stream| {
            let stream = stream?;
            // A client that has gone already is found out when it is read from.
            let _ = stream.set_nodelay(!delay);
            Ok::<_, std::io::Error>(stream)
        });
        announce(options);
        router(options, answers).serve_with_incoming(incoming).await?;
        Ok(())
    })
}

fn run_current(options: &Options, answers: &Answers) -> Result<(), AnyError> {
    let cores = std::thread::available_parallelism()?;
    let threads = options.threads.unwrap_or(cores).get();
    let mut lanes = Vec::new();
    for _ in 0..threads {
        let (sender, receiver) = mpsc::channel::<std::net::TcpStream>(HANDOVER_BACKLOG);
        let (options, answers) = (options.clone(), answers.clone());
        std::thread::spawn(move || {
            if let Err(error) = serve_lane(&options, &answers, receiver) {
                eprintln!("kiln-floor: a thread ended: {error}");
            }
        });
        lanes.push(sender);
    }
    let listener = std::net::TcpListener::bind(options.listen)?;
    announce(options);
    for lane in lanes.iter().cycle() {
        let (stream, _) = listener.accept()?;
        stream.set_nonblocking(true)?;
        // A client that has gone already is found out when it is read from.
        let _ = stream.set_nodelay(!options.delay);
        lane.blocking_send(stream)?;
    }
    Ok(())
}

fn serve_lane(
    options: &Options,
    answers: &Answers,
    streams: mpsc::Receiver<std::net::TcpStream>,
) -> Result<(), AnyError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let incoming = ReceiverStream::new(streams).map(TcpStream::from_std);
        router(options, answers).serve_with_incoming(incoming).await?;
        Ok(())
    })
}

fn announce(options: &Options) {
    eprintln!("kiln-floor: ready on {} ({:?})", options.listen, options.runtime);
}

fn router(options: &Options, answers: &Answers) -> Router {
    Server::builder()
        .initial_stream_window_size(options.stream_window)
        .initial_connection_window_size(options.connection_window)
        .http2_adaptive_window(Some(options.adaptive_window))
        .max_frame_size(options.frame_size)
        .accept_http1(options.http1)
        .add_service(
            PublishBuildEventServer::new(events::Events).max_decoding_message_size(MAX_MESSAGE),
        )
        .add_service(CapabilitiesServer::new(capabilities::Constant))
        .add_service(ActionCacheServer::new(answers.cache.clone()))
        .add_service(
            ContentAddressableStorageServer::new(answers.cache.clone())
                .max_decoding_message_size(MAX_MESSAGE),
        )
        .add_service(
            ByteStreamServer::new(answers.streams.clone()).max_decoding_message_size(MAX_MESSAGE),
        )
}
