//! A build as its page shows it, put together from its stream, and brought up to date from where it was.

use super::build::Build;
use super::failed::FailedRuns;
use super::limits::Limits;
use super::log::{EventLog, LogError};
use super::results::Results;
use super::wire::StreamKey;

/// What a stream says up to one of its events.
#[derive(Clone, Debug)]
pub struct View {
    pub build: Build,
    pub results: Results,
    pub failed: FailedRuns,
    /// The number of the last event that is in it.
    pub events: u64,
}

impl View {
    fn new(stream: &StreamKey) -> Self {
        Self {
            build: Build::new(&stream.instance, &stream.invocation, Limits::default()),
            results: Results::default(),
            failed: FailedRuns::default(),
            events: 0,
        }
    }
}

impl EventLog {
    /// All that is durable of a stream. `before`: an earlier look at the same one.
    pub async fn view(&self, stream: &StreamKey, before: Option<View>) -> Result<View, LogError> {
        let mut view = before.unwrap_or_else(|| View::new(stream));
        let behind = view.events;
        self.replay(stream, behind, |number, entry| {
            view.build.apply(&entry);
            view.results.apply(&entry);
            // Attempts are in the history; who asks here wants to know which of them failed.
            view.build.take_attempts().iter().for_each(|it| view.failed.take(&it.attempt));
            view.events = number;
        })
        .await?;
        Ok(view)
    }
}
