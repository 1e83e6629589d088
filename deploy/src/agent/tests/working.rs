//! Whole agents with a whole fleet: orders are heard, carried out, read back and reported.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::super::{Health, Hook, Hooks, Probe, Service};
use super::rig::{Host, World, service};
use crate::fleet::Condition;

const RUNS: &str = "#!/bin/sh\nexec sleep 1000 # ";

/// A version that is well as long as its file says so.
fn script(words: &str) -> String {
    format!("{RUNS}{words}\n")
}

#[test]
fn an_order_runs_and_so_does_the_way_back_in_less_than_a_second() {
    let (world, directory) = (World::new(), tempfile::tempdir().unwrap());
    let root = directory.path().join("an agent");
    let host = Host::start(&world, &root, None);
    let shown = world.until("it registers", |_| true);
    assert_eq!(shown.condition, Condition::Unassigned);
    assert_eq!(shown.agent.labels["zone"], "a");
    let (one, two) = (world.release(&script("one")), world.release(&script("two")));
    for version in [&one, &two] {
        let told = world.tell(version);
        let shown = world.until("it runs", |it| it.condition == Condition::Well);
        assert_eq!(shown.agent.status.running.as_ref(), Some(version));
        assert_eq!(shown.agent.status.settled, told);
    }
    assert_eq!(world.shown().unwrap().agent.status.previous, Some(one.clone()));
    let begun = Instant::now();
    world.tell(&one);
    world.until("the way back", |it| {
        it.condition == Condition::Well && it.agent.status.running.as_ref() == Some(&one)
    });
    let took = begun.elapsed();
    println!("from the order to the report that the version before runs: {took:?}");
    // On a machine that does nothing else it takes half a second, most of it to see the program stay up.
    assert!(took < Duration::from_secs(10), "{took:?}");
    drop(host);
    assert!(root.join("current/bin/app").exists());
}

#[test]
fn a_version_that_crashes_is_taken_back_and_named() {
    let (world, directory) = (World::new(), tempfile::tempdir().unwrap());
    let _host = Host::start(&world, directory.path(), None);
    world.until("it registers", |_| true);
    let (good, bad) = (world.release(&script("good")), world.release("#!/bin/sh\nexit 7\n"));
    world.tell(&good);
    world.until("it runs", |it| it.condition == Condition::Well);
    let told = world.tell(&bad);
    let shown = world.until("it is given up", |it| it.condition == Condition::Failed);
    assert_eq!(
        (shown.agent.status.running, shown.agent.status.settled),
        (Some(good.clone()), told)
    );
    let failed = shown.agent.status.failed.unwrap();
    assert!(failed.contains("exit status: 7"), "{failed}");
    world.tell(&good);
    world.until("and well again", |it| it.condition == Condition::Well);
}

#[test]
fn an_agent_and_its_server_go_on_where_they_were() {
    let (world, directory) = (World::new(), tempfile::tempdir().unwrap());
    let host = Host::start(&world, directory.path(), None);
    world.until("it registers", |_| true);
    let (one, two) = (world.release(&script("one")), world.release(&script("two")));
    world.tell(&one);
    world.until("it runs", |it| it.condition == Condition::Well);
    world.restart();
    // A server that cannot be reached changes nothing of what runs.
    world.away.store(true, Ordering::Relaxed);
    let told = world.tell(&two);
    drop(host);
    let _host = Host::start(&world, directory.path(), None);
    world.now.fetch_add(60_000_000_000, Ordering::Relaxed);
    assert_eq!(world.shown().unwrap().condition, Condition::Silent);
    world.away.store(false, Ordering::Relaxed);
    let shown = world.until("it hears of it", |it| it.condition == Condition::Well);
    assert_eq!((shown.agent.status.running, shown.agent.status.settled), (Some(two), told));
}

#[test]
fn what_cannot_be_had_yet_is_tried_again_and_said() {
    let (world, directory) = (World::new(), tempfile::tempdir().unwrap());
    let _host = Host::start(&world, directory.path(), None);
    world.until("it registers", |_| true);
    world.tampers.store(true, Ordering::Relaxed);
    world.tell(&world.release(&script("one")));
    let shown = world.until("it says why", |it| it.agent.status.failed.is_some());
    assert_eq!(shown.condition, Condition::Behind, "it is not given up");
    assert!(shown.agent.status.failed.unwrap().contains("came as other bytes"));
    world.tampers.store(false, Ordering::Relaxed);
    world.until("and then it runs", |it| it.condition == Condition::Well);
}

#[test]
fn a_newer_order_overtakes_one_that_is_not_well_yet() {
    let (world, directory) = (World::new(), tempfile::tempdir().unwrap());
    let sick = directory.path().join("sick");
    let text = format!("grep -q good \"$1/bin/app\" || {{ : > '{}'; exit 1; }}", sick.display());
    let arguments = vec!["-c".to_owned(), text, "probe".to_owned()];
    let probe = Hook { program: "sh".to_owned(), arguments, timeout: Duration::from_secs(60) };
    let root = directory.path().join("agent");
    fs::create_dir(&root).unwrap();
    let ready = Duration::from_secs(600);
    let service = Service { ready, ..service(&root, Some(Arc::new(probe)), true) };
    let _host = Host::with(&world, &root, service);
    world.until("it registers", |_| true);
    let (good, bad) = (world.release(&script("good")), world.release(&script("bad")));
    world.tell(&good);
    world.until("it runs", |it| it.condition == Condition::Well);
    world.tell(&bad);
    let begun = Instant::now();
    while !sick.exists() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it is probed");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    let told = world.tell(&good);
    let shown = world.until("it is back", |it| it.condition == Condition::Well);
    assert_eq!((shown.agent.status.settled, shown.agent.status.running), (told, Some(good)));
    assert!(begun.elapsed() < Duration::from_secs(60), "nobody waits ten minutes for it");
}

struct Panics;

impl Probe for Panics {
    fn probe(&self, _: &Path) -> Health {
        panic!("as the test has it")
    }
}

#[test]
fn an_agent_of_which_a_part_fails_ends_as_a_whole() {
    let (world, directory) = (World::new(), tempfile::tempdir().unwrap());
    let service = service(directory.path(), Some(Arc::new(Panics)), false);
    let host = Host::with(&world, directory.path(), service);
    world.until("it registers", |_| true);
    world.tell(&world.release("one"));
    assert!(host.ends().is_err(), "it says that it failed");
}

#[test]
fn what_somebody_else_changed_is_seen_and_put_right() {
    let (world, directory) = (World::new(), tempfile::tempdir().unwrap());
    // Here the agent starts no process by itself, so the version that runs is the one to which the link
    // leads.
    let service = Service { hooks: Hooks::default(), ..service(directory.path(), None, false) };
    let _host = Host::with(&world, directory.path(), service);
    world.until("it registers", |_| true);
    let (one, two) = (world.release("one"), world.release("two"));
    for version in [&one, &two] {
        world.tell(version);
        world.until("it runs", |it| it.condition == Condition::Well);
    }
    assert_eq!(world.shown().unwrap().agent.status.health, Health::Unknown);
    let link = directory.path().join("current");
    let before = directory.path().join(format!("versions/sha256-{}", one.hex()));
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(before, &link).unwrap();
    let begun = Instant::now();
    let leads =
        || fs::read_link(&link).is_ok_and(|it| it.ends_with(format!("sha256-{}", two.hex())));
    while !leads() {
        assert!(begun.elapsed() < Duration::from_secs(60), "it is put right");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    world.until("and said", |it| it.condition == Condition::Well);
}
