//! What a server sends is believed when it was verified, and not before.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::{Agent, AgentError, Hooks, Order, Pull, SourceError, Trust};
use super::rig::{Way, World, always, speaker, trust};
use crate::oci::ContentDigest;
use crate::releases::Expected;
use crate::releases::tests::made::{Made, SIGNED};
use crate::rollouts::machine::Generation;
use crate::signing::{KeyRing, Scheme, Signer as _, SigningKey, TrustedKey};
use crate::timestamp::Timestamp;

fn agent(world: &Arc<World>, root: &Path, trust: Trust) -> Agent<Pull<Way>> {
    fs::create_dir_all(root).unwrap();
    let pull = Pull::new(Arc::new(Way(world.clone())), speaker(root).unwrap(), root, trust);
    Agent::open(root.to_owned(), pull, Hooks::default()).unwrap()
}

fn registered(world: &Arc<World>, root: &Path) {
    use super::super::{Link as _, Report, Status};
    fs::create_dir_all(root).unwrap();
    let report = Report {
        from: speaker(root).unwrap(),
        address: None,
        labels: std::collections::BTreeMap::new(),
        software: String::new(),
        status: Status::default(),
    };
    Way(world.clone()).report(&report).unwrap();
}

/// Tells an agent to run a version, and has the agent obey.
fn obey(
    world: &Arc<World>,
    agent: &Agent<Pull<Way>>,
    version: &ContentDigest,
) -> Result<(), AgentError> {
    let generation = world.tell(version);
    agent.obey(&Order { version: version.clone(), generation }, &|_| true).map(drop)
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).map_or(true, |mut it| it.next().is_none())
}

