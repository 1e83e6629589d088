//! A lane at a server: its runner is a process elsewhere, which alone touches the repository and runs checks.
//!
//! The server keeps what the runner writes, hands it what people ask for, and sees to it that one runner at a time
//! has a queue. Each step of a runner is one write, together with the requests that it answers and the news that
//! follow, and only while nobody else has taken the queue: whoever takes over goes on from the last step.
//!
//! | module | what it does |
//! | --- | --- |
//! | `head` | who runs a queue, and what was counted: without I/O |
//! | `news` | what a step means to those who are told |
//! | `ask` | what people ask for, and what became of it |
//! | `running` | what a runner says |
//! | `show` | what people see |
//! | `why` | why a change has not landed yet, in words |
//! | `expected` | how long it takes until a change has landed |
//! | `feed` | who is told, and how far they have heard |
//! | `figures` | what is counted |
//! | `forget` | how a queue goes |

mod ask;
mod error;
mod expected;
mod feed;
mod figures;
mod forget;
mod head;
mod keys;
mod news;
mod running;
mod show;
#[cfg(test)]
mod tests;
mod why;

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

pub use ask::{Ask, Asked, MAX_BY};
pub use error::HostedError;
pub use expected::{Expected, expected};
pub use feed::{Feed, Told};
pub use figures::{QueueFigures, QueueGauge};
pub use head::{About, Head, LEASE, Take, Totals};
pub use news::News;
pub use running::Taken;
pub use show::Shown;
pub use why::{Place, place, runs_of, why};

use self::figures::Counts;
use super::serving::{Kept, LaneName};
use crate::services::Clock;
use crate::storage::Records;

/// The queues of a server. Clones share them.
#[derive(Clone)]
pub struct Queues {
    records: Arc<dyn Records>,
    clock: Arc<dyn Clock>,
    /// Names this process among all that share the records.
    who: Arc<str>,
    counts: Arc<Counts>,
}

impl Queues {
    pub fn new(records: Arc<dyn Records>, clock: Arc<dyn Clock>) -> Self {
        let mut random = std::collections::hash_map::RandomState::new().build_hasher();
        random.write_u32(std::process::id());
        let who = format!("{}-{:016x}", std::process::id(), random.finish()).into();
        Self { records, clock, who, counts: Arc::default() }
    }

    fn kept(&self, queue: &LaneName) -> Kept {
        Kept { records: self.records.clone(), name: queue.clone() }
    }
}
