//! One connection: protocol detection, keep-alive, graceful end.

use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio_util::sync::CancellationToken;

use super::measure::measured;
use crate::telemetry::requests::Lane;

/// Streams a client may have open on one connection.
const MAX_STREAMS: u32 = 1024;
/// A silent peer is asked whether it is there this often, and given up after as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Frames for streams that were answered and reset before, over the life of a connection: data
/// on its way when an upload ends early because the blob is there. h2 closes the connection
/// after 1,024, which a client with many uploads reaches; the bound is against floods of resets
/// (RUSTSEC-2024-0003).
const MAX_STRAY_FRAMES: usize = 1 << 20;
/// Largest block of request headers in bytes (RequestMetadata travels in one).
const MAX_HEADERS: u32 = 64 * 1024;

pub async fn serve_connection(
    stream: TcpStream,
    router: Router,
    counters: Arc<Lane>,
    shutdown: CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let stream = tokio::net::TcpStream::from_std(stream)?;
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADERS)
        .max_local_error_reset_streams(MAX_STRAY_FRAMES)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(KEEP_ALIVE);
    let service = service_fn(move |request| measured(router.clone(), counters.clone(), request));
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended,
        () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}
