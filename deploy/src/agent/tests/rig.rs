//! A server's fleet on records in memory, releases as a real server signs them, and agents that reach both without a
//! network.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kiln_cas::stores::MemoryRecords;
use tokio::runtime::Runtime;

use super::super::{
    Agent, Content, Hooks, Link, LinkError, Order, Probe, Program, Pull, Report, Running, Service,
    Speaker, Supervisor, Told, Trust, Wanted, identity,
};
use crate::fleet::{Fleet, FleetError, Listed};
use crate::oci::{ContentDigest, Descriptor};
use crate::releases::Expected;
use crate::releases::tests::made::{Made, SIGNED};
use crate::rollouts::machine::Generation;
use crate::rollouts::parts::Place;
use crate::signing::{KeyRing, PublicKey, Scheme, Signer as _, SigningKey, TrustedKey};
use crate::swarm::pieces::{BlobPieces, PieceList, pieces_of};
use crate::swarm::{Share, Shared};
use crate::timestamp::Timestamp;

const ACCOUNT: &str = "token web-1";

pub fn place() -> Place {
    Place { service: "api".to_owned(), environment: "prod".to_owned() }
}

/// Stands in for the server that an agent talks to, with the faults that a test can switch on.
pub struct World {
    pub runtime: Runtime,
    fleet: Mutex<Fleet>,
    records: Arc<MemoryRecords>,
    /// The time in nanoseconds.
    pub now: Arc<AtomicI64>,
    pub key: SigningKey,
    releases: Mutex<BTreeMap<ContentDigest, (Made, Descriptor)>>,
    /// Whether the agent can reach nobody.
    pub away: AtomicBool,
    /// Whether blobs come with one byte changed.
    pub tampers: AtomicBool,
    /// Whether only half of what is asked for comes.
    pub cuts: AtomicBool,
    /// Lists of pieces are of the same blobs, and wrong.
    pub lies: AtomicBool,
    /// How many bytes were given.
    pub bytes: AtomicUsize,
    /// Blobs that were fetched.
    pub fetched: AtomicUsize,
}

impl World {
    pub fn new() -> Arc<Self> {
        let (records, now) = (Arc::new(MemoryRecords::default()), Arc::new(AtomicI64::new(0)));
        let (key, _) = SigningKey::generate(Scheme::EcdsaP256).unwrap();
        now.store(SIGNED * 1_000_000_000, Ordering::Relaxed);
        let fleet = Mutex::new(fleet(&records, &now));
        Arc::new(Self {
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap(),
            fleet,
            records,
            now,
            key,
            releases: Mutex::default(),
            away: AtomicBool::new(false),
            tampers: AtomicBool::new(false),
            cuts: AtomicBool::new(false),
            lies: AtomicBool::new(false),
            bytes: AtomicUsize::new(0),
            fetched: AtomicUsize::new(0),
        })
    }

    pub fn fleet(&self) -> Fleet {
        self.fleet.lock().unwrap().clone()
    }

    /// Restarts the servers: nothing but the records stays.
    pub fn restart(&self) {
        *self.fleet.lock().unwrap() = fleet(&self.records, &self.now);
    }

    /// A release whose one program has this text.
    pub fn release(&self, text: &str) -> ContentDigest {
        self.keep(Made::of(text, &self.key))
    }

    pub fn keep(&self, (made, subject): (Made, Descriptor)) -> ContentDigest {
        let digest = subject.digest.clone();
        self.releases.lock().unwrap().insert(digest.clone(), (made, subject));
        digest
    }

    /// The size in bytes of each of the version's blobs.
    pub fn sizes(&self, version: &ContentDigest) -> Vec<usize> {
        let releases = self.releases.lock().unwrap();
        releases[version].0.blobs.values().map(Vec::len).collect()
    }

    pub fn tell(&self, version: &ContentDigest) -> Generation {
        self.tell_to("web-1", version)
    }

