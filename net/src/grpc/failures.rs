//! Which failures are worth another try, and when.

use std::time::Duration;

use tokio::time::Instant;
use tonic::{Code, Status};

use super::connections::Connections;
use crate::backoff::Backoff;

/// Tries of one call, the first included: some 6 s in all when a server is away.
pub const TRIES: u32 = 7;
/// Pauses between the tries of one call.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(3));

/// The pause before a server is called again. `failures`: how many there were, at least 1.
pub fn pause(failures: u32) -> Duration {
    BACKOFF.pause(failures)
}

/// The server knows who calls, or does not, and says no: a person has to do something.
pub fn is_refusal(status: &Status) -> bool {
    matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied)
}

/// Whether nothing in the status says that the server is there.
pub fn is_unheard(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded)
}

pub fn is_transient(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::Unknown
            | Code::Internal
            | Code::Cancelled
    )
}

/// How often something has failed since it last went well.
pub struct Failures {
    /// How long it is tried again while no server is heard, also beyond [`TRIES`].
    patience: Duration,
    count: u32,
    since: Option<Instant>,
    /// The server that is called, and the number of its address in use.
    server: Option<(Connections, usize)>,
}

impl Failures {
    pub fn new(patience: Duration) -> Self {
        Self { patience, count: 0, since: None, server: None }
    }

    /// Counts failures of calls to `server`, and turns to its next address where one is not heard.
    pub fn over(server: &Connections) -> Self {
        let at = (server.clone(), server.place());
        Self { server: Some(at), ..Self::new(server.patience()) }
    }

    /// Forgets the failures so far, since a call went well.
    pub fn reset(&mut self) {
        self.count = 0;
        self.since = None;
    }

    /// How long to wait before the next try; `None`: there is none.
    pub fn next(&mut self, status: &Status) -> Option<Duration> {
        let since = *self.since.get_or_insert_with(Instant::now);
        self.count += 1;
        let unheard = is_unheard(status);
        if let Some((server, place)) = self.server.as_mut().filter(|_| unheard) {
            server.turn_from(*place);
            *place = server.place();
        }
        let patient = unheard && since.elapsed() < self.patience;
        let again = patient || (is_transient(status) && self.count < TRIES);
        again.then(|| pause(self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_not_heard_is_waited_for_and_success_counts_anew() {
        let patience = Duration::from_secs(60);
        let mut failures = Failures::new(patience);
        let unheard = Status::unavailable("no");
        failures.next(&unheard);
        tokio::time::sleep(2 * patience).await;
        failures.reset();
        assert!((0..TRIES + 1).all(|_| failures.next(&unheard).is_some()), "it counts anew");
    }
}
