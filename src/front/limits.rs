//! Limits of one server's connections: their number, and their time.

use std::time::Duration;

#[derive(Debug, Clone)]
pub struct FrontLimits {
    /// How long a client may take until it is known which protocol it speaks, TLS included.
    pub handshake: Duration,
    /// How long a client may take for the headers of an HTTP/1 request, and between two requests.
    pub headers: Duration,
    /// How long a client may take to send the next part of a body, or to take the next part of an answer.
    pub body: Duration,
    /// Most open connections; more are closed at once.
    pub connections: u64,
    /// Most open connections of one peer.
    pub connections_per_peer: u32,
}