    pub fn tell_to(&self, name: &str, version: &ContentDigest) -> Generation {
        let told = self.fleet();
        let told = async move { told.tell_by_hand(&place(), name, version, "ana").await };
        self.runtime.block_on(told).unwrap()
    }

    pub fn shown(&self) -> Result<Listed, FleetError> {
        let fleet = self.fleet();
        self.runtime.block_on(async move { fleet.show_agent(&place(), "web-1").await })
    }

    /// Waits until the server knows this of the agent.
    pub fn until(&self, what: &str, holds: impl Fn(&Listed) -> bool) -> Listed {
        let begun = Instant::now();
        loop {
            let shown = self.shown();
            if let Ok(shown) = &shown
                && holds(shown)
            {
                return shown.clone();
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{what}: {shown:#?}");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    fn reached(&self) -> Result<(), LinkError> {
        match self.away.load(Ordering::Relaxed) {
            true => Err(LinkError::Unreachable("as the test has it".to_owned())),
            false => Ok(()),
        }
    }
}

fn fleet(records: &Arc<MemoryRecords>, now: &Arc<AtomicI64>) -> Fleet {
    let now = now.clone();
    Fleet::new(records.clone(), Arc::new(move || now.load(Ordering::Relaxed)))
}

/// The connection of an agent to this world.
pub struct Way(pub Arc<World>);

fn refused(error: &FleetError) -> LinkError {
    LinkError::Refused(error.to_string())
}

impl Link for Way {
    fn report(&self, report: &Report) -> Result<(), LinkError> {
        self.0.reached()?;
        let fleet = self.0.fleet();
        let told = self.0.runtime.block_on(async move { fleet.report(report, ACCOUNT).await });
        told.map_err(|error| refused(&error))
    }

    fn order(
        &self,
        speaker: &Speaker,
        known: Generation,
        wait: Duration,
    ) -> Result<Option<Order>, LinkError> {
        self.0.reached()?;
        // The wait is short, so that a test that ends its agent need not wait for long.
        let (fleet, wait) = (self.0.fleet(), wait.min(Duration::from_millis(300)));
        let asked = async move { fleet.next_order(speaker, ACCOUNT, known, wait).await };
        let order = self.0.runtime.block_on(asked).map_err(|error| refused(&error))?;
        Ok(order.map(|it| Order { version: it.version, generation: it.generation }))
    }

    fn content(&self, speaker: &Speaker, version: &ContentDigest) -> Result<Content, LinkError> {
        self.0.reached()?;
        let fleet = self.0.fleet();
        let may = self
            .0
            .runtime
            .block_on(async move { fleet.may_fetch(speaker, ACCOUNT, version).await });
        may.map_err(|error| refused(&error))?;
        let releases = self.0.releases.lock().unwrap();
        let (made, subject) = releases.get(version).ok_or(LinkError::Refused("gone".to_owned()))?;
        let blobs = made.blobs.iter().map(|(it, data)| (it.clone(), data.len() as u64)).collect();
        Ok(Content { release: made.release(subject), blobs })
    }

    fn blob(
        &self,
        _: &Speaker,
        version: &ContentDigest,
        wanted: &Wanted<'_>,
    ) -> Result<Box<dyn Read>, LinkError> {
        self.0.reached()?;
        self.0.fetched.fetch_add(1, Ordering::Relaxed);
        let releases = self.0.releases.lock().unwrap();
        let mut data = releases[version].0.blobs[wanted.blob].clone();
        if self.0.tampers.load(Ordering::Relaxed)
            && let Some(last) = data.last_mut()
        {
            *last ^= 1;
        }
        let mut rest = data.split_off((wanted.start as usize).min(data.len()));
        rest.truncate(wanted.length.map_or(usize::MAX, |it| it as usize));
        if self.0.cuts.load(Ordering::Relaxed) {
            rest.truncate(rest.len().div_ceil(2));
        }
        self.0.bytes.fetch_add(rest.len(), Ordering::Relaxed);
        Ok(Box::new(Cursor::new(rest)))
    }

    fn pieces(&self, _: &Speaker, version: &ContentDigest) -> Result<Vec<u8>, LinkError> {
        self.0.reached()?;
        let releases = self.0.releases.lock().unwrap();
        let lies = self.0.lies.load(Ordering::Relaxed);
        let blobs = releases[version].0.blobs.iter().map(|(digest, data)| {
            let mut pieces = pieces_of(data);
            if lies && pieces.len() > 1 {
                pieces.reverse();
            }
            BlobPieces { digest: digest.clone(), size: data.len() as u64, pieces }
        });
        Ok(PieceList::new(blobs.collect()).unwrap().write())
    }

    fn share(&self, speaker: &Speaker, share: &Share) -> Result<Shared, LinkError> {
        self.0.reached()?;
        let fleet = self.0.fleet();
        // Time passes while agents ask.
        self.0.now.fetch_add(1_000_000_000, Ordering::Relaxed);
        let shared = async move { fleet.share(speaker, ACCOUNT, share).await };
        self.0.runtime.block_on(shared).map_err(|error| refused(&error))
    }
}

pub fn always(key: &PublicKey) -> KeyRing {
    KeyRing::new(vec![TrustedKey::always("release", key.clone())]).unwrap()
}

pub fn trust(keys: KeyRing) -> Trust {
    Trust {
        keys: Box::new(move || Ok(keys.clone())),
        repository: None,
        expected: Expected::default(),
        now: Box::new(|| Timestamp::from_unix(SIGNED + 1)),
        max_bytes: 1 << 30,
    }
}

pub fn speaker(root: &Path) -> io::Result<Speaker> {
    called("web-1", root)
}

pub fn called(name: &str, root: &Path) -> io::Result<Speaker> {
    Ok(Speaker { place: place(), name: name.to_owned(), identity: identity(root)? })
}

/// An agent below `root` that runs `bin/app` of each version.
pub struct Host {
    running: Arc<Running<Way, Pull<Way>>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

pub fn service(root: &Path, probe: Option<Arc<dyn Probe>>, is_supervised: bool) -> Service {
    let program = Program {
        program: "./bin/app".to_owned(),
        arguments: Vec::new(),
        grace: Duration::from_secs(1),
    };
    Service {
        hooks: Hooks::default(),
        process: is_supervised.then(|| Supervisor::open(root, program).unwrap()),
        probe,
        ready: Duration::from_secs(20),
    }
}

impl Host {
    pub fn start(world: &Arc<World>, root: &Path, probe: Option<Arc<dyn Probe>>) -> Self {
        std::fs::create_dir_all(root).unwrap();
        Self::with(world, root, service(root, probe, true))
    }

    pub fn with(world: &Arc<World>, root: &Path, service: Service) -> Self {
        let (way, speaker) = (Arc::new(Way(world.clone())), speaker(root).unwrap());
        let trust = trust(always(world.key.public_key()));
        let pull = Pull::new(way.clone(), speaker.clone(), root, trust);
        let agent = Agent::open(root.to_owned(), pull, service).unwrap();
        let told = Told {
            speaker,
            address: Some("web-1:80".to_owned()),
            labels: BTreeMap::from([("zone".to_owned(), "a".to_owned())]),
            software: "test".to_owned(),
            heartbeat: Duration::from_millis(100),
            probe_every: Duration::from_millis(100),
        };
        let running = Arc::new(Running::new(way, agent, told));
        let runs = running.clone();
        let thread = Some(std::thread::spawn(move || runs.run()));
        Self { running, thread }
    }

    /// Waits until the host's agent ends by itself.
    pub fn ends(mut self) -> std::thread::Result<()> {
        self.thread.take().unwrap().join()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.running.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}
