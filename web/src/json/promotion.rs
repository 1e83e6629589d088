//! What environments say, and what they are asked. Times are RFC 3339 in UTC, durations in seconds.

use kiln_deploy::promotion::{
    Change, Decision, Done, Environment, Hold, How, Outcome, Override, Pipeline, Placed, Reason,
    Standing, Waiting, World,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A release in an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlacedRelease {
    /// The name of the release, such as `team/app:1.4.2`.
    pub release: String,
    pub digest: String,
    /// A number of the environment, which grows by one with each change of what stands there.
    pub generation: u64,
    pub since: String,
    pub by: String,
    /// Whether a rollback returned to the release.
    pub rolled_back: bool,
}

/// What one gate found of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GateReason {
    /// `rejected`, `rolled_back`, `clock`, `upstream`, `soak`, `signature`, `builder`, `source`, `branch`, `level`,
    /// `tests`, `approvals`, `freeze`, `hold`, `condition` or `check`.
    pub gate: String,
    /// How the gate stands: `met`, `waits` or `refused`.
    pub standing: String,
    pub text: String,
    /// When waiting may be over; null: that is not known, or nothing waits.
    pub until: Option<String>,
}

/// A promotion that waits for its gates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WaitingRelease {
    pub release: String,
    pub digest: String,
    pub by: String,
    pub reason: String,
    pub asked: String,
    pub until: String,
    /// What the promotion waits for, as of now; empty in lists.
    pub reasons: Vec<GateReason>,
}

/// A freeze of an environment. Nothing is promoted there meanwhile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Frozen {
    /// The name of a window of the policy; `null`: a person holds it.
    pub window: Option<String>,
    pub by: Option<String>,
    pub reason: String,
    pub until: Option<String>,
}

/// A release that may be promoted all the same, once a second person has said so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct BrokenGlass {
    pub digest: String,
    pub by: String,
    pub confirmed_by: Option<String>,
    pub reason: String,
    pub until: String,
}

/// The state of one environment: what stands in it, and what waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EnvironmentState {
    pub name: String,
    pub after: Vec<String>,
    /// Whether a release that passed the environments before this one (`after`) comes here by itself.
    pub automatic: bool,
    pub generation: u64,
    pub current: Option<PlacedRelease>,
    pub waiting: Option<WaitingRelease>,
    pub frozen: Vec<Frozen>,
    pub overrides: Vec<BrokenGlass>,
}

/// `GET /api/v1/environments`: each behind those that it follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Environments {
    /// The instance whose releases stand in these environments.
    pub instance: String,
    /// The digest of the policy that these environments are of.
    pub policy: String,
    pub environments: Vec<EnvironmentState>,
}

/// A promotion or rollback that was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PastPromotion {
    #[serde(flatten)]
    pub placed: PlacedRelease,
    pub reason: String,
    /// The release that stood there before; null: none did.
    pub before: Option<String>,
    pub approved_by: Vec<String>,
    /// What each gate found; empty for a rollback, of which nothing is asked.
    pub reasons: Vec<GateReason>,
}

/// What `GET /api/v1/environments/{environment}` answers: its state and its past.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EnvironmentShown {
    #[serde(flatten)]
    pub state: EnvironmentState,
    /// Promotions and rollbacks of the past, newest first.
    pub past: Vec<PastPromotion>,
    /// The value of `before` that asks for the next page of the past; `null` on the last one.
    pub next_before: Option<u64>,
}

/// What `GET /api/v1/environments/{environment}/summary` answers: a signed statement that a release passed its gates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PromotionSummary {
    pub environment: String,
    pub generation: u64,
    /// A DSSE envelope with a verification summary (SLSA VSA, version 1).
    pub envelope: Map<String, Value>,
}

/// What `POST /api/v1/promotions` is given: the release that is to stand in an environment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PromotionRequest {
    pub environment: String,
    /// The name of the release, such as `team/app:1.4.2`.
    pub release: String,
    #[serde(default)]
    pub reason: String,
    /// Whether the release may be promoted although it was rolled back in this environment.
    #[serde(default)]
    pub again: bool,
    /// Whether a program asks, and not a person.
    #[serde(default)]
    pub automation: bool,
    /// Whether nothing is to be changed, and only said which gates would be met.
    #[serde(default)]
    pub dry_run: bool,
    /// Seconds that the promotion may wait for its gates.
    #[serde(default)]
    pub wait_s: Option<u64>,
}

/// What became of the wish to promote a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PromotionAnswer {
    pub environment: String,
    pub release: String,
    /// `promoted`, `already`, `waits`, `not_now` or `refused`; of a dry run `would_be` as well.
    pub outcome: String,
    pub placed: Option<PlacedRelease>,
    pub until: Option<String>,
    pub reasons: Vec<GateReason>,
}

/// What `POST /api/v1/promotions/rollback` is given: the environment that is to return to an earlier release.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RollbackRequest {
    pub environment: String,
    /// A release that stood there; without, the last good one.
    #[serde(default)]
    pub to: Option<String>,
    pub reason: String,
    #[serde(default)]
    pub automation: bool,
}

/// `POST /api/v1/promotions/say`: what a person says of an environment, or of a release in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SayRequest {
    pub environment: String,
    pub what: Said,
    /// The release; of what concerns one alone.
    #[serde(default)]
    pub release: Option<String>,
    #[serde(default)]
    pub reason: String,
    /// Seconds that a hold or an override lasts; for a hold, null: until it is lifted.
    #[serde(default)]
    pub lasts_s: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Said {
    Approve,
    Withdraw,
    Hold,
    Lift,
    AskOverride,
    ConfirmOverride,
}

