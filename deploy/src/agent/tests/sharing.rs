//! Agents that share pieces: with a server's tracker, without a network between them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use super::super::sharing::{
    Asked, Exchange, Giving, Identity, PeerError, Rate, Refusal, Sharing, Shelf,
};
use super::super::{Agent, Hooks, Link as _, Order, Pull, Report, Status};
use super::rig::{Way, World, always, called, place, trust};
use crate::agent::source::GoesOn;
use crate::oci::ContentDigest;
use crate::signing::Signer as _;
use crate::swarm::PeerCard;
use crate::swarm::downloader::Limits;

/// A text of so many bytes that compresses to nothing, and is the same for the same seed.
fn program(seed: u64, bytes: usize) -> String {
    let mut data = vec![0; bytes];
    fastrand::Rng::with_seed(seed).fill(&mut data);
    for byte in &mut data {
        *byte = b' ' + (*byte & 63);
    }
    String::from_utf8(data).unwrap()
}

/// The agents that can be reached, by their addresses.
#[derive(Default)]
struct Street {
    houses: Mutex<BTreeMap<String, Arc<Giving>>>,
    /// How many pieces were given, and how many of them were lies.
    given: AtomicUsize,
    lies: AtomicUsize,
}

/// The connection of one agent to the others.
struct Walk {
    street: Arc<Street>,
    name: String,
}

fn fingerprint(name: &str) -> String {
    ContentDigest::of(name.as_bytes()).hex().to_owned()
}

fn why(refusal: Refusal) -> PeerError {
    match refusal {
        Refusal::Busy => PeerError::Busy,
        Refusal::Lacks => PeerError::Lacks,
        other => PeerError::Gone(other.to_string()),
    }
}

impl Walk {
    fn house(&self, peer: &PeerCard) -> Result<Arc<Giving>, PeerError> {
        assert_eq!(peer.fingerprint, fingerprint(&peer.name), "the server names who it is");
        let houses = self.street.houses.lock().unwrap();
        houses.get(&peer.address).cloned().ok_or(PeerError::Gone("nobody is there".to_owned()))
    }
}

impl Exchange for Walk {
    fn identity(&self) -> Identity {
        let address = Some(format!("{}:1", self.name));
        Identity { fingerprint: fingerprint(&self.name), address }
    }

    fn has(
        &self,
        peer: &PeerCard,
        asked: &Asked<'_>,
        most: usize,
        _: GoesOn<'_>,
    ) -> Result<Vec<u8>, PeerError> {
        let house = self.house(peer)?;
        let has = house.has(&asked.list.to_string(), asked.pass, &fingerprint(&self.name));
        let has = has.map_err(why)?;
        assert!(has.len() <= most);
        Ok(has)
    }

    fn piece(
        &self,
        peer: &PeerCard,
        asked: &Asked<'_>,
        piece: u32,
        _: u32,
        _: GoesOn<'_>,
    ) -> Result<Vec<u8>, PeerError> {
        let (house, list) = (self.house(peer)?, asked.list.to_string());
        let own = fingerprint(&self.name);
        let given = house.piece(&list, piece as usize, asked.pass, &own).map_err(why)?;
        let mut data = given.data.clone();
        self.street.given.fetch_add(1, Ordering::Relaxed);
        if peer.name == "liar" {
            self.street.lies.fetch_add(1, Ordering::Relaxed);
            data[0] ^= 1;
        }
        Ok(data)
    }
}

struct Member {
    name: String,
    root: PathBuf,
    agent: Agent<Pull<Way>>,
    shelf: Arc<Shelf>,
}

