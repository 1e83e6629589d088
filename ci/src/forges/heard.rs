//! What the way in leaves to those who tell a forge.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::figures::Counts;
use crate::queue::Commit;

/// What was turned down and waits to be told. What is more is not told: the answer to the delivery says it as well.
const MAX_WAITING: usize = 100;

/// A change that somebody wanted to be queued, and that cannot be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turned {
    pub repository: String,
    pub commit: Commit,
    pub why: String,
    /// Whether the change can be queued later.
    pub waits: bool,
}

/// The end for whoever tells a forge, at which counts and what was turned down are heard.
pub struct Heard {
    pub counts: Arc<Counts>,
    pub turned: mpsc::Receiver<Turned>,
}

/// The end for deliveries of a forge, at which they leave counts and what was turned down.
#[derive(Default)]
pub struct Left {
    pub counts: Arc<Counts>,
    turned: Option<mpsc::Sender<Turned>>,
}

impl Left {
    /// The end for whoever tells; the last one counts.
    pub fn listen(&mut self) -> Heard {
        let (sender, turned) = mpsc::channel(MAX_WAITING);
        self.turned = Some(sender);
        Heard { counts: self.counts.clone(), turned }
    }

    pub fn turn(&self, turned: Turned) {
        if let Some(sender) = &self.turned {
            sender.try_send(turned).ok();
        }
    }
}
