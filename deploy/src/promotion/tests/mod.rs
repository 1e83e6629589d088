//! What promotion is tried with: records in memory, parts that answer as they are told, a clock that is set.

mod audit;
mod crashes;
mod decisions;
#[cfg(feature = "cel")]
mod expressions;
mod freeze;
mod keeping;
mod policies;
mod races;
mod sweeping;
mod trust;

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use kiln_cas::records::SharedRecords;
use kiln_cas::stores::MemoryRecords;
use serde_json::json;

use super::{
    Actor, Ask, Check, Clock, Keeper, Known, PartError, Parts, Pipeline, Releases, RunCheck, Say,
    SignSummary, TestGate, Tests,
};
use crate::oci::ContentDigest;
use crate::provenance::SLSA_PREDICATE;
use crate::releases::ReleaseName;
use crate::resource::ResourceDescriptor;
use crate::signing::{
    Attestation, Envelope, IN_TOTO_TYPE, KeyRing, Scheme, Signer, SigningKey, Statement,
};
use crate::timestamp::Timestamp;

/// Monday, 2026-06-01, noon in UTC.
pub const NOON: i64 = 1_780_315_200;
pub const DAY: i64 = 86_400;

pub const POLICY: &str = r#"
[environments.dev]

[environments.staging]
after = ["dev"]
soak = "1h"
level = 3
tests = true

[environments.prod]
after = ["staging"]
soak = "24h"
settle = "1h"
signers = ["release"]
builder = "https://kiln.example"
source = "git+https://git.example/app"
branch = "main"
approvals = { count = 2, group = "managers" }
break_glass = "managers"
conditions = ["release.repository.startsWith('team/')"]
checks = [{ name = "smoke", command = ["./smoke"], timeout = "60s" }]

[groups]
managers = ["ana", "bo", "cy"]

[freezes.weekend]
reason = "nobody is there"
environments = ["prod"]
zone = "Europe/Berlin"
start = "2026-01-02T17:00"
lasts = "63h"
rule = "FREQ=WEEKLY;BYDAY=FR"
"#;

pub fn person(name: &str) -> Actor {
    Actor { name: name.to_owned(), automation: false }
}

pub fn robot() -> Actor {
    Actor { name: "robot".to_owned(), automation: true }
}

pub fn name(text: &str) -> ReleaseName {
    text.parse().unwrap()
}

/// A release, and the bundles about it.
type Held = (Known, Vec<Vec<u8>>);

/// Everything that promotion asks, as told.
pub struct World {
    pub memory: Arc<MemoryRecords>,
    pub key: SigningKey,
    pub clock: AtomicI64,
    pub releases: Mutex<HashMap<ReleaseName, Held>>,
    pub tests: Mutex<Tests>,
    pub check: Mutex<Result<(), String>>,
    pub checks: AtomicUsize,
    /// What is rolled back while the next check runs.
    pub meanwhile: Mutex<Option<Say>>,
}

