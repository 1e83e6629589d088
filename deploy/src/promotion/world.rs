//! What stands in environments, and what people have said about releases: one document, so that each change sees all of
//! it and no two changes interleave. All of it is bounded; what must be kept for ever (rejections, what was rolled
//! back) is in records of its own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::oci::ContentDigest;
use crate::releases::ReleaseName;
use crate::timestamp::Timestamp;

/// Former releases of an environment that are remembered.
pub const MAX_PAST: usize = 16;
/// Promotions that wait, over all environments.
pub const MAX_WAITING: usize = 128;
pub const MAX_APPROVALS: usize = 256;
pub const MAX_HOLDS: usize = 32;
pub const MAX_OVERRIDES: usize = 32;
/// Characters of a reason that are kept here; the audit log has all of it. So the world stays below what a record may have.
const MAX_KEPT: usize = 200;

/// Who does something: a person, or a program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    pub name: String,
    /// Whether this is a program: it never promotes again what was rolled back.
    #[serde(default)]
    pub automation: bool,
}

/// How a release came to stand where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    Promoted,
    RolledBack,
}

/// A release in an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placed {
    pub release: ReleaseName,
    pub digest: ContentDigest,
    /// A number of the environment, which grows by one with each change. Whoever acts on it refuses an older one.
    pub generation: u64,
    pub at: Timestamp,
    pub by: String,
    pub how: How,
}

/// A release that stood here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    pub placed: Placed,
    pub until: Timestamp,
    /// Whether the release was replaced because it was bad.
    #[serde(default)]
    pub rolled_back: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub generation: u64,
    pub current: Option<Placed>,
    /// Releases that stood there before, newest first.
    #[serde(default)]
    pub past: Vec<Past>,
}

/// Says that somebody stands for a release in an environment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approval {
    pub environment: String,
    pub digest: ContentDigest,
    pub who: String,
    pub at: Timestamp,
    #[serde(default)]
    pub reason: String,
}

/// A promotion that was asked for and waits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    pub environment: String,
    pub release: ReleaseName,
    pub digest: ContentDigest,
    pub by: Actor,
    pub at: Timestamp,
    pub until: Timestamp,
    #[serde(default)]
    pub reason: String,
    #[serde(default)]
    pub again: bool,
}

/// Nothing is promoted until somebody lifts it, or its time is up: a lock.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    pub environment: String,
    pub by: String,
    pub at: Timestamp,
    pub until: Option<Timestamp>,
    pub reason: String,
}

/// Says that one release may be promoted in spite of freezes and holds, once a second person says so as well.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    pub environment: String,
    pub digest: ContentDigest,
    pub by: String,
    pub at: Timestamp,
    pub until: Timestamp,
    pub reason: String,
    pub confirmed: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct World {
    /// The latest moment at which anything was changed: a clock that goes back shows.
    #[serde(default = "never")]
    pub clock: Moment,
    /// Changes so far: each has a number.
    #[serde(default)]
    pub changes: u64,
    #[serde(default)]
    pub places: BTreeMap<String, Place>,
    #[serde(default)]
    pub approvals: Vec<Approval>,
    #[serde(default)]
    pub waiting: Vec<Waiting>,
    #[serde(default)]
    pub holds: Vec<Hold>,
    #[serde(default)]
    pub overrides: Vec<Override>,
}

/// What is kept here of a reason.
pub fn kept(reason: &str) -> String {
    reason.chars().take(MAX_KEPT).collect()
}

/// A time that a new world does not have yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment(pub Timestamp);

fn never() -> Moment {
    Moment(Timestamp::from_unix(0))
}

impl Default for Moment {
    fn default() -> Self {
        never()
    }
}

impl Waiting {
    /// Whether both are what was asked for once.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.environment, &self.digest, &self.by)
            == (&other.environment, &other.digest, &other.by)
            && (self.at, self.until, self.again) == (other.at, other.until, other.again)
    }
}

impl Place {
    /// Seconds that a release has stood here, all its times together; a time that is yet to come counts nothing. `None`: never.
    pub fn stood(&self, digest: &ContentDigest, now: Timestamp) -> Option<i64> {
        let span = |from: Timestamp, to: Timestamp| to.unix().saturating_sub(from.unix()).max(0);
        let current = self.current.iter().filter(|it| it.digest == *digest);
        let current = current.map(|it| span(it.at, now));
        let past = self.past.iter().filter(|it| it.placed.digest == *digest);
        let past = past.map(|it| span(it.placed.at, it.until.min(now)));
        current.chain(past).reduce(i64::saturating_add)
    }

    /// Puts a release here, and says what it is called now. What was here becomes the newest of the past.
    pub fn put(&mut self, mut placed: Placed, rolled_back: bool) -> Placed {
        self.generation += 1;
        placed.generation = self.generation;
        let until = placed.at;
        if let Some(placed) = self.current.replace(placed.clone()) {
            self.past.insert(0, Past { placed, until, rolled_back });
            self.past.truncate(MAX_PAST);
        }
        placed
    }
}

impl World {
    pub fn place(&self, environment: &str) -> Place {
        self.places.get(environment).cloned().unwrap_or_default()
    }

    pub fn current(&self, environment: &str) -> Option<&Placed> {
        self.places.get(environment)?.current.as_ref()
    }

    /// Approvals of a release by those who stand for it. Each counts by itself, and each person once.
    pub fn approvals_of<'a>(
        &'a self,
        environment: &'a str,
        digest: &'a ContentDigest,
    ) -> impl Iterator<Item = &'a Approval> {
        let fits = move |it: &&Approval| it.environment == environment && it.digest == *digest;
        self.approvals.iter().filter(fits)
    }

    pub fn override_of(
        &self,
        environment: &str,
        digest: &ContentDigest,
        now: Timestamp,
    ) -> Option<&Override> {
        let fits = |it: &&Override| {
            it.environment == environment && it.digest == *digest && now < it.until
        };
        self.overrides.iter().find(fits)
    }

    pub fn holds_of<'a>(
        &'a self,
        environment: &'a str,
        now: Timestamp,
    ) -> impl Iterator<Item = &'a Hold> {
        let holds = move |it: &&Hold| {
            it.environment == environment && it.until.is_none_or(|until| now < until)
        };
        self.holds.iter().filter(holds)
    }

    /// Forgets what is over.
    pub fn tidy(&mut self, now: Timestamp) {
        self.holds.retain(|it| it.until.is_none_or(|until| now < until));
        self.overrides.retain(|it| now < it.until);
    }
}
