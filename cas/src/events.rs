//! Finished executions as events. Publishing never waits: a subscriber that falls behind
//! loses events and counts them, and builds go on.

use std::sync::Arc;

use kiln_protos::events::Execution;
use tokio::sync::broadcast;

/// Events kept for the slowest subscriber.
pub const EVENT_BUFFER: usize = 16 * 1024;

#[derive(Clone)]
pub struct Events {
    sender: broadcast::Sender<Arc<Execution>>,
}

impl Events {
    pub fn new() -> Self {
        Self { sender: broadcast::channel(EVENT_BUFFER).0 }
    }

    pub fn publish(&self, execution: Execution) {
        // No subscriber is not an error.
        let _ = self.sender.send(Arc::new(execution));
    }

    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Execution>> {
        self.sender.subscribe()
    }
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}