impl World {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            memory: Arc::new(MemoryRecords::default()),
            key: SigningKey::generate(Scheme::Ed25519).unwrap().0,
            clock: AtomicI64::new(NOON),
            releases: Mutex::default(),
            tests: Mutex::new(Tests::Green),
            check: Mutex::new(Ok(())),
            checks: AtomicUsize::new(0),
            meanwhile: Mutex::default(),
        })
    }

    pub fn keys(&self) -> KeyRing {
        KeyRing::single("release", self.key.public_key().clone())
    }

    /// A release of `eve`, with provenance that the policy accepts.
    pub fn release(&self, text: &str) -> ReleaseName {
        self.release_of(text, "main", &self.key)
    }

    pub fn release_of(&self, text: &str, branch: &str, key: &dyn Signer) -> ReleaseName {
        let name = name(text);
        let digest = ContentDigest::of(text.as_bytes());
        let predicate = json!({
            "buildDefinition": {
                "externalParameters": {"source": "git+https://git.example/app@1234", "branch": branch},
                "internalParameters": {"slsa": {"buildLevel": 3}, "signedOn": Timestamp::from_unix(NOON)},
            },
            "runDetails": {"builder": {"id": "https://kiln.example"}},
        });
        let subject = ResourceDescriptor::new("app", "sha256", digest.hex());
        let predicate = predicate.as_object().cloned().unwrap();
        let statement = Statement::new(vec![subject], SLSA_PREDICATE, predicate).unwrap();
        let bundle = Attestation::sign(&statement, key).unwrap();
        let known = Known {
            name: name.clone(),
            digest,
            author: "eve".to_owned(),
            created: Timestamp::from_unix(NOON),
            invocation: "i".to_owned(),
            instance: String::new(),
            target: "//:app".to_owned(),
            rejected: None,
        };
        self.releases.lock().unwrap().insert(name.clone(), (known, vec![bundle]));
        name
    }

    pub fn go_on(&self, seconds: i64) {
        self.clock.fetch_add(seconds, Ordering::SeqCst);
    }

    pub fn keeper(self: &Arc<Self>) -> Keeper {
        self.keeper_over(self.memory.clone(), POLICY)
    }

    pub fn keeper_over(self: &Arc<Self>, records: SharedRecords, policy: &str) -> Keeper {
        self.keeper_with(records, policy, Arc::new(Given(self.clone())))
    }

    pub fn keeper_with(
        self: &Arc<Self>,
        records: SharedRecords,
        policy: &str,
        checks: Arc<dyn RunCheck>,
    ) -> Keeper {
        self.keeper_at(records, policy, checks, 0)
    }

    /// A frontend whose clock is so many seconds ahead.
    pub fn keeper_at(
        self: &Arc<Self>,
        records: SharedRecords,
        policy: &str,
        checks: Arc<dyn RunCheck>,
        ahead: i64,
    ) -> Keeper {
        let it = Arc::new(Given(self.clone()));
        let parts = Parts {
            releases: it.clone(),
            tests: it.clone(),
            checks,
            summaries: Some(it),
            places: None,
            clock: Arc::new(Ahead(self.clone(), ahead)),
            keys: Some(self.keys()),
            tells: true,
        };
        Keeper::new(records, Pipeline::read(policy).unwrap(), parts)
    }
}

pub struct Given(Arc<World>);

#[async_trait]
impl Releases for Given {
    async fn find(&self, name: &ReleaseName) -> Result<Option<Known>, PartError> {
        Ok(self.0.releases.lock().unwrap().get(name).map(|it| it.0.clone()))
    }

    async fn bundles(
        &self,
        release: &Known,
    ) -> Result<(Vec<Vec<u8>>, Option<Timestamp>), PartError> {
        let releases = self.0.releases.lock().unwrap();
        Ok((releases[&release.name].1.clone(), Some(release.created)))
    }
}

#[async_trait]
impl TestGate for Given {
    async fn ask(&self, _: &Known) -> Result<Tests, PartError> {
        Ok(self.0.tests.lock().unwrap().clone())
    }
}

#[async_trait]
impl RunCheck for Given {
    async fn run(&self, _: &Check, _: &Known, _: &str) -> Result<(), String> {
        self.0.checks.fetch_add(1, Ordering::SeqCst);
        let meanwhile = self.0.meanwhile.lock().unwrap().take();
        if let Some(say) = meanwhile {
            self.0.keeper().roll_back(&say, None).await.unwrap();
        }
        self.0.check.lock().unwrap().clone()
    }
}

#[async_trait]
impl SignSummary for Given {
    fn verifier(&self) -> String {
        "https://kiln.example".to_owned()
    }

    async fn sign(&self, statement: Statement) -> Result<Vec<u8>, PartError> {
        let envelope = Envelope::sign(IN_TOTO_TYPE, statement.write()?, &self.0.key)?;
        Ok(envelope.write()?)
    }
}

/// The clock of a frontend, and how many seconds it is ahead.
struct Ahead(Arc<World>, i64);

impl Clock for Ahead {
    fn now(&self) -> Timestamp {
        Timestamp::from_unix(self.0.clock.load(Ordering::SeqCst) + self.1)
    }
}

pub fn ask(environment: &str, release: &ReleaseName, by: Actor) -> Ask {
    Ask {
        environment: environment.to_owned(),
        release: release.clone(),
        by,
        reason: "it is good".to_owned(),
        again: false,
        wait: None,
    }
}

pub fn say(environment: &str, who: &str, reason: &str) -> Say {
    Say { environment: environment.to_owned(), by: person(who), reason: reason.to_owned() }
}
