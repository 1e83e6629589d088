//! Says why there is no session with a scheduler, in one line with what to do about it, and the same line
//! once a minute only.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::time::Duration;

use kiln_net::causes::{self, one_line};
use kiln_net::grpc::{address, innermost, of_other_protocol};
use tokio::time::Instant;
use tonic::{Code, Status};

/// How long the same reason is not logged again.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// The last reason that was logged for each address.
#[derive(Default)]
pub struct SessionDiagnostics(HashMap<String, Logged>);

struct Logged {
    words: String,
    at: Instant,
    /// How often the same reason came again since and was not logged.
    suppressed: u32,
}

impl SessionDiagnostics {
    /// Whether to log `words` about the scheduler at `url`: how often they were suppressed before, or `None`
    /// where they are suppressed now.
    pub fn due(&mut self, url: &str, words: &str, now: Instant) -> Option<u32> {
        let same = self.0.get_mut(url).filter(|said| said.words == words);
        let suppressed = match same {
            Some(said) if now < said.at + SAY_AGAIN => {
                said.suppressed += 1;
                return None;
            }
            Some(said) => said.suppressed,
            None => 0,
        };
        let said = Logged { words: words.to_owned(), at: now, suppressed: 0 };
        self.0.insert(url.to_owned(), said);
        Some(suppressed)
    }

    /// Forgets what was logged, because a session has begun since: the next reason is a new one.
    pub fn forget(&mut self) {
        self.0.clear();
    }
}

/// Says in words, with what to do, why a session with the scheduler at `url` ended so. `heard`:
/// whether the scheduler has said something in this session.
pub fn explain(status: &Status, url: &str, heard: bool) -> String {
    match status.code() {
        Code::Ok => "the server has ended the session: it stops, or wants a new one".to_owned(),
        Code::Unauthenticated => format!(
            "the server does not know this worker: {}; give it a token that is valid there \
             (--token-file or KILN_TOKEN), or a client certificate (--tls-client-cert)",
            one_line(status.message())
        ),
        Code::PermissionDenied => format!(
            "the server does not let this worker in: {}; give it credentials with the role worker",
            one_line(status.message())
        ),
        Code::Unimplemented if !heard => {
            "what answers there takes no workers: name a Kiln server (--server)".to_owned()
        }
        _ if heard => format!("the connection to the server was lost: {}", innermost(status)),
        _ => not_reached(status, url),
    }
}

fn not_reached(status: &Status, url: &str) -> String {
    let secure = address(url).is_ok_and(|(_, secure)| secure);
    if let Some(words) = status.source().and_then(|error| of_other_protocol(error, secure)) {
        return words;
    }
    match causes::find::<io::Error>(status).map(io::Error::kind) {
        Some(io::ErrorKind::ConnectionRefused) => {
            "nothing listens there: start the server, or correct --server".to_owned()
        }
        _ if status.source().is_none() => {
            format!("the server says: {}", one_line(status.message()))
        }
        _ => format!("it cannot be reached: {}; check --server and the network", innermost(status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_is_said_once_a_minute_and_something_new_at_once() {
        let (mut diagnostics, now) = (SessionDiagnostics::default(), Instant::now());
        assert_eq!(diagnostics.due("a", "refused", now), Some(0));
        assert_eq!(diagnostics.due("b", "refused", now), Some(0), "another address");
        for seconds in [1, 30, 59] {
            assert_eq!(diagnostics.due("a", "refused", now + Duration::from_secs(seconds)), None);
        }
        assert_eq!(diagnostics.due("a", "refused", now + SAY_AGAIN), Some(3));
        assert_eq!(diagnostics.due("a", "refused", now + SAY_AGAIN), None);
        assert_eq!(diagnostics.due("a", "expired", now + SAY_AGAIN), Some(0));
        diagnostics.forget();
        assert_eq!(diagnostics.due("a", "expired", now + SAY_AGAIN), Some(0));
    }

    #[test]
    fn the_end_of_a_session_is_no_success() {
        let words = explain(&Status::ok("the server closed the session"), "http://a:1", true);
        assert!(words.contains("the server has ended the session"), "{words}");
        assert!(!words.contains("successful"), "{words}");
        let broken = Status::unknown("stream\n  closed");
        let words = explain(&broken, "http://a:1", true);
        assert_eq!(words, "the connection to the server was lost: stream closed");
    }
}
