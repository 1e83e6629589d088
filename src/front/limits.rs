//! What one server gives to connections: their number, and their time.

use std::time::Duration;

#[derive(Debug, Clone)]
pub struct FrontLimits {
    /// Until it is known which protocol a client speaks, TLS included.
    pub handshake: Duration,
    /// For the headers of an HTTP/1 request, and between two of them.
    pub headers: Duration,
    /// For the next part of a request's body, and for a client to take the next part of an answer.
    pub body: Duration,
    /// Open at a time; more are closed at once.
    pub connections: u64,
    /// The same of one peer.
    pub connections_per_peer: u32,
}
