//! What a runner writes, and what it is asked for: in records beside it, or at a server.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kiln_net::Unread;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::desk::Request;
use super::error::QueueError;
use super::inbox;
use super::kept::{Kept, LaneName};
use crate::model::Time;
use crate::queue::{Branch, ChangeId, Commit, Ended, Lane, Outcome, RunId};
use crate::storage::{Expect, Records, Write};

/// How often it is looked whether somebody asked for something.
const LOOK: Duration = Duration::from_millis(500);
/// Requests that are taken in at once.
pub const MAX_TAKEN: usize = 100;
/// Targets that are named of a run.
const MAX_NAMED: usize = 20;

/// Names a request of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// A request that nobody has taken in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    pub id: RequestId,
    pub request: Request,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    Done,
    /// Nothing was changed, for this reason.
    Refused(String),
}

/// A change as it was tested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tested {
    pub id: ChangeId,
    pub branch: Branch,
    pub head: Commit,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Passed,
    /// The check failed, with the targets that it named.
    Failed {
        targets: Vec<String>,
    },
    /// The check could not be run, for this reason.
    Unable(String),
}

/// A run that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    pub run: RunId,
    pub base: Commit,
    /// What was tested, where it could be put together.
    pub commit: Option<Commit>,
    /// Changes in this order on top of the base; none: the base itself.
    pub members: Vec<Tested>,
    pub began: Time,
    pub ended: Time,
    pub verdict: Verdict,
    /// The end of what the check printed.
    pub log: String,
}

/// A step of a lane: written as a whole or not at all, before anything is done about it.
#[derive(Clone, Debug)]
pub struct Step {
    pub lane: Lane,
    /// Changes that left the lane with this step.
    pub ended: Vec<Ended>,
    /// Requests that this step answers, each with its reply.
    pub answered: Vec<(RequestId, Reply)>,
    pub ran: Vec<Ran>,
}

/// The records in which a runner keeps its lane, and finds what it is asked for.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// The lane as it was written last; nothing where it has never run.
    async fn lane(&self) -> Result<Option<Lane>, QueueError>;

    /// Requests that were not answered yet, oldest first, but those that cannot be read.
    async fn pending(&self) -> Result<Vec<Pending>, QueueError>;

    async fn write(&self, step: Step) -> Result<(), QueueError>;

    /// How often it is looked whether somebody asked for something.
    fn look(&self) -> Duration {
        LOOK
    }
}

/// Records that this runner alone writes, apart from requests.
pub struct Local {
    kept: Kept,
    /// What the next write expects.
    expect: Mutex<Expect>,
    unread: Unread,
}

impl Local {
    pub fn new(records: Arc<dyn Records>, name: LaneName) -> Self {
        let (kept, expect) = (Kept { records, name }, Mutex::new(Expect::Absent));
        Self { kept, expect, unread: Unread::default() }
    }
}

#[async_trait]
impl Ledger for Local {
    async fn lane(&self) -> Result<Option<Lane>, QueueError> {
        let (lane, expect) = self.kept.lane().await?;
        *self.expect.lock().await = expect;
        Ok(lane)
    }

    async fn pending(&self) -> Result<Vec<Pending>, QueueError> {
        let pass_by = |key: &str, error: &QueueError| {
            self.unread.pass_by(key, error);
        };
        let Kept { records, name } = &self.kept;
        let found = inbox::requests::<Request>(&**records, name, MAX_TAKEN, &pass_by).await?;
        let pending = |(id, request)| Pending { id: RequestId(id), request };
        Ok(found.into_iter().map(pending).collect())
    }

    async fn write(&self, step: Step) -> Result<(), QueueError> {
        let mut expect = self.expect.lock().await;
        let done = |(id, _): &(RequestId, Reply)| Write {
            key: format!("{}{:016}", self.kept.name.inbox(), id.0),
            expect: Expect::Anything,
            value: None,
        };
        let others = step.answered.iter().map(done).collect();
        *expect = self.kept.write(&step.lane, *expect, &step.ended, others).await?;
        Ok(())
    }
}

impl From<&Outcome> for Verdict {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Passed => Self::Passed,
            Outcome::Failed { targets, .. } => {
                Self::Failed { targets: targets.iter().take(MAX_NAMED).cloned().collect() }
            }
            Outcome::Unable(why) => Self::Unable(why.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::desk::Desk;
    use super::*;
    use crate::storage::memory::Memory;

    #[tokio::test]
    async fn what_cannot_be_read_holds_up_no_other_request() {
        let memory = Arc::new(Memory::default());
        let name = LaneName::new("main").expect("a name");
        let odd = |rest: &str| Write {
            key: format!("{}{rest}", name.inbox()),
            expect: Expect::Anything,
            value: Some("no request".into()),
        };
        memory.write(vec![odd("0"), odd("odd")]).await.expect("they are written");
        let desk = Desk::new(memory.clone(), name.clone());
        desk.ask(&Request::Resume, Time(7)).await.expect("it is left");
        let local = Local::new(memory.clone(), name);
        let pending = Pending { id: RequestId(7), request: Request::Resume };
        assert_eq!(local.pending().await.expect("it is read"), [pending]);
        assert_eq!(desk.requests().await.expect("it is read"), [Request::Resume]);
        // Where the records themselves cannot be had, nothing is known.
        memory.fail_after(0, false);
        assert!(matches!(local.pending().await, Err(QueueError::Storage(_))));
    }
}
