//! Gives pieces of releases to other agents. Whoever connects has to show a certificate at once and
//! a pass with each question; few may connect, and what they are sent they have to take.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::stream;
use http::header::{CONNECTION, CONTENT_LENGTH};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use kiln_deploy::agent::{Given, Giving, Refusal};
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use super::PASS;
use super::tls::{Own, fingerprint};
use crate::cli::error::CliError;

/// The most connections that are open, in all and from one address.
const MAX_CONNECTIONS: u32 = 128;
const MAX_OF_ADDRESS: u32 = 32;
/// How long a connection may take until TLS is agreed on, and between two questions.
const HANDSHAKE: Duration = Duration::from_secs(12);
const SILENT: Duration = Duration::from_secs(120);
/// How long whoever is sent something may take for the next part of it.
const STALLED: Duration = Duration::from_secs(15);
/// The longest headers of a question, in bytes.
const MAX_HEADERS: usize = 16 << 10;
/// Bytes that are sent at once: few, so that whoever is sent them slowly hears that there are more.
const PART: usize = 16 << 10;
/// Bytes that wait in the kernel and were not sent. If all of a piece could wait there, its turn would be over long before the
/// piece is on its way, and whoever has a slow link would give to many at once.
const UNSENT: u32 = 64 << 10;
/// How long to wait after a connection could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);

type Body = UnsyncBoxBody<Bytes, Infallible>;

pub struct Serving {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    giving: Arc<Giving>,
    open: Arc<Mutex<HashMap<IpAddr, u32>>>,
}

/// The place of one open connection among those of its address; dropping it makes room.
struct Seat {
    open: Arc<Mutex<HashMap<IpAddr, u32>>>,
    address: IpAddr,
}

impl Seat {
    fn take(open: &Arc<Mutex<HashMap<IpAddr, u32>>>, address: IpAddr) -> Option<Self> {
        let mut seats = open.lock().unwrap_or_else(PoisonError::into_inner);
        let own = seats.get(&address).copied().unwrap_or(0);
        if seats.values().sum::<u32>() >= MAX_CONNECTIONS || own >= MAX_OF_ADDRESS {
            return None;
        }
        seats.insert(address, own + 1);
        Some(Self { open: open.clone(), address })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let left = seats.get(&self.address).copied().unwrap_or(0).saturating_sub(1);
        if left == 0 {
            seats.remove(&self.address);
        } else {
            seats.insert(self.address, left);
        }
    }
}

/// When the part of an answer was sent that its receiver has not taken yet, to see receivers that
/// have stalled.
#[derive(Default)]
struct Progress(Mutex<Option<Instant>>);

impl Progress {
    fn note(&self, at: Option<Instant>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    fn is_stalled(&self) -> bool {
        let last = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.is_some_and(|it| it.elapsed() >= STALLED)
    }
}

impl Serving {
    pub async fn listen(
        address: SocketAddr,
        own: &Own,
        giving: Arc<Giving>,
    ) -> Result<Self, CliError> {
        let unusable = |error: &dyn std::fmt::Display| {
            CliError::machine(format!("--peers-listen {address} cannot be used: {error}"))
                .hint("name an address of this machine with a port that is free")
        };
        let config = own.server().map_err(|error| unusable(&error))?;
        let listener = TcpListener::bind(address).await.map_err(|error| unusable(&error))?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        Ok(Self { listener, acceptor, giving, open: Arc::default() })
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts connections and serves them until `stop` is cancelled.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            let (stream, from) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection of another agent is not taken");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            // Too many: whoever asks finds others.
            let Some(seat) = Seat::take(&self.open, from.ip()) else { continue };
            let (acceptor, giving, stop) =
                (self.acceptor.clone(), self.giving.clone(), stop.clone());
            tokio::spawn(async move {
                let served = tokio::select! {
                    () = stop.cancelled() => Ok(()),
                    served = serve(stream, acceptor, giving) => served,
                };
                if let Err(error) = served {
                    tracing::debug!(%from, error, "a connection of another agent ends");
                }
                drop(seat);
            });
        }
    }
}

async fn serve(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    giving: Arc<Giving>,
) -> Result<(), String> {
    let bounded = SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
    bounded.map_err(|error| format!("what waits to be sent is not bounded: {error}"))?;
    let accepted = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await;
    let stream = accepted.map_err(|_| "no TLS handshake".to_owned())?;
    let stream = stream.map_err(|error| error.to_string())?;
    let caller = Arc::<str>::from(caller(&stream).ok_or("it shows no certificate")?);
    let progress = Arc::new(Progress::default());
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(SILENT).max_buf_size(MAX_HEADERS);
    let answers = {
        let progress = progress.clone();
        service_fn(move |request| {
            let answer = answer(giving.clone(), caller.clone(), progress.clone(), request);
            async move { Ok::<_, Infallible>(answer.await) }
        })
    };
    let connection = builder.serve_connection(TokioIo::new(stream), answers);
    tokio::pin!(connection);
    loop {
        tokio::select! {
            ended = connection.as_mut() => return ended.map_err(|error| error.to_string()),
            () = tokio::time::sleep(STALLED / 3) => {
                if progress.is_stalled() {
                    return Err("it does not take what it is sent".to_owned());
                }
            }
        }
    }
}