#[test]
fn a_release_is_fetched_verified_and_unpacked_once() {
    let (world, directory) = (World::new(), tempfile::tempdir().unwrap());
    let root = directory.path().join("an agent's directory");
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    registered(&world, &root);
    let agent = agent(&world, &root, trust(always(world.key.public_key())));
    let (one, two) = (world.release("one"), world.release("two"));
    obey(&world, &agent, &one).unwrap();
    assert_eq!(fs::read_to_string(root.join("current/bin/app")).unwrap(), "one");
    let mode = |path: &str| fs::metadata(root.join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(
        (mode("current/bin/app"), mode("current/bin")),
        (0o755, 0o755),
        "whatever the umask"
    );
    assert!(!root.join("incoming").exists(), "nothing stays twice");
    obey(&world, &agent, &two).unwrap();
    let fetched = world.fetched.load(Ordering::Relaxed);
    world.away.store(true, Ordering::Relaxed);
    let generation = Generation { fence: 0, change: 3 };
    agent.obey(&Order { version: one.clone(), generation }, &|_| true).unwrap();
    assert_eq!(agent.running(), Some(one));
    assert_eq!(world.fetched.load(Ordering::Relaxed), fetched, "the way back needs no server");
}

#[test]
fn what_is_not_signed_by_whom_the_host_trusts_is_refused_and_nothing_of_it_stays() {
    let world = World::new();
    let (stranger, _) = SigningKey::generate(Scheme::EcdsaP256).unwrap();
    let unsigned = {
        let mut made = Made::default();
        let subject = made.image("unsigned");
        world.keep((made, subject))
    };
    let strange = world.keep(Made::of("strange", &stranger));
    let good = world.release("good");
    let own = || always(world.key.public_key());
    let revoked = TrustedKey {
        revoked_from: Some(Timestamp::from_unix(SIGNED + 1_000)),
        ..TrustedKey::always("release", world.key.public_key().clone())
    };
    let revoked = KeyRing::new(vec![revoked]).unwrap();
    let other = Trust { repository: Some("team/other".parse().unwrap()), ..trust(own()) };
    let level = Expected { level: Some(9), ..Expected::default() };
    let small = Trust { max_bytes: 10, ..trust(own()) };
    for (what, version, trust) in [
        ("unsigned", &unsigned, trust(own())),
        ("a stranger's", &strange, trust(own())),
        ("a revoked key's", &good, trust(revoked)),
        ("of another repository", &good, other),
        ("of too low a level", &good, Trust { expected: level, ..trust(own()) }),
        ("too large", &good, small),
    ] {
        let directory = tempfile::tempdir().unwrap();
        registered_again(&world, directory.path());
        let agent = agent(&world, directory.path(), trust);
        let error = obey(&world, &agent, version).unwrap_err();
        assert!(
            matches!(&error, AgentError::Source(SourceError::Refused(_))) && error.is_final(),
            "{what}: {error:?}"
        );
        let state = agent.state().unwrap();
        assert!(!state.open && state.failed.is_some(), "{what}: {state:?}");
        assert_eq!(state.settled, state.generation, "{what}: it is given up");
        assert!(
            agent.running().is_none() && is_empty(&directory.path().join("versions")),
            "{what}"
        );
        assert!(!directory.path().join("incoming").exists(), "{what}");
    }
}

#[test]
fn keys_that_cannot_be_read_for_a_moment_give_no_order_up() {
    let (world, directory) = (World::new(), tempfile::tempdir().unwrap());
    registered(&world, directory.path());
    let (keys, readable) = (always(world.key.public_key()), Arc::new(AtomicBool::new(false)));
    let read = {
        let (keys, readable) = (keys.clone(), readable.clone());
        move || match readable.load(Ordering::Relaxed) {
            true => Ok(keys.clone()),
            false => Err("no keys here".to_owned()),
        }
    };
    let agent = agent(&world, directory.path(), Trust { keys: Box::new(read), ..trust(keys) });
    let one = world.release("one");
    let error = obey(&world, &agent, &one).unwrap_err();
    assert!(matches!(&error, AgentError::Source(SourceError::Keys(_))), "{error:?}");
    assert!(!error.is_final() && agent.state().unwrap().open);
    assert!(agent.running().is_none() && is_empty(&directory.path().join("versions")));
    let fetched = world.fetched.load(Ordering::Relaxed);
    readable.store(true, Ordering::Relaxed);
    agent.resume(&|_| true).unwrap();
    assert_eq!(agent.running(), Some(one));
    assert_eq!(world.fetched.load(Ordering::Relaxed), fetched, "nothing comes twice");
}

/// Registers another host of the same name, when the one before has been silent for long.
fn registered_again(world: &Arc<World>, root: &Path) {
    world.now.fetch_add(3_600_000_000_000, Ordering::Relaxed);
    registered(world, root);
}

#[test]
fn a_blob_that_was_changed_on_its_way_is_fetched_again() {
    let (world, directory) = (World::new(), tempfile::tempdir().unwrap());
    registered(&world, directory.path());
    let agent = agent(&world, directory.path(), trust(always(world.key.public_key())));
    let one = world.release("one");
    world.tampers.store(true, Ordering::Relaxed);
    let error = obey(&world, &agent, &one).unwrap_err();
    assert!(matches!(&error, AgentError::Source(SourceError::Tampered(_))), "{error:?}");
    assert!(!error.is_final() && agent.state().unwrap().open);
    assert!(agent.running().is_none() && is_empty(&directory.path().join("versions")));
    world.tampers.store(false, Ordering::Relaxed);
    agent.resume(&|_| true).unwrap();
    assert_eq!(agent.running(), Some(one));
}

#[test]
fn what_was_fetched_before_a_crash_is_not_fetched_again() {
    let (world, directory) = (World::new(), tempfile::tempdir().unwrap());
    registered(&world, directory.path());
    let one = world.release("one");
    let generation = world.tell(&one);
    let order = Order { version: one.clone(), generation };
    let trusted = || trust(always(world.key.public_key()));
    let all = {
        let elsewhere = tempfile::tempdir().unwrap();
        let world = World::new();
        registered(&world, elsewhere.path());
        let other = world.release("one");
        let agent = agent(&world, elsewhere.path(), trust(always(world.key.public_key())));
        obey(&world, &agent, &other).unwrap();
        world.fetched.load(Ordering::Relaxed)
    };
    let stopping = agent(&world, directory.path(), trusted());
    // The agent stops after three blobs, in the middle of the pull.
    let stopped = stopping.obey(&order, &|_| world.fetched.load(Ordering::Relaxed) < 3);
    assert!(matches!(stopped, Err(AgentError::Stopped)), "{stopped:?}");
    drop(stopping);
    let fetched = world.fetched.load(Ordering::Relaxed);
    assert!(fetched >= 3 && fetched < all, "{fetched} of {all}");
    let again = agent(&world, directory.path(), trusted());
    again.resume(&|_| true).unwrap();
    assert_eq!(again.running(), Some(one));
    let sum = world.fetched.load(Ordering::Relaxed);
    assert!(sum <= all + 1, "{sum} of {all}: only the one that was cut short comes twice");
}

#[test]
fn a_blob_that_was_cut_short_goes_on_where_it_ended() {
    let (world, directory) = (World::new(), tempfile::tempdir().unwrap());
    registered(&world, directory.path());
    let agent = agent(&world, directory.path(), trust(always(world.key.public_key())));
    let one = world.release("one");
    world.cuts.store(true, Ordering::Relaxed);
    let error = obey(&world, &agent, &one).unwrap_err();
    assert!(matches!(&error, AgentError::Source(SourceError::Link(_))), "{error:?}");
    assert!(!error.is_final() && agent.running().is_none());
    let first = world.bytes.load(Ordering::Relaxed);
    assert!(first > 0);
    world.cuts.store(false, Ordering::Relaxed);
    agent.resume(&|_| true).unwrap();
    assert_eq!(agent.running(), Some(one.clone()));
    let all: usize = world.sizes(&one).into_iter().sum();
    assert_eq!(world.bytes.load(Ordering::Relaxed), all, "no byte came twice");
}

#[test]
fn what_was_never_told_is_not_given() {
    let (world, directory) = (World::new(), tempfile::tempdir().unwrap());
    registered(&world, directory.path());
    let agent = agent(&world, directory.path(), trust(always(world.key.public_key())));
    let one = world.release("one");
    let order = Order { version: one, generation: Generation { fence: 1, change: 1 } };
    let error = agent.obey(&order, &|_| true).unwrap_err();
    assert!(matches!(&error, AgentError::Source(SourceError::Link(_))), "{error:?}");
    assert_eq!(world.fetched.load(Ordering::Relaxed), 0);
}
