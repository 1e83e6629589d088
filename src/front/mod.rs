//! The one port: HTTP/1, HTTP/2 and gRPC on a few single-threaded runtimes.
//!
//! A connection lives on one thread: no request crosses cores, which more than doubles the
//! rate of small calls compared with a work-stealing runtime (docs/benchmarks.md).

mod acks;
mod body;
mod connection;
mod gate;
pub mod health;
mod limits;
mod linger;
mod listen;
mod measure;
mod memory;
mod opening;
mod peers;
mod service;
mod site;
mod socket;
mod status;
mod tls;
pub mod unknown;

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use axum::Router;
use kiln_net::panics::resumed;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::auth::Auth;
use crate::auth::failures::{Failures, Limiter};
use crate::telemetry::requests::{self, Requests};
use connection::{ConnectionError, serve_connection};
use gate::Gate;
pub use limits::FrontLimits;
pub use listen::{Listen, Reserved, Resolved};
use peers::{Peers, Place};
use service::Service;
pub use site::Site;
pub use tls::{Tls, TlsError, TlsOptions};

/// Connections accepted and not yet taken over by a thread.
const HANDOVER_BACKLOG: usize = 256;
/// Threads that a front runtime may start for blocking reads and writes of large blobs.
const BLOCKING_THREADS: usize = 16;
/// Lines in the log about connections that were closed at once, in one [`LINES_WITHIN`].
const LINES: u32 = 5;
const LINES_WITHIN: Duration = Duration::from_secs(10);
/// How long to wait after an `accept` that failed (no file descriptors left).
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// A running front. Cancel the token given to [`Front::start`], then [`Front::join`].
pub struct Front {
    threads: Vec<JoinHandle<()>>,
}

/// One thread's inbox and its counters, which say how many connections it holds.
#[derive(Clone)]
struct Lane {
    inbox: mpsc::Sender<Accepted>,
    counters: Arc<requests::Lane>,
}

/// A new connection, and its place among those of its peer.
struct Accepted {
    stream: TcpStream,
    place: Place,
}

/// Everything that a front needs to serve, and its limits.
pub struct FrontParts<'a> {
    pub router: Router,
    /// Certificate and key of the front; `None`: it speaks plain HTTP.
    pub tls: Option<Arc<Tls>>,
    /// How callers prove who they are; `None`: nobody is asked.
    pub auth: Option<Arc<Auth>>,
    pub failures: Arc<Failures>,
    pub site: Site,
    pub limits: FrontLimits,
    pub requests: &'a Requests,
    /// How long open connections may take to finish after `shutdown`.
    pub drain: Duration,
}

impl Front {
    /// Serves on `listeners` with one thread for each lane of `requests` until `shutdown` is
    /// cancelled. Call within a tokio runtime.
    pub fn start(
        listeners: Vec<TcpListener>,
        parts: FrontParts<'_>,
        shutdown: &CancellationToken,
    ) -> io::Result<Self> {
        let FrontParts { router, tls, auth, failures, site, limits, requests, drain } = parts;
        let site = Arc::new(site);
        let mut lanes = Vec::new();
        let mut handles = Vec::new();
        for (index, counters) in requests.lanes().iter().enumerate() {
            let (inbox, streams) = mpsc::channel(HANDOVER_BACKLOG);
            let lane = Lane { inbox, counters: counters.clone() };
            let service = Service {
                router: router.clone(),
                counters: lane.counters.clone(),
                tls: tls.clone(),
                gate: auth.clone().map(Gate),
                site: site.clone(),
                limits: limits.clone(),
                failures: failures.clone(),
                budget: requests.budget().clone(),
            };
            let shutdown = shutdown.clone();
            let worker = LaneWorker { service: Arc::new(service), drain, shutdown };
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .max_blocking_threads(BLOCKING_THREADS)
                .thread_name(format!("front-{index}-io"))
                .build()?;
            handles.push(
                std::thread::Builder::new()
                    .name(format!("front-{index}"))
                    .spawn(move || runtime.block_on(worker.run(streams)))?,
            );
            lanes.push(lane);
        }
        let peers = Peers::new(limits.connections_per_peer);
        for listener in listeners {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let (lanes, peers, most) = (lanes.clone(), peers.clone(), limits.connections);
            let acceptor = Acceptor { lanes, peers, most };
            let shutdown = shutdown.clone();
            tokio::spawn(async move {
                resumed("taking connections in", || acceptor.run(&listener, &shutdown)).await;
            });
        }
        Ok(Self { threads: handles })
    }

