//! A fleet in memory, and a clock that tests set.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use kiln_cas::records::SharedRecords;

use super::faulty::Faulty;
use crate::judge::Points;
use crate::oci::ContentDigest;
use crate::releases::ReleaseName;
use crate::rollouts::control::driver::Next;
use crate::rollouts::control::{Control, ControlError, Driver, Parts, Rollout, Start};
use crate::rollouts::machine::{Generation, Phase};
use crate::rollouts::parts::{
    Applied, Asked, Clock, Health, Measured, Observation, Order, PartError, Place, Pool, Releases,
    Selector, Side, Signals, Split, Standing, Target, Targets, Told, Traffic, Unverified,
};

#[derive(Default)]
pub struct Fake {
    pub version: Option<ContentDigest>,
    pub told: Generation,
    /// How often the target's version was changed.
    pub changes: usize,
    pub health: Option<String>,
    pub crashes: u64,
    pub silent: bool,
    /// Whether the target says that it will obey, and does not.
    pub lies: bool,
    pub labels: BTreeMap<String, String>,
    /// Why the target does not carry out what it was told.
    pub failed: Option<String>,
}

#[derive(Default)]
pub struct Fleet {
    pub targets: Mutex<BTreeMap<String, Fake>>,
    /// A lock that has to be free before anybody is told how targets are.
    pub gate: tokio::sync::Mutex<()>,
}

#[async_trait]
impl Targets for Fleet {
    async fn list(&self, _: &Selector) -> Result<Vec<Target>, PartError> {
        let target = |(name, fake): (&String, &Fake)| Target {
            name: name.clone(),
            address: Some(format!("{name}:80")),
            labels: fake.labels.clone(),
        };
        Ok(self.targets.lock().unwrap().iter().map(target).collect())
    }

    async fn tell(&self, target: &str, order: &Order) -> Result<Told, PartError> {
        let mut targets = self.targets.lock().unwrap();
        let fake = targets.get_mut(target).ok_or("no such target")?;
        if fake.silent {
            return Err("it does not answer".into());
        }
        if order.generation < fake.told {
            return Ok(Told::Stale(fake.told));
        }
        if fake.lies
            || (order.generation == fake.told && fake.version.as_ref() == Some(&order.version))
        {
            return Ok(Told::Accepted);
        }
        assert_ne!(order.generation, fake.told, "one generation means one version");
        fake.told = order.generation;
        fake.version = Some(order.version.clone());
        fake.changes += 1;
        Ok(Told::Accepted)
    }

    async fn observe(
        &self,
        _: &Place,
        names: &[String],
    ) -> Result<Vec<Option<Observation>>, PartError> {
        let _free = self.gate.lock().await;
        let targets = self.targets.lock().unwrap();
        let seen = |name: &String| {
            let fake = targets.get(name).filter(|fake| !fake.silent)?;
            Some(Observation {
                version: fake.version.clone(),
                generation: fake.told,
                health: fake.health.clone().map_or(Health::Well, Health::Unwell),
                seen: 0,
                crashes: fake.crashes,
                failed: fake.failed.clone(),
            })
        };
        Ok(names.iter().map(seen).collect())
    }
}

/// What the canary and its baseline measure.
#[derive(Default)]
pub struct Measures {
    pub next: Mutex<Option<Measured>>,
    /// Names of the targets that canaries were compared with.
    pub baselines: Mutex<Vec<Vec<String>>>,
}

#[async_trait]
impl Signals for Measures {
    async fn measure(&self, asked: &Asked) -> Measured {
        let alike: Points = (0..60).map(|at| Some(100.0 + f64::from(at * 37 % 11))).collect();
        let baseline =
            if asked.cohorts.baseline.targets.is_empty() { Points::new() } else { alike.clone() };
        let names = asked.cohorts.baseline.targets.iter().map(|it| it.name.clone()).collect();
        self.baselines.lock().unwrap().push(names);
        let next = self.next.lock().unwrap().clone();
        next.unwrap_or(Measured::Points { canary: alike, baseline })
    }
}

/// A balancer that keeps the splits that it was told. The second lock has to be free before it takes another
/// split: a test holds that lock to delay it. The third says why it takes none.
#[derive(Default)]
pub struct Splits(
    pub Mutex<Vec<Split>>,
    pub tokio::sync::Mutex<()>,
    pub Mutex<Option<&'static str>>,
);

#[async_trait]
impl Traffic for Splits {
    async fn set(&self, _: &Place, split: &Split) -> Result<Applied, PartError> {
        let _free = self.1.lock().await;
        if let Some(why) = *self.2.lock().unwrap() {
            return Err(why.into());
        }
        let mut all = self.0.lock().unwrap();
        if let Some(last) = all.last().filter(|last| last.generation > split.generation) {
            return Ok(Applied::Stale(last.generation));
        }
        if all.last() != Some(split) {
            all.push(split.clone());
        }
        Ok(Applied::Now)
    }

