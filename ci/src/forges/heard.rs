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
    /// It can be later.
    pub waits: bool,
}

/// One end of what is left for a forge.
pub struct Heard {
    pub counts: Arc<Counts>,
    pub turned: mpsc::Receiver<Turned>,
}

/// The other end.
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
