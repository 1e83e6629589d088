//! Whether a client that is gone gave up or lost its connection.
//!
//! Both end its stream of answers. Who gave up (Ctrl-C, a race that a local run has won) resets
//! the stream and keeps the connection, or closes it in order a moment later, as Bazel does when a
//! build was interrupted; who lost the connection comes back with `WaitExecution`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::Duration;

use kiln_net::panics::caught;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::metadata::MetadataMap;

use crate::api::Ticket;

/// How long the end of a connection may take to show after that of its streams.
const SETTLE: Duration = Duration::from_millis(250);
/// Clients whose streams have just ended and of whom it is not known yet why; of more it is
/// assumed that they may come back.
const MAX_UNDECIDED: usize = 10_000;
/// A client ends its stream by itself when its deadline is over, and that is no giving up: it
/// may do so this much before the server would.
const BEFORE_DEADLINE: Duration = Duration::from_secs(1);

/// The connection that a request came over, put into its extensions by who took it in.
#[derive(Debug, Clone)]
pub struct Connection(Arc<Signs>);

/// Marks a connection as open for as long as it lives.
#[derive(Debug)]
pub struct OpenConnection(Arc<Signs>);

/// The state of a connection, as far as the server can tell.
#[derive(Debug)]
struct Signs {
    /// The client sends nothing more: it closed its end of the connection, or there was an error.
    silent: AtomicBool,
    state: AtomicU8,
}

const OPEN: u8 = 0;
const BROKEN: u8 = 1;
const ENDED: u8 = 2;

impl OpenConnection {
    #[expect(clippy::new_without_default, reason = "one is opened, not assumed")]
    pub fn new() -> Self {
        Self(Arc::new(Signs { silent: AtomicBool::new(false), state: AtomicU8::new(OPEN) }))
    }

    pub fn connection(&self) -> Connection {
        Connection(self.0.clone())
    }

    /// Notes that the connection ended without an error or a time limit: one of the two sides
    /// closed it in order.
    pub fn ended(self) {
        self.0.state.store(ENDED, Ordering::Release);
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let open = self.0.state.compare_exchange(OPEN, BROKEN, Ordering::AcqRel, Ordering::Relaxed);
        debug_assert_ne!(open, Err(BROKEN), "a connection ends once");
    }
}

impl Connection {
    /// Whoever reads from the client has met the end, or an error. To be said before anything of
    /// that shows in the streams.
    pub fn silent(&self) {
        self.0.silent.store(true, Ordering::Release);
    }

    fn is_silent(&self) -> bool {
        self.0.silent.load(Ordering::Acquire)
    }

    fn state(&self) -> u8 {
        self.0.state.load(Ordering::Acquire)
    }
}

/// The client's side of one stream.
pub(crate) struct Client {
    /// The connection that the call came over; `None`: not known.
    connection: Option<Connection>,
    deadline: Option<Instant>,
}

impl Client {
    pub fn new(extensions: &tonic::Extensions, headers: &MetadataMap) -> Self {
        let timeout = headers.get("grpc-timeout").and_then(|value| timeout(value.to_str().ok()?));
        Self {
            connection: extensions.get().cloned(),
            deadline: timeout.and_then(|timeout| Instant::now().checked_add(timeout)),
        }
    }
}

/// gRPC over HTTP/2, "Timeout": digits and a unit.
fn timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number.saturating_mul(3600)),
        "M" => Duration::from_secs(number.saturating_mul(60)),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

struct Left {
    ticket: Ticket,
    connection: Connection,
    /// The client could still be heard: its connection had not ended before the stream.
    heard: bool,
    at: Instant,
}

impl Left {
    /// To be asked when the end of the connection must have shown.
    fn gave_up(&self) -> bool {
        match self.connection.state() {
            OPEN => true,
            ENDED => self.heard,
            _ => false,
        }
    }
}

/// Finds out of clients that are gone whether they gave up. Clones share one.
#[derive(Clone)]
pub(crate) struct Presence {
    undecided: mpsc::Sender<Left>,
}

impl Presence {
    /// Must be called within a Tokio runtime.
    pub fn start() -> Self {
        let (undecided, left) = mpsc::channel(MAX_UNDECIDED);
        tokio::spawn(decide(left));
        Self { undecided }
    }

    /// The client's stream has ended before its answer came.
    pub fn left(&self, client: &Client, ticket: Ticket) {
        let at = Instant::now();
        let in_time = client.deadline.is_none_or(|deadline| at + BEFORE_DEADLINE < deadline);
        if in_time && let Some(connection) = client.connection.clone() {
            // Where it is not taken the ticket is dropped: the client may come back.
            let heard = !connection.is_silent();
            let _ = self.undecided.try_send(Left { ticket, connection, heard, at });
        }
    }
}

async fn decide(mut left: mpsc::Receiver<Left>) {
    while let Some(left) = left.recv().await {
        tokio::time::sleep_until(left.at + SETTLE).await;
        let decided = async move {
            if left.gave_up() {
                left.ticket.give_up();
            }
        };
        if let Err(panicked) = caught(decided).await {
            panicked.goes_on("who has left").await;
        }
    }
}

/// A ticket whose client may go away before the answer comes.
pub(crate) struct Watched {
    presence: Arc<Presence>,
    client: Client,
    ticket: Option<Ticket>,
}

impl Watched {
    pub fn new(presence: Arc<Presence>, client: Client, ticket: Ticket) -> Self {
        Self { presence, client, ticket: Some(ticket) }
    }

    /// The ticket of the request; `None`: the answer has been given.
    pub fn ticket(&mut self) -> Option<&mut Ticket> {
        self.ticket.as_mut()
    }

    /// An answer is being given, or this server can give none: the client is not waited for.
    pub fn answered(&mut self) {
        self.ticket = None;
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.presence.left(&self.client, ticket);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_grpc_writes_them() {
        assert_eq!(timeout("5S"), Some(Duration::from_secs(5)));
        assert_eq!(timeout("99999999m"), Some(Duration::from_millis(99_999_999)));
        assert_eq!(timeout("2H"), Some(Duration::from_secs(7200)));
        for bad in ["", "S", "5", "5x", "-5S", "5é"] {
            assert_eq!(timeout(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_connection_is_open_until_its_end() {
        let open = OpenConnection::new();
        let connection = open.connection();
        assert_eq!(connection.state(), OPEN);
        drop(open);
        assert_eq!(connection.state(), BROKEN);

        let open = OpenConnection::new();
        let connection = open.connection();
        assert!(!connection.is_silent());
        connection.silent();
        open.ended();
        assert!(connection.is_silent());
        assert_eq!(connection.state(), ENDED);
    }
}
