//! Serves one connection: TLS, protocol detection, time limits, keep-alive, graceful end.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use kiln_net::counts::duration;
use kiln_scheduler::presence::OpenConnection;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::gate::Origin;
use super::measure::measured;
use super::opening::Opening;
use super::service::Service;
use super::socket::Socket;
use crate::auth::Peer;
use crate::auth::certificate::{Certificate, CertificateError};

/// Streams a client may have open on one connection.
const MAX_STREAMS: u32 = 1024;
/// A silent peer is asked whether it is there this often, and given up after as long again.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Frames for streams that were answered and reset before, over the life of a connection: data
/// on its way when an upload ends early because the blob is there. h2 closes the connection
/// after 1,024, which a client with many uploads reaches; the bound is against floods of resets
/// (RUSTSEC-2024-0003).
const MAX_STRAY_FRAMES: usize = 1 << 20;
/// Bytes of a frame that a client may send. A message of an upload (16 KiB from Bazel, 64 KiB from others, and a
/// few bytes around it) comes in one frame, and is used where it lies: frames of 16 KiB, the default, would have
/// to be put together, and cost each end a call for each. It is allocated when a frame's header has come.
const MAX_FRAME: u32 = 128 * 1024;
/// Largest block of request headers in bytes (RequestMetadata travels in one).
const MAX_HEADERS: u32 = 64 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    #[error("the socket cannot be used: {0}")]
    Socket(#[from] io::Error),
    #[error("no TLS handshake: {0}")]
    Handshake(io::Error),
    #[error("no TLS handshake within {} (server.handshake_timeout)", duration(*.0))]
    HandshakeTimeout(Duration),
    #[error("the client's certificate: {0}")]
    Certificate(#[from] CertificateError),
    #[error(transparent)]
    Http(Box<dyn std::error::Error + Send + Sync>),
}

pub async fn serve_connection(
    stream: TcpStream,
    service: Arc<Service>,
    shutdown: CancellationToken,
) -> Result<(), ConnectionError> {
    let ends = stream.peer_addr().ok().zip(stream.local_addr().ok());
    // Dropped with the connection: whoever answers its requests sees that it is gone.
    let open = OpenConnection::new();
    let connection = open.connection();
    let stream = Socket::new(stream, connection.clone(), service.limits.body)?;
    let Some(tls) = &service.tls else {
        let origin = Origin { ends, peer: Peer::default(), connection };
        serve(stream, service, origin, shutdown).await?;
        open.ended();
        return Ok(());
    };
    let limit = service.limits.handshake;
    let handshake = tokio::time::timeout(limit, tls.acceptor().accept(stream));
    let stream = tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        accepted = handshake => accepted
            .map_err(|_| ConnectionError::HandshakeTimeout(limit))?
            .map_err(ConnectionError::Handshake)?,
    };
    let origin = Origin { ends, peer: Peer::new(certificate(&stream)?), connection };
    serve(stream, service, origin, shutdown).await?;
    open.ended();
    Ok(())
}

/// The client's certificate, which rustls has verified before; `None`: the client has shown none.
fn certificate(stream: &TlsStream<Socket>) -> Result<Option<Certificate>, ConnectionError> {
    let (_, connection) = stream.get_ref();
    let shown = connection.peer_certificates().and_then(<[_]>::first);
    Ok(shown.map(|der| Certificate::parse(der)).transpose()?)
}

async fn serve(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    service: Arc<Service>,
    origin: Origin,
    shutdown: CancellationToken,
) -> Result<(), ConnectionError> {
    let origin = Arc::new(origin);
    let stream = Opening::new(stream, service.limits.handshake);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_frame_size(MAX_FRAME)
        .max_header_list_size(MAX_HEADERS)
        .max_local_error_reset_streams(MAX_STRAY_FRAMES)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    builder.http1().timer(TokioTimer::new()).header_read_timeout(service.limits.headers);
    let share = service.budget.share(origin.ends.map(|(client, _)| client.ip()));
    let answer = service_fn(move |request| {
        measured(service.clone(), origin.clone(), share.clone(), request)
    });
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), answer);
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => return ended.map_err(ConnectionError::Http),
        () = shutdown.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await.map_err(ConnectionError::Http)
}
