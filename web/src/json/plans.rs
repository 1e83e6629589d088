//! Plans that runners work off. Durations are in seconds.

use kiln_ci::plans;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::suite::nanos;

/// What `POST /api/v1/tests/plans` is given: the pieces of a new plan.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct NewPlan {
    #[serde(default)]
    pub instance: String,
    /// The plan's id, which its runners name: that of a pipeline, for example.
    pub plan: String,
    pub pieces: Vec<PlanPiece>,
    /// Seconds after which the piece of a runner that was not heard of again is given to another one; null: never.
    #[serde(default)]
    pub again_after_s: Option<u64>,
    /// Seconds that the plan is kept; a day where this is absent, a week at most.
    #[serde(default)]
    pub keep_s: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlanPiece {
    pub tests: Vec<String>,
    pub expected_s: f64,
}

/// What `GET /api/v1/tests/plans?plan=ID` answers: how far a plan is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlanStanding {
    pub plan: String,
    pub tests: usize,
    /// Pieces that nobody has, that somebody works on, and that are done.
    pub open: usize,
    pub taken: usize,
    pub done: usize,
    #[serde(with = "super::time")]
    #[schemars(with = "Option<String>")]
    pub expires: i64,
    pub again_after_s: Option<u64>,
    /// Whether the plan was there before, with the same tests, so that nothing was changed.
    pub was_there: bool,
    /// Runners in the order in which they came; each attempt by itself.
    pub runners: Vec<PlanRunner>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanRunner {
    pub runner: String,
    pub attempt: String,
    /// Pieces that it was given, in this order, numbered from 1.
    pub pieces: Vec<u32>,
}

/// What `POST /api/v1/tests/plans/next` is given: a runner asks what to do next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanTurn {
    #[serde(default)]
    pub instance: String,
    pub plan: String,
    pub runner: String,
    /// What tells a job that is run again from its earlier attempt; empty where nothing does.
    #[serde(default)]
    pub attempt: String,
    /// A number of the request's own: sent again, it gets the same answer.
    pub request: u64,
}

/// What the runner that asked is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlanNext {
    /// `piece`, `wait` (others work on the rest, which may be given out again) or `nothing`
    pub state: String,
    /// Numbered from 1; `null` where there is none.
    pub piece: Option<u32>,
    #[serde(default)]
    pub tests: Vec<String>,
    pub expected_s: Option<f64>,
    /// An earlier attempt of the runner had it.
    #[serde(default)]
    pub is_repeat: bool,
    /// The runner that had it and was not heard of again.
    pub instead_of: Option<String>,
    pub open: usize,
    pub taken: usize,
    pub done: usize,
}

impl PlanStanding {
    pub fn new(plan: &str, it: &plans::Standing) -> Self {
        let runner = |(runner, attempt, pieces): (&str, &str, &[u32])| PlanRunner {
            runner: runner.to_owned(),
            attempt: attempt.to_owned(),
            pieces: pieces.iter().map(|it| it.saturating_add(1)).collect(),
        };
        let plans::Progress { open, taken, done } = it.progress;
        Self {
            plan: plan.to_owned(),
            tests: it.tests,
            open,
            taken,
            done,
            expires: nanos(it.expires),
            again_after_s: it.again_after.map(|it| it.as_secs()),
            was_there: it.was_there,
            runners: it.course.runners().map(runner).collect(),
        }
    }
}

impl From<plans::Handed> for PlanNext {
    fn from(it: plans::Handed) -> Self {
        let (state, given, progress) = match it {
            plans::Handed::Piece { piece, given, progress } => {
                ("piece", Some((piece, given)), progress)
            }
            plans::Handed::Wait(progress) => ("wait", None, progress),
            plans::Handed::Nothing(progress) => ("nothing", None, progress),
        };
        let (piece, given) = given.unzip();
        let is_repeat = given.as_ref().is_some_and(|it| it.is_repeat);
        let plans::Progress { open, taken, done } = progress;
        Self {
            state: state.to_owned(),
            piece: given.as_ref().map(|it| it.piece.saturating_add(1)),
            expected_s: piece.as_ref().map(|it| it.expected_s),
            tests: piece.map(|it| it.tests).unwrap_or_default(),
            is_repeat,
            instead_of: given.and_then(|it| it.instead_of),
            open,
            taken,
            done,
        }
    }
}
