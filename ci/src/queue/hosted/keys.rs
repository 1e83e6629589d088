//! Keys of the records in which queues of a server are kept. The lane, requests that wait and changes that have left
//! are where [`Kept`](crate::queue::serving::Kept) has them.
//!
//! | key | what it says |
//! | --- | --- |
//! | `merge-queues/NAME` | who runs a queue, and what was counted |
//! | `queue/NAME/asked/ID` | a request, with what became of it; the newest |
//! | `queue/NAME/runs/RUN` | how a run ended, the newest |
//! | `queue/NAME/logs/RUN` | the end of what its check printed |
//! | `queue/NAME/news/NUMBER` | what one step meant, the newest |
//! | `merge-feeds/CONSUMER` | how far somebody who is told has heard |
//! | `merge-feed-turns/CONSUMER` | which process tells it |

use crate::queue::RunId;
use crate::queue::serving::{LaneName, RequestId};

pub const HEADS: &str = "merge-queues/";

pub fn head(queue: &LaneName) -> String {
    format!("{HEADS}{}", queue.as_str())
}

pub fn asked(queue: &LaneName) -> String {
    queue.key("asked/")
}

pub fn request(queue: &LaneName, id: RequestId) -> String {
    format!("{}{:016}", asked(queue), id.0)
}

pub fn runs(queue: &LaneName) -> String {
    queue.key("runs/")
}

pub fn run(queue: &LaneName, run: RunId) -> String {
    format!("{}{:016}", runs(queue), run.0)
}

pub fn log(queue: &LaneName, run: RunId) -> String {
    queue.key(&format!("logs/{:016}", run.0))
}

pub fn all_news(queue: &LaneName) -> String {
    queue.key("news/")
}

pub fn news(queue: &LaneName, number: u64) -> String {
    format!("{}{number:016}", all_news(queue))
}

pub fn feed(consumer: &str) -> String {
    format!("merge-feeds/{consumer}")
}

pub fn feed_turn(consumer: &str) -> String {
    format!("merge-feed-turns/{consumer}")
}