fn member(world: &Arc<World>, street: Option<&Arc<Street>>, dir: &Path, name: &str) -> Member {
    let root = dir.join(name);
    fs::create_dir_all(&root).unwrap();
    let speaker = called(name, &root).unwrap();
    let report = Report {
        from: speaker.clone(),
        address: None,
        labels: BTreeMap::new(),
        software: String::new(),
        status: Status::default(),
    };
    Way(world.clone()).report(&report).unwrap();
    let shelf = Arc::new(Shelf::open(root.join("content"), 1 << 30));
    let giving = Arc::new(Giving::new(place(), shelf.clone(), Rate::new(None)));
    let exchange = street.map(|street| {
        let mut houses = street.houses.lock().unwrap();
        houses.insert(format!("{name}:1"), giving.clone());
        let walk = Walk { street: street.clone(), name: name.to_owned() };
        Arc::new(walk) as Arc<dyn Exchange>
    });
    let sharing = Sharing {
        shelf: shelf.clone(),
        exchange,
        giving: Some(giving),
        near: String::new(),
        rate: Arc::new(Rate::new(None)),
        limits: Limits::default(),
    };
    let trust = trust(always(world.key.public_key()));
    let pull = Pull::new(Arc::new(Way(world.clone())), speaker, &root, trust);
    let pull = pull.sharing(Arc::new(sharing));
    let agent = Agent::open(root.clone(), pull, Hooks::default()).unwrap();
    Member { name: name.to_owned(), root, agent, shelf }
}

impl Member {
    fn obey(&self, world: &World, version: &ContentDigest) {
        let generation = world.tell_to(&self.name, version);
        let order = Order { version: version.clone(), generation };
        self.agent.obey(&order, &|_| true).unwrap();
    }

    fn runs(&self) -> String {
        fs::read_to_string(self.root.join("current/bin/app")).unwrap()
    }
}

#[test]
fn only_what_changed_comes_from_the_server() {
    let (world, directory) = (World::new(), tempfile::tempdir().unwrap());
    let host = member(&world, None, directory.path(), "web-1");
    let before = program(1, 8 << 20);
    let after = format!("{}changed{}", &before[..3_000_000], &before[3_000_000..]);
    let (one, two) = (world.release(&before), world.release(&after));
    host.obey(&world, &one);
    let first = world.bytes.swap(0, Ordering::Relaxed);
    assert!(first > 8 << 20 && host.runs() == before);
    host.obey(&world, &two);
    let second = world.bytes.load(Ordering::Relaxed);
    println!("{second} bytes of {first} came");
    assert!(second < first / 2, "{second} bytes of {first} came");
    assert!(host.runs() == after);
    assert_eq!(host.shelf.kept().len(), 2);
}

#[test]
fn a_list_of_pieces_that_lies_costs_a_blob_and_the_release_comes_without_it() {
    let (world, directory) = (World::new(), tempfile::tempdir().unwrap());
    let host = member(&world, None, directory.path(), "web-1");
    world.lies.store(true, Ordering::Relaxed);
    let text = program(2, 4 << 20);
    host.obey(&world, &world.release(&text));
    assert!(host.runs() == text);
    let bytes = world.bytes.load(Ordering::Relaxed);
    assert!(bytes < 10 << 20, "at most the blob twice: {bytes}");
    assert!(host.shelf.kept().is_empty(), "nothing of it is given to others");
}

#[test]
fn many_agents_take_little_more_from_the_server_than_one_and_a_liar_is_dropped() {
    let (world, directory) = (World::new(), tempfile::tempdir().unwrap());
    let street = Arc::new(Street::default());
    let text = program(3, 8 << 20);
    let version = world.release(&text);
    let size: usize = world.sizes(&version).iter().sum();
    let members: Vec<_> = ["liar", "web-1", "web-2", "web-3", "web-4", "web-5"]
        .map(|name| member(&world, Some(&street), directory.path(), name))
        .into();
    std::thread::scope(|scope| {
        for member in &members {
            let (world, version) = (&world, &version);
            scope.spawn(move || member.obey(world, version));
        }
    });
    assert!(members.iter().all(|it| it.runs() == text));
    let bytes = world.bytes.load(Ordering::Relaxed);
    let (given, lies) = (street.given.load(Ordering::Relaxed), street.lies.load(Ordering::Relaxed));
    println!("6 agents, {size} bytes: {bytes} from the server, {given} pieces given, {lies} lies");
    assert!(bytes < 3 * size, "{bytes} bytes of {size} for each of 6");
    assert!(given > 20, "{given} pieces were given");
    assert!(lies <= 5 * Limits::default().of_peer, "nobody asks the liar again: {lies}");
}
