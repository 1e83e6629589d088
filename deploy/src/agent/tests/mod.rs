//! Agents in real directories, with real programs.

mod processes;
mod pulling;
mod rig;
mod sharing;
mod working;

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Agent, AgentError, GoesOn, Hook, Hooks, Installed, Order, Point, Source, SourceError};
use crate::oci::ContentDigest;
use crate::rollouts::machine::Generation;

/// Versions whose one file says which they are; `full`: the disk is, half way.
#[derive(Clone, Copy, Default)]
struct Versions {
    full: bool,
}

impl Source for Versions {
    fn unpack(
        &self,
        version: &ContentDigest,
        into: &Path,
        _: GoesOn<'_>,
    ) -> Result<(), SourceError> {
        fs::create_dir(into.join("bin"))?;
        fs::write(into.join("bin/half"), "")?;
        if self.full {
            return Err(io::Error::from(io::ErrorKind::StorageFull).into());
        }
        Ok(fs::write(into.join("bin/app"), version.to_string())?)
    }
}

fn version(of: &str) -> ContentDigest {
    ContentDigest::of(of.as_bytes())
}

fn order(of: &str, change: u64) -> Order {
    Order { version: version(of), generation: Generation { fence: 1, change } }
}

fn open(root: &Path, hooks: Hooks) -> Agent<Versions> {
    Agent::open(root.to_owned(), Versions::default(), hooks).expect("it is free")
}

/// What a user of the directory would run.
fn app(root: &Path) -> Option<String> {
    fs::read_to_string(root.join("current/bin/app")).ok()
}

fn on(_: Point) -> bool {
    true
}

fn script(dir: &Path, text: &str) -> PathBuf {
    let path = dir.join("hook with space.sh");
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn hook(path: &Path, timeout: Duration) -> Hook {
    // Through the shell: a script that was just written may still be busy for exec.
    let arguments = vec![path.to_str().unwrap().to_owned()];
    Hook { program: "/bin/sh".to_owned(), arguments, timeout }
}

#[test]
fn versions_come_beside_and_the_one_before_stays() {
    let dir = tempfile::tempdir().unwrap();
    let agent = open(dir.path(), Hooks::default());
    for (at, of) in (1..).zip(["one", "two", "three"]) {
        assert_eq!(agent.obey(&order(of, at), &on).unwrap(), Installed::Now);
        assert_eq!(app(dir.path()), Some(version(of).to_string()));
        assert_eq!(agent.running(), Some(version(of)));
    }
    assert_eq!(agent.obey(&order("three", 3), &on).unwrap(), Installed::Already);
    let state = agent.state().unwrap();
    assert_eq!(state.previous, Some(version("two")));
    assert_eq!(fs::read_dir(dir.path().join("versions")).unwrap().count(), 2);
}

#[test]
fn what_is_stale_is_refused_even_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path(), Hooks::default()).obey(&order("two", 2), &on).unwrap();
    let agent = open(dir.path(), Hooks::default());
    let error = agent.obey(&order("one", 1), &on).unwrap_err();
    assert!(matches!(error, AgentError::Stale { .. }), "{error}");
    assert!(error.to_string().starts_with("generation 1.1 is older than 1.2,"), "{error}");
    let error = agent.obey(&order("other", 2), &on).unwrap_err();
    assert!(matches!(error, AgentError::Ambiguous(_)), "{error}");
    assert_eq!(app(dir.path()), Some(version("two").to_string()));
}

#[test]
fn one_agent_works_in_a_directory() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path(), Hooks::default());
    let second = Agent::open(dir.path().to_owned(), Versions::default(), Hooks::default());
    assert!(matches!(second.map(drop), Err(AgentError::Busy(_))));
    drop(first);
    open(dir.path(), Hooks::default());
}

/// Stopped at every point: what runs is one whole version, and the next start ends what was begun.
#[test]
fn a_crash_at_any_point_leaves_a_whole_version() {
    use Point::{Accepted, Checked, Kept, Named, Switched, Unpacked};
    for point in [Accepted, Unpacked, Named, Switched, Checked, Kept] {
        let dir = tempfile::tempdir().unwrap();
        let agent = open(dir.path(), Hooks::default());
        agent.obey(&order("one", 1), &on).unwrap();
        let stopped = agent.obey(&order("two", 2), &|at| at != point);
        assert!(matches!(stopped, Err(AgentError::Stopped)), "{point:?}");
        drop(agent);
        let runs = app(dir.path()).expect("something runs");
        assert!(
            [version("one"), version("two")].iter().any(|it| it.to_string() == runs),
            "{point:?}"
        );
        let agent = open(dir.path(), Hooks::default());
        agent.resume(&on).unwrap();
        assert_eq!(app(dir.path()), Some(version("two").to_string()), "{point:?}");
        let state = agent.state().unwrap();
        assert!(!state.open && state.previous == Some(version("one")), "{point:?}");
    }
}