/// The fingerprint of the certificate that the other side has shown, whose key it has.
fn caller(stream: &TlsStream<TcpStream>) -> Option<String> {
    let (_, connection) = stream.get_ref();
    connection.peer_certificates().and_then(<[_]>::first).map(fingerprint)
}

/// The list of pieces that a path asks for, and the place of one piece in it where it asks for
/// that; `None`: the path is none of ours.
fn question(path: &str) -> Option<(&str, Option<usize>)> {
    let (what, rest) = path.strip_prefix("/v1/")?.split_once('/')?;
    match (what, rest.split_once('/')) {
        ("has", None) => Some((rest, None)),
        ("piece", Some((list, piece))) => Some((list, Some(piece.parse().ok()?))),
        _ => None,
    }
}

async fn answer(
    giving: Arc<Giving>,
    caller: Arc<str>,
    progress: Arc<Progress>,
    request: Request<Incoming>,
) -> Response<Body> {
    let pass = request.headers().get(PASS).and_then(|it| it.to_str().ok());
    let pass = pass.unwrap_or_default().to_owned();
    let path = request.uri().path().to_owned();
    let Some((list, piece)) = question(&path).filter(|_| request.method() == Method::GET) else {
        return refused(StatusCode::BAD_REQUEST);
    };
    let list = list.to_owned();
    // The disk is read elsewhere.
    let reading = giving.clone();
    let given = tokio::task::spawn_blocking(move || match piece {
        None => reading.has(&list, &pass, &caller).map(Found::Has),
        Some(piece) => reading.piece(&list, piece, &pass, &caller).map(Found::Piece),
    });
    match given.await {
        Ok(Ok(Found::Has(bits))) => Response::new(Full::new(Bytes::from(bits)).boxed_unsync()),
        Ok(Ok(Found::Piece(given))) => sent(given, giving, progress),
        Ok(Err(Refusal::NoPass)) => refused(StatusCode::FORBIDDEN),
        Ok(Err(Refusal::Lacks)) => refused(StatusCode::NOT_FOUND),
        Ok(Err(Refusal::Busy)) => refused(StatusCode::SERVICE_UNAVAILABLE),
        Ok(Err(error @ Refusal::Disk(_))) => {
            tracing::warn!(%error, "a piece is not given");
            refused(StatusCode::NOT_FOUND)
        }
        Err(_) => refused(StatusCode::INTERNAL_SERVER_ERROR),
    }
}

enum Found {
    Has(Vec<u8>),
    Piece(Given),
}

fn refused(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Full::new(Bytes::new()).boxed_unsync());
    *response.status_mut() = status;
    // Who is no agent of the service does not stay.
    if matches!(status, StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST) {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// The answer with a piece, no faster than it may be sent. Its turn ends with the last byte, or
/// with the connection.
fn sent(given: Given, giving: Arc<Giving>, progress: Arc<Progress>) -> Response<Body> {
    let length = given.data.len();
    let parts = stream::unfold((given, 0), move |(given, start)| {
        let (giving, progress) = (giving.clone(), progress.clone());
        async move {
            let end = given.data.len().min(start + PART);
            let part = given.data.get(start..end).filter(|it| !it.is_empty());
            let part = part.map(Bytes::copy_from_slice);
            // What waits for its rate does not stall.
            progress.note(None);
            let part = part?;
            tokio::time::sleep(giving.rate.wait_for(part.len())).await;
            progress.note((end < given.data.len()).then(Instant::now));
            Some((Ok::<_, Infallible>(Frame::data(part)), (given, end)))
        }
    });
    let mut response = Response::new(StreamBody::new(parts).boxed_unsync());
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_are_of_two_kinds() {
        assert_eq!(question("/v1/has/sha256:ab"), Some(("sha256:ab", None)));
        assert_eq!(question("/v1/piece/sha256:ab/7"), Some(("sha256:ab", Some(7))));
        for odd in ["", "/", "/v1/", "/v1/has", "/v1/has/a/7", "/v1/piece/a", "/v1/piece/a/-1"] {
            assert_eq!(question(odd), None, "{odd}");
        }
    }

    #[test]
    fn one_address_does_not_take_all_seats() {
        let open = Arc::default();
        let (one, two) = (IpAddr::from([127, 0, 0, 1]), IpAddr::from([127, 0, 0, 2]));
        let seats: Vec<_> = (0..MAX_OF_ADDRESS).map(|_| Seat::take(&open, one).unwrap()).collect();
        assert!(Seat::take(&open, one).is_none() && Seat::take(&open, two).is_some());
        drop(seats);
        assert!(Seat::take(&open, one).is_some());
        assert!(open.lock().unwrap().is_empty());
    }
}