    /// Waits until every connection has ended or its drain time is over.
    pub async fn join(self) {
        let joined = tokio::task::spawn_blocking(move || {
            for thread in self.threads {
                if thread.join().is_err() {
                    tracing::error!("a front thread ended with a panic");
                }
            }
        });
        if let Err(error) = joined.await {
            tracing::error!(%error, "waiting for the front threads failed");
        }
    }
}

/// Takes connections in and gives them to threads.
struct Acceptor {
    lanes: Vec<Lane>,
    peers: Peers,
    /// Connections that may be open at a time.
    most: u64,
}

impl Acceptor {
    async fn run(&self, listener: &tokio::net::TcpListener, shutdown: &CancellationToken) {
        let mut limiter = Limiter::new(LINES, LINES_WITHIN);
        loop {
            let accepted = tokio::select! {
                () = shutdown.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    if let Err(why) = self.hand_over(stream, peer)
                        && let Some(left_out) = limiter.admit(Instant::now())
                    {
                        tracing::warn!(%peer, left_out, "a new connection is closed: {why}");
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_BACKOFF).await;
                }
            }
        }
    }

    /// Gives the connection to the thread with the fewest. The error says why it is closed instead.
    fn hand_over(
        &self,
        stream: tokio::net::TcpStream,
        peer: SocketAddr,
    ) -> Result<(), &'static str> {
        let open: u64 = self.lanes.iter().map(|lane| lane.counters.connections()).sum();
        if open >= self.most {
            return Err("there are as many as server.max_connections allows");
        }
        let full = "its peer has as many as server.max_connections_per_peer allows";
        let place = self.peers.admit(peer.ip()).ok_or(full)?;
        let stream = stream.into_std().map_err(|_| "its socket cannot be used")?;
        let lane = self.lanes.iter().min_by_key(|lane| lane.counters.connections());
        let lane = lane.ok_or("there is no thread for it")?;
        lane.counters.opened();
        lane.inbox.try_send(Accepted { stream, place }).map_err(|_| {
            lane.counters.closed();
            "its thread is too busy"
        })
    }
}

struct LaneWorker {
    service: Arc<Service>,
    drain: Duration,
    shutdown: CancellationToken,
}

impl LaneWorker {
    async fn run(self, mut streams: mpsc::Receiver<Accepted>) {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                () = self.shutdown.cancelled() => break,
                Some(_) = connections.join_next(), if !connections.is_empty() => {}
                stream = streams.recv() => match stream {
                    Some(stream) => self.take(stream, &mut connections),
                    None => break,
                }
            }
        }
        let all = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(self.drain, all).await.is_err() {
            tracing::warn!("connections are still open after the drain time: closing them");
        }
    }

    fn take(&self, accepted: Accepted, connections: &mut tokio::task::JoinSet<()>) {
        let service = self.service.clone();
        let open = OpenConnection(service.counters.clone());
        let shutdown = self.shutdown.clone();
        connections.spawn(async move {
            let Accepted { stream, place } = accepted;
            let _counted = (open, place);
            let failures = service.failures.clone();
            if let Err(error) = serve_connection(stream, service, shutdown).await {
                note(&error, &failures);
            }
        });
    }
}

/// Clients break off for many reasons; what ended a connection is rarely news.
fn note(error: &ConnectionError, failures: &Failures) {
    if let ConnectionError::Handshake(_) | ConnectionError::HandshakeTimeout(_) = error {
        failures.count_handshake();
    }
    tracing::debug!(%error, "a connection ended with an error");
}

/// Counts a connection until it is dropped.
struct OpenConnection(Arc<requests::Lane>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.closed();
    }
}