#[test]
fn a_full_disk_changes_nothing_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path(), Hooks::default()).obey(&order("one", 1), &on).unwrap();
    let full =
        Agent::open(dir.path().to_owned(), Versions { full: true }, Hooks::default()).unwrap();
    let error = full.obey(&order("two", 2), &on).unwrap_err();
    assert!(matches!(error, AgentError::Disk { .. }), "{error}");
    assert_eq!(app(dir.path()), Some(version("one").to_string()));
    assert_eq!(fs::read_dir(dir.path().join("versions")).unwrap().count(), 1);
    drop(full);
    open(dir.path(), Hooks::default()).resume(&on).unwrap();
    assert_eq!(app(dir.path()), Some(version("two").to_string()), "when there is room again");
}

#[test]
fn a_version_that_is_not_well_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let bad = version("bad").to_string();
    let check = script(dir.path(), &format!("test \"$(cat \"$1/bin/app\")\" != {bad}"));
    let after = Some(hook(&check, Duration::from_secs(60)));
    let agent = open(&dir.path().join("agent"), Hooks { before: None, after });
    agent.obey(&order("one", 1), &on).unwrap();
    let error = agent.obey(&order("bad", 2), &on).unwrap_err();
    assert!(matches!(error, AgentError::After(_)), "{error}");
    assert_eq!(agent.running(), Some(version("one")));
    let state = agent.state().unwrap();
    assert!(state.failed.is_some() && !state.open && state.generation.change == 2);
    agent.obey(&order("three", 3), &on).unwrap();
    assert_eq!(agent.running(), Some(version("three")));
}

#[test]
fn a_hook_that_hangs_is_killed_with_its_children() {
    let dir = tempfile::tempdir().unwrap();
    let pid = dir.path().join("pid");
    let hangs = script(dir.path(), &format!("sleep 1000 & echo $! > '{}'; wait", pid.display()));
    // Long enough for a shell to have begun on a busy machine.
    let before = Some(hook(&hangs, Duration::from_secs(3)));
    let root = dir.path().join("agent");
    let agent = open(&root, Hooks { before, after: None });
    let begun = Instant::now();
    let error = agent.obey(&order("one", 1), &on).unwrap_err();
    assert!(matches!(error, AgentError::Before(_)), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(60));
    assert_eq!(agent.running(), None);
    let child = fs::read_to_string(&pid).expect("it began");
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.trim())).unwrap_or_default();
    assert!(stat.is_empty() || stat.contains(") Z"), "it still runs: {stat}");
}

#[test]
fn a_hook_that_is_killed_switches_nothing_or_is_taken_back() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("agent");
    open(&root, Hooks::default()).obey(&order("one", 1), &on).unwrap();
    let dies = hook(&script(dir.path(), "kill -9 $$"), Duration::from_secs(60));
    let before = open(&root, Hooks { before: Some(dies.clone()), after: None });
    let error = before.obey(&order("two", 2), &on).unwrap_err();
    let AgentError::Before(cause) = &error else { panic!("{error}") };
    assert!(cause.to_string().contains("signal: 9"), "{cause}");
    assert_eq!(before.running(), Some(version("one")));
    drop(before);
    let after = open(&root, Hooks { before: None, after: Some(dies) });
    let error = after.obey(&order("two", 3), &on).unwrap_err();
    assert!(matches!(error, AgentError::After(_)), "{error}");
    assert_eq!(after.running(), Some(version("one")));
    assert!(after.state().unwrap().failed.is_some());
}

/// A place where nobody can write, root neither.
#[test]
fn a_directory_that_takes_nothing_is_said() {
    let error =
        Agent::open(PathBuf::from("/proc/self/agent"), Versions::default(), Hooks::default());
    let Err(error) = error else { unreachable!("there is no such place") };
    assert!(matches!(error, AgentError::Disk { .. }) && !error.is_final(), "{error}");
}