/// A change that somebody made to promotions, as it was noted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PromotionChange {
    pub number: u64,
    pub at: String,
    /// What was done, as the audit log calls it: `release.approve`, for example.
    pub action: String,
    pub by: String,
    pub environment: String,
    pub subject: String,
    pub reason: String,
}

/// A word of an enumeration, as its JSON says it.
fn word<T: Serialize>(it: &T) -> String {
    let value = serde_json::to_value(it).unwrap_or_default();
    value.as_str().unwrap_or_default().to_owned()
}

impl From<&Placed> for PlacedRelease {
    fn from(it: &Placed) -> Self {
        Self {
            release: it.release.to_string(),
            digest: it.digest.to_string(),
            generation: it.generation,
            since: it.at.to_string(),
            by: it.by.clone(),
            rolled_back: it.how == How::RolledBack,
        }
    }
}

impl From<&Reason> for GateReason {
    fn from(it: &Reason) -> Self {
        Self {
            gate: word(&it.gate),
            standing: word(&it.standing),
            text: it.text.clone(),
            until: it.until.map(|it| it.to_string()),
        }
    }
}

pub fn reasons(decision: &Decision) -> Vec<GateReason> {
    decision.reasons.iter().map(GateReason::from).collect()
}

impl GateReason {
    pub fn is_met(&self) -> bool {
        self.standing == word(&Standing::Met)
    }
}

impl From<&Waiting> for WaitingRelease {
    fn from(it: &Waiting) -> Self {
        Self {
            release: it.release.to_string(),
            digest: it.digest.to_string(),
            by: it.by.name.clone(),
            reason: it.reason.clone(),
            asked: it.at.to_string(),
            until: it.until.to_string(),
            reasons: Vec::new(),
        }
    }
}

impl From<&Hold> for Frozen {
    fn from(it: &Hold) -> Self {
        let until = it.until.map(|it| it.to_string());
        Self { window: None, by: Some(it.by.clone()), reason: it.reason.clone(), until }
    }
}

impl From<&Override> for BrokenGlass {
    fn from(it: &Override) -> Self {
        Self {
            digest: it.digest.to_string(),
            by: it.by.clone(),
            confirmed_by: it.confirmed.clone(),
            reason: it.reason.clone(),
            until: it.until.to_string(),
        }
    }
}

impl From<&Done> for PastPromotion {
    fn from(it: &Done) -> Self {
        Self {
            placed: PlacedRelease::from(&it.placed),
            reason: it.reason.clone(),
            before: it.before.as_ref().map(|it| it.release.to_string()),
            approved_by: it.approvals.iter().map(|it| it.who.clone()).collect(),
            reasons: it.decision.as_ref().map(reasons).unwrap_or_default(),
        }
    }
}

impl From<&Change> for PromotionChange {
    fn from(it: &Change) -> Self {
        Self {
            number: it.number,
            at: it.at.to_string(),
            action: it.kind.action().to_owned(),
            by: it.by.name.clone(),
            environment: it.environment.clone(),
            subject: it.subject.clone(),
            reason: it.reason.clone(),
        }
    }
}

impl EnvironmentState {
    pub fn new(
        pipeline: &Pipeline,
        environment: &Environment,
        world: &World,
        now: kiln_deploy::timestamp::Timestamp,
    ) -> Self {
        let (name, place) = (&environment.name, world.place(&environment.name));
        let windows = pipeline.freezes_of(name).filter_map(|it| {
            let until = Some(it.covers(now)?.to_string());
            Some(Frozen {
                window: Some(it.name.clone()),
                by: None,
                reason: it.reason.clone(),
                until,
            })
        });
        let holds = world.holds_of(name, now).map(Frozen::from);
        let overrides =
            world.overrides.iter().filter(|it| it.environment == *name && now < it.until);
        let waiting = world.waiting.iter().find(|it| it.environment == *name);
        Self {
            name: name.clone(),
            after: environment.after.clone(),
            automatic: environment.automatic,
            generation: place.generation,
            current: place.current.as_ref().map(PlacedRelease::from),
            waiting: waiting.map(WaitingRelease::from),
            frozen: windows.chain(holds).collect(),
            overrides: overrides.map(BrokenGlass::from).collect(),
        }
    }
}

impl PromotionAnswer {
    pub fn new(environment: &str, release: &str, outcome: &Outcome, dry_run: bool) -> Self {
        let mut answer = Self {
            environment: environment.to_owned(),
            release: release.to_owned(),
            outcome: String::new(),
            placed: None,
            until: None,
            reasons: Vec::new(),
        };
        let (word, decision) = match outcome {
            Outcome::Promoted { placed, decision } => {
                answer.placed = Some(placed.into());
                ("promoted", Some(decision))
            }
            Outcome::Already { placed } => {
                answer.placed = Some(placed.into());
                ("already", None)
            }
            Outcome::Waits { decision, until } => {
                answer.until = Some(until.to_string());
                ("waits", Some(decision))
            }
            // Checks are not asked by a dry run.
            Outcome::NotNow { decision } if dry_run && decision.is_met_but_for_checks() => {
                ("would_be", Some(decision))
            }
            Outcome::NotNow { decision } => ("not_now", Some(decision)),
            Outcome::Refused { decision } => ("refused", Some(decision)),
        };
        answer.outcome = word.to_owned();
        answer.reasons = decision.map(reasons).unwrap_or_default();
        answer
    }
}
