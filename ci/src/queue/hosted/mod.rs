//! A lane at a server: its runner is a process elsewhere, which alone touches the repository and runs checks.
//!
//! The server keeps what the runner writes, hands it what people ask for, and sees to it that one runner at a time
//! has a queue. Each step of a runner is one write, together with the requests that it answers and the news that
//! follow, and only while nobody else has taken the queue: whoever takes over goes on from the last step.
//!
//! | module | what it does |
//! | --- | --- |
//! | `queues` | what the others are about |
//! | `head` | who runs a queue, and what was counted: without I/O |
//! | `news` | what a step means to those who are told |
//! | `ask` | what people ask for, and what became of it |
//! | `running` | what a runner says |
//! | `show` | what people see |
//! | `line` | in which order changes are taken |
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
mod line;
mod news;
mod queues;
mod running;
mod show;
#[cfg(test)]
mod tests;
mod why;

pub use ask::{Ask, Asked};
pub use error::HostedError;
pub use expected::{Expected, expected};
pub use feed::{Feed, Told};
pub use figures::QueueGauge;
pub use head::{About, Head, LEASE, Take, Totals};
pub use line::{Before, Line};
pub use news::News;
pub use queues::Queues;
pub use running::Taken;
pub use show::Shown;
pub use why::{Place, place, runs_of, why};
