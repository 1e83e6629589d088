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

    /// A request has reached its end.
    pub fn publish(&self, execution: Execution) {
        // No subscriber is not an error.
        let _ = self.finished.send(Arc::new(execution));
    }

    /// Requests wait or run from now on. Their ends may be heard before this.
    pub fn begin(&self, begun: Begun) {
        let _ = self.begun.send(Arc::new(begun));
    }

    /// The ends of requests.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Execution>> {
        self.finished.subscribe()
    }

    /// The beginnings of requests that the action cache did not answer, and look-ups that found nothing.
    pub fn subscribe_begun(&self) -> broadcast::Receiver<Arc<Begun>> {
        self.begun.subscribe()
    }
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}