    async fn observe(&self, _: &Place) -> Result<Option<Split>, PartError> {
        Ok(self.0.lock().unwrap().last().cloned())
    }
}

#[derive(Default)]
pub struct Listed {
    pub refused: Mutex<Option<String>>,
    pub frozen: Mutex<Option<String>>,
    pub blamed: Mutex<Vec<String>>,
    /// The name of a release whose key was revoked.
    pub unsigned: Mutex<Option<String>>,
    /// Why nobody can say whether releases are trusted.
    pub unsure: Mutex<Option<String>>,
    /// Why the list does not have the release any more.
    pub unlisted: Mutex<Option<String>>,
    /// Whether names stand for other content, as in the list of another instance.
    pub other: AtomicBool,
    /// Whether nobody answers whoever verifies, as long as that takes.
    pub hangs: AtomicBool,
    /// Whether it panics when somebody asks how a release stands.
    pub breaks: AtomicBool,
    /// When whatever is asked about was made.
    pub made: AtomicU64,
    /// Whether nobody answers: the store of releases is away.
    pub away: AtomicBool,
}

impl Listed {
    fn answers(&self) -> Result<(), PartError> {
        let away = self.away.load(Ordering::SeqCst);
        if away { Err("the store does not answer".into()) } else { Ok(()) }
    }
}

pub fn digest(name: &str) -> ContentDigest {
    ContentDigest::of(name.as_bytes())
}

#[async_trait]
impl Releases for Listed {
    async fn standing(&self, release: &ReleaseName, _: &str) -> Result<Standing, PartError> {
        assert!(!self.breaks.load(Ordering::SeqCst), "it breaks");
        self.answers()?;
        let other = self.other.load(Ordering::SeqCst);
        let digest = if other { digest("other") } else { digest(&release.to_string()) };
        if let Some(why) = self.refused.lock().unwrap().clone() {
            return Ok(Standing::Refused(why));
        }
        if let Some(why) = self.unlisted.lock().unwrap().clone() {
            return Ok(Standing::Unlisted(why));
        }
        let frozen = self.frozen.lock().unwrap().clone();
        Ok(frozen.map_or(Standing::Free(digest.clone()), |why| Standing::Frozen(digest, why)))
    }

    async fn verify(
        &self,
        release: &ReleaseName,
        _: &str,
        _: bool,
    ) -> Result<Result<ContentDigest, Unverified>, PartError> {
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.answers()?;
        let name = release.to_string();
        if self.unsigned.lock().unwrap().as_ref() == Some(&name) {
            return Ok(Err(Unverified::Untrusted(format!("nobody has signed {name}"))));
        }
        let unsure = self.unsure.lock().unwrap().clone();
        Ok(unsure.map_or_else(|| Ok(digest(&name)), |why| Err(Unverified::Unconfirmed(why))))
    }

    async fn made(&self, _: &ReleaseName) -> Result<Option<u64>, PartError> {
        Ok(Some(self.made.load(Ordering::SeqCst)))
    }

    async fn blame(&self, _: &ReleaseName, _: &Place, reason: &str) -> Result<(), PartError> {
        self.answers()?;
        self.blamed.lock().unwrap().push(reason.to_owned());
        Ok(())
    }
}

#[derive(Default)]
pub struct Time(pub AtomicU64);

impl Clock for Time {
    fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

pub struct Rig {
    pub control: Arc<Control>,
    pub records: Arc<Faulty>,
    pub fleet: Arc<Fleet>,
    pub measures: Arc<Measures>,
    pub splits: Arc<Splits>,
    pub listed: Arc<Listed>,
    pub time: Arc<Time>,
}

pub const DECLARED: &str = "name = \"api\"\ntargets = 4\nsteps = [25, 100]\nbake = \"10s\"\nsoak = \"10s\"\n\
                            settle = \"5s\"\nwatch = \"1s\"\n";
pub const METRIC: &str = "[[metric]]\nname = \"latency\"\nsource = \"prom\"\nquery = \"q\"\ndirection = \"increase\"\n\
                          limits = { max = 500 }\n";

impl Rig {
    pub fn new() -> Self {
        Self::floored(&[])
    }

