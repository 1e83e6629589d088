//! What runners of merge queues and their server say to each other.

use kiln_ci::queue::hosted::{About, Take};
use kiln_ci::queue::serving::{Pending, Ran, Reply, RequestId, Step};
use kiln_ci::queue::{Ended, Lane};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a runner sends to get a queue.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MergeTake {
    pub queue: String,
    /// An id of the runner: the same in all its calls, and in those of no other.
    pub nonce: String,
    /// The runner's name: its machine and its process.
    pub name: String,
    /// The URL of the repository, without passwords.
    pub repository: String,
    pub target: String,
    pub check: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MergeTaken {
    /// The number by which the runner is told from earlier ones. Each of its calls has to name it.
    pub fence: u64,
    /// Seconds without a call after which another runner may have the queue.
    pub lease_s: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MergeCall {
    pub queue: String,
    pub fence: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MergeLane {
    /// The lane as its runner wrote it last; null: it has never run.
    #[schemars(with = "Option<Value>")]
    pub lane: Option<Lane>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MergeAsked {
    /// Requests that were not answered yet, oldest first.
    #[schemars(with = "Vec<Value>")]
    pub requests: Vec<Pending>,
}

/// A step of a runner, which is written as a whole or not at all.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MergeStep {
    pub queue: String,
    pub fence: u64,
    /// The number of the step, from 1 for each runner. The same number again is the same step.
    pub number: u64,
    #[schemars(with = "Value")]
    pub lane: Lane,
    /// Changes that left the queue with this step.
    #[schemars(with = "Vec<Value>")]
    pub ended: Vec<Ended>,
    /// Requests that this step answers, each with its reply.
    #[schemars(with = "Vec<Value>")]
    pub answered: Vec<(RequestId, Reply)>,
    /// Runs that ended with this step.
    #[schemars(with = "Vec<Value>")]
    pub ran: Vec<Ran>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct MergeHeard {
    pub fence: u64,
}

impl From<MergeTake> for Take {
    fn from(it: MergeTake) -> Self {
        let MergeTake { queue: _, nonce, name, repository, target, check } = it;
        Self { nonce, about: About { name, repository, target, check } }
    }
}

impl MergeStep {
    pub fn new(queue: &str, fence: u64, number: u64, step: Step) -> Self {
        let Step { lane, ended, answered, ran } = step;
        Self { queue: queue.to_owned(), fence, number, lane, ended, answered, ran }
    }

    pub fn step(self) -> Step {
        let Self { lane, ended, answered, ran, .. } = self;
        Step { lane, ended, answered, ran }
    }
}
