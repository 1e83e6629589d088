//! Executions as events. Publishing never waits: a subscriber that falls behind loses events
//! and counts them, and builds go on.

use std::sync::Arc;

use kiln_protos::events::{Begun, Execution};
use tokio::sync::broadcast;

/// Events kept for the slowest subscriber.
pub const EVENT_BUFFER: usize = 16 * 1024;

#[derive(Clone)]
pub struct Events {
    finished: broadcast::Sender<Arc<Execution>>,
    begun: broadcast::Sender<Arc<Begun>>,
}

impl Events {
    pub fn new() -> Self {
        Self {
            finished: broadcast::channel(EVENT_BUFFER).0,
            begun: broadcast::channel(EVENT_BUFFER).0,
        }
    }

    /// Tells subscribers that an execution has ended.
    pub fn publish(&self, execution: Execution) {
        // No subscriber is not an error.
        let _ = self.finished.send(Arc::new(execution));
    }

    /// Tells subscribers that executions wait or run from now on. A subscriber may hear of an end before it
    /// hears of the beginning, since the two come over different channels.
    pub fn begin(&self, begun: Begun) {
        let _ = self.begun.send(Arc::new(begun));
    }

    /// Receives the executions that end from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Execution>> {
        self.finished.subscribe()
    }

    /// Receives the executions that begin from now on because the action cache did not answer them, and
    /// look-ups in the action cache that found nothing.
    pub fn subscribe_begun(&self) -> broadcast::Receiver<Arc<Begun>> {
        self.begun.subscribe()
    }
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}
