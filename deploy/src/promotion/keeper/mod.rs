//! Carries promotions out: reads, decides, and writes everything that follows from a decision in one step. Whatever stops it in
//! between, nothing was done, or all of it was; whoever asks again is told that it was.

mod ask;
mod error;
mod keys;
mod promote;
mod seen;
mod store;
mod sweep;
mod sweeps;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use kiln_cas::records::SharedRecords;
use serde::{Deserialize, Serialize};

use self::store::{Loaded, Store, decode};
use self::sweeps::Sweeps;
use super::acts::Refusal;
use super::change::Change;
use super::decision::{Decision, Record};
use super::facts::{Facts, Known, Verdict};
use super::parts::{Arrival, PartError, Parts};
use super::pipeline::{Environment, Pipeline};
use super::world::{Actor, Placed, World};
use crate::deployments::{Deployments, Fours};
use crate::news;
use crate::oci::ContentDigest;
use crate::releases::ReleaseName;
use crate::signing::KeyRing;
use crate::timestamp::Timestamp;

pub use self::ask::Say;
pub use self::error::PromotionError;
pub use self::promote::{Ask, Outcome};
pub use self::seen::Seen;

/// How often something is decided anew because others changed what it was decided about.
const MAX_ATTEMPTS: usize = 64;
/// Promotions of one page of the past.
pub const MAX_PAGE: usize = 500;

/// Keeps which release stands in which environment, in the records that all frontends share.
pub struct Keeper {
    store: Store,
    pipeline: RwLock<Arc<Pipeline>>,
    /// The keys whose signatures count; `None`: nobody's do.
    keys: RwLock<Option<Arc<KeyRing>>>,
    parts: Parts,
    /// What environments that take releases by themselves refused, by their names.
    refused: Mutex<HashMap<String, Refused>>,
    sweeps: Sweeps,
    /// What came to environments since this process began.
    deployments: Deployments,
}

/// A release that was not taken, and when it may be looked at again.
struct Refused {
    digest: ContentDigest,
    policy: ContentDigest,
    until: Timestamp,
}

/// A promotion or rollback as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Done {
    pub placed: Placed,
    pub by: Actor,
    pub reason: String,
    /// What was there before.
    pub before: Option<Placed>,
    /// What was decided about a promotion; `None` for a rollback, about which nothing is decided.
    pub decision: Option<Decision>,
    /// The approvals that the promotion had.
    #[serde(default)]
    pub approvals: Vec<super::world::Approval>,
    /// The policy that it was held against.
    pub policy: ContentDigest,
}

impl Keeper {
    pub fn new(records: SharedRecords, pipeline: Pipeline, mut parts: Parts) -> Self {
        let keys = RwLock::new(parts.keys.take().map(Arc::new));
        let sweeps = Sweeps::new(records.clone());
        let store = Store::new(records, parts.tells);
        Self {
            store,
            pipeline: RwLock::new(Arc::new(pipeline)),
            keys,
            parts,
            refused: Mutex::default(),
            sweeps,
            deployments: Deployments::default(),
        }
    }