    /// A rig with so many targets that stay up in each environment.
    pub fn floored(floors: &[(&str, usize)]) -> Self {
        let records = Arc::<Faulty>::default();
        let old = Fake { version: Some(digest("old")), ..Fake::default() };
        let fleet = Arc::new(Fleet::default());
        fleet.targets.lock().unwrap().insert("a".to_owned(), old);
        for name in ["b", "c", "d"] {
            let old = Fake { version: Some(digest("old")), ..Fake::default() };
            fleet.targets.lock().unwrap().insert(name.to_owned(), old);
        }
        let (measures, splits) = (Arc::<Measures>::default(), Arc::<Splits>::default());
        let (listed, time) = (Arc::<Listed>::default(), Arc::<Time>::default());
        time.0.store(1_000_000, Ordering::SeqCst);
        let parts = Parts {
            targets: [("agents".to_owned(), fleet.clone() as Arc<dyn Targets>)].into(),
            traffic: [("edge".to_owned(), splits.clone() as Arc<dyn Traffic>)].into(),
            signals: [("prom".to_owned(), measures.clone() as Arc<dyn Signals>)].into(),
            releases: listed.clone(),
            clock: time.clone(),
            stay_up: floors.iter().map(|(name, floor)| ((*name).to_owned(), *floor)).collect(),
            tells: true,
        };
        let control = Control::new(records.clone() as SharedRecords, parts, "test");
        Self { control, records, fleet, measures, splits, listed, time }
    }

    /// Another process over the same records, which knows nothing yet.
    pub fn elsewhere(&self) -> Arc<Control> {
        self.elsewhere_on(self.records.clone())
    }

    /// Another process over records that lead to the same ones.
    pub fn elsewhere_on(&self, records: SharedRecords) -> Arc<Control> {
        let parts = Parts {
            targets: [("agents".to_owned(), self.fleet.clone() as Arc<dyn Targets>)].into(),
            traffic: BTreeMap::new(),
            signals: BTreeMap::new(),
            releases: self.listed.clone(),
            clock: self.time.clone(),
            stay_up: BTreeMap::new(),
            tells: false,
        };
        Control::new(records, parts, "test")
    }

    pub fn ask(declared: &str, release: &str) -> Start {
        Start {
            declared: declared.to_owned(),
            release: release.parse().unwrap(),
            environment: "prod".to_owned(),
            by: "ana".to_owned(),
            reason: "June".to_owned(),
            supersede: false,
            drill: false,
            again: false,
            without_drill: false,
            previous: None,
        }
    }

    pub async fn start(&self, declared: &str, release: &str) -> Rollout {
        self.control.start(&Self::ask(declared, release)).await.unwrap()
    }

    pub fn wait(&self, millis: u64) {
        self.time.0.fetch_add(millis, Ordering::SeqCst);
    }

    /// Drives the rollout for so many seconds, or until `holds` is true of its phase. Returns the phase.
    pub async fn drive(&self, id: &str, seconds: u64, holds: impl Fn(&Phase) -> bool) -> Phase {
        let mut driver = Driver::load(self.control.clone(), id).await.unwrap();
        for _ in 0..seconds {
            let next = driver.round(self.control.now()).await.unwrap();
            // The observations and judgements of this second end before the next one begins.
            driver.looked().await;
            // So does a look at what was signed.
            tokio::task::yield_now().await;
            let phase = self.control.show(id).await.unwrap().state.phase;
            if holds(&phase) || next == Next::Over {
                return phase;
            }
            self.wait(1_000);
        }
        self.control.show(id).await.unwrap().state.phase
    }

    pub async fn drive_to_end(&self, id: &str) -> Phase {
        self.drive(id, 600, |phase| matches!(phase, Phase::Ended(_))).await
    }

    pub fn runs(&self) -> Vec<ContentDigest> {
        let targets = self.fleet.targets.lock().unwrap();
        targets.values().filter_map(|fake| fake.version.clone()).collect()
    }

    pub fn changes(&self) -> Vec<usize> {
        self.fleet.targets.lock().unwrap().values().map(|fake| fake.changes).collect()
    }

    pub fn with(&self, name: &str, change: impl FnOnce(&mut Fake)) {
        self.fleet.targets.lock().unwrap().get_mut(name).map(change).unwrap();
    }

    /// What the balancer was told: of each pool its side, its share and its members.
    pub fn shares(&self) -> Vec<Vec<(Side, f64, Vec<String>)>> {
        let members = |pool: &Pool| pool.members.iter().map(|it| it.name.clone()).collect();
        let pools = |split: &Split| {
            split.pools.iter().map(|it| (it.side, it.share, members(it))).collect::<Vec<_>>()
        };
        self.splits.0.lock().unwrap().iter().map(pools).collect()
    }

    /// A rollout that ends well, so that there is something to return to.
    pub async fn good(&self, release: &str) {
        let first = self.start(DECLARED, release).await;
        let end = self.drive_to_end(&first.id).await;
        assert_eq!(end, Phase::Ended(crate::rollouts::machine::End::Succeeded));
    }
}

/// The words of an error with its causes.
pub fn words(error: &ControlError) -> String {
    kiln_net::causes::chain(error).to_string()
}