    pub fn pipeline(&self) -> Arc<Pipeline> {
        self.pipeline.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Goes by another policy from now on.
    pub fn set_pipeline(&self, pipeline: Pipeline) {
        let mut held = self.pipeline.write().unwrap_or_else(PoisonError::into_inner);
        *held = Arc::new(pipeline);
    }

    /// The keys whose signatures count now; `None`: nobody's do.
    pub fn keys(&self) -> Option<Arc<KeyRing>> {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Other keys from now on: one that was revoked counts at once.
    pub fn set_keys(&self, ring: KeyRing) {
        let mut held = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        *held = Some(Arc::new(ring));
    }

    /// What came to the environments of the policy since this process began, as far as it was promoted or taken back here.
    pub fn deployments(&self) -> Fours {
        self.deployments.read(self.pipeline().environments.keys())
    }

    pub fn now(&self) -> Timestamp {
        self.parts.clock.now()
    }

    pub async fn world(&self) -> Result<World, PromotionError> {
        Ok(self.store.load().await?.world)
    }

    /// Promotions and rollbacks of an environment, newest first, before a generation, but those that cannot be read.
    pub async fn past(
        &self,
        environment: &str,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<Done>, PromotionError> {
        let prefix = keys::done_of(environment);
        let mut before = before.map(|it| keys::done(environment, it));
        let (records, limit) = (&self.store.records, limit.min(MAX_PAGE));
        let mut past: Vec<Done> = Vec::new();
        // Whoever asks takes a short list for the last one.
        while past.len() < limit {
            let found = records.list(&prefix, before.as_deref(), true, limit).await?;
            for stored in &found {
                past.extend(self.store.readable(decode::<Done>(stored))?);
            }
            match found.last() {
                Some(last) if found.len() == limit => before = Some(last.key.clone()),
                _ => break,
            }
        }
        past.truncate(limit);
        Ok(past)
    }

    /// The signed summary of a promotion: a DSSE envelope.
    pub async fn summary(
        &self,
        environment: &str,
        generation: u64,
    ) -> Result<Option<Vec<u8>>, PromotionError> {
        let stored = self.store.records.get(&keys::summary(environment, generation)).await?;
        Ok(stored.map(|it| it.value.to_vec()))
    }

    /// Who rejected a release, if anybody did.
    pub async fn rejection(
        &self,
        digest: &ContentDigest,
    ) -> Result<Option<Verdict>, PromotionError> {
        self.store.get(&keys::rejected(digest)).await
    }

    /// Changes that are yet to be told, oldest first. What cannot be read is removed.
    pub async fn notices(&self, limit: usize) -> Result<Vec<Change>, PromotionError> {
        let limit = limit.min(MAX_PAGE);
        Ok(news::read(&*self.store.records, keys::NOTICES, limit, decode).await?)
    }

    /// Forgets the notice of a change: it was told, or is told to nobody.
    pub async fn told(&self, change: u64) -> Result<(), PromotionError> {
        self.store.records.write(vec![store::delete(keys::notice(change))]).await?;
        Ok(())
    }

    async fn release(&self, name: &ReleaseName) -> Result<Known, PromotionError> {
        let found = self.parts.releases.find(name).await.map_err(asked("the list of releases"))?;
        found.ok_or_else(|| PromotionError::NoRelease(name.clone()))
    }

    async fn facts(
        &self,
        release: Known,
        environment: &Environment,
        now: Timestamp,
    ) -> Result<Facts, PromotionError> {
        let bundles = self.parts.releases.bundles(&release).await;
        let (bundles, recorded) = bundles.map_err(asked("what was signed about the release"))?;
        let tests = match environment.demands.tests {
            true => self.parts.tests.ask(&release).await.map_err(asked("the gate of tests"))?,
            false => super::facts::Tests::Undecided("nobody asked".to_owned()),
        };
        let keys = self.keys();
        Ok(Facts::verify(release, &bundles, keys.as_deref(), tests, (recorded, now)))
    }

    /// The writes that show that a release comes somewhere.
    async fn shown(
        &self,
        environment: &str,
        comes: &Placed,
        before: Option<&Placed>,
        summary: Option<&[u8]>,
    ) -> Result<Vec<kiln_cas::records::Write>, PromotionError> {
        let Some(places) = &self.parts.places else { return Ok(Vec::new()) };
        let arrival = Arrival { environment, comes, before, summary };
        places.arrival(arrival).await.map_err(asked("the registry"))
    }

    /// What is kept for ever about a digest in these environments.
    async fn record<'a>(
        &self,
        digest: &ContentDigest,
        environments: impl Iterator<Item = &'a String>,
    ) -> Result<Record, PromotionError> {
        let mut rolled_back = BTreeMap::new();
        for name in environments {
            let verdict: Option<Verdict> = self.store.get(&keys::rolled_back(name, digest)).await?;
            rolled_back.extend(verdict.map(|it| (name.clone(), it)));
        }
        Ok(Record { rejected: self.rejection(digest).await?, rolled_back })
    }

    /// Changes the world until nobody was faster.
    async fn change<T>(
        &self,
        step: impl Fn(&mut World, Timestamp) -> Result<(Change, T), Refusal>,
        writes: impl Fn(&T) -> Result<Vec<kiln_cas::records::Write>, PromotionError>,
    ) -> Result<(Change, T), PromotionError> {
        for _ in 0..MAX_ATTEMPTS {
            let loaded = self.store.load().await?;
            let mut world = loaded.world.clone();
            let (change, made) = step(&mut world, self.now())?;
            let changes = std::slice::from_ref(&change);
            if self.store.commit(&loaded, &world, changes, writes(&made)?).await? {
                return Ok((change, made));
            }
        }
        Err(PromotionError::Restless)
    }
}

/// Milliseconds from one time to another.
fn lasting(from: Timestamp, until: Timestamp) -> u64 {
    u64::try_from(until.unix().saturating_sub(from.unix())).unwrap_or(0).saturating_mul(1_000)
}

fn asked(what: &'static str) -> impl FnOnce(PartError) -> PromotionError {
    move |source| PromotionError::Part { what, source }
}

fn environment<'a>(pipeline: &'a Pipeline, name: &str) -> Result<&'a Environment, PromotionError> {
    let found = pipeline.environments.get(name);
    Ok(found.ok_or_else(|| Refusal::NoEnvironment(name.to_owned()))?)
}
