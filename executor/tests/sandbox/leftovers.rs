//! A hundred actions leave nothing behind on the machine.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kiln_executor::sandbox::{SlotConfig, probe};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::both;
use crate::harness::{Fixture, config};

both! {
    async fn a_hundred_runs_leave_nothing_behind(slot: &mut Fixture) {
        slot.input("in", "input");
        slot.sh("true").await.succeeded();
        let zygote = child();
        let before = settled(zygote).await;
        for number in 0..100 {
            let ran = slot.sh(&format!("cat in > out{number}; echo {number}; sleep 100 & setsid sleep 100 & true")).await;
            assert_eq!(ran.succeeded(), number.to_string());
        }
        slot.sh("true").await.succeeded();
        assert_eq!(settled(zygote).await, before);
        assert_eq!(child(), zygote, "the zygote is the same");
    }
}

#[test]
fn a_stopped_slot_has_taken_its_cgroups_with_it() {
    crate::harness::as_root(|| {
        crate::harness::block_on(async {
            let mut slot = Fixture::new().await;
            slot.sh("true").await.succeeded();
            let mark = mark(std::process::id());
            let enforced = slot.slot().capabilities().not_enforced().len();
            let during = cgroups(&mark);
            assert!(enforced == 3 || !during.is_empty(), "limits without a cgroup");
            slot.stop().await;
            assert_eq!(cgroups(&mark), Vec::<PathBuf>::new());
            let mut dropped = Fixture::new().await;
            dropped.sh("true").await.succeeded();
            drop(dropped);
            assert_eq!(cgroups(&mark), Vec::<PathBuf>::new());
        });
    });
}

/// The environment variable that is set for the process that is to be killed.
const VICTIM: &str = "KILN_TEST_VICTIM";

#[test]
fn cgroups_of_a_killed_server_are_removed_at_the_next_start() {
    if std::env::var_os(VICTIM).is_some() {
        return serve_until_killed();
    }
    crate::harness::as_root(|| {
        let mut victim = Victim::start();
        drop(crate::harness::block_on(Fixture::new()));
        let theirs = mark(victim.server.id());
        let enforced = cgroups(&theirs);
        if enforced.is_empty() {
            return eprintln!("SKIPPED: no cgroups can be made on this machine");
        }
        // A zygote that stands still does not notice that its server is gone.
        let zygote = victim.zygote;
        nix::sys::signal::kill(zygote, Signal::SIGSTOP).unwrap();
        victim.server.kill().unwrap();
        victim.server.wait().unwrap();
        // Another test may be removing them at the same moment.
        let deadline = Instant::now() + Duration::from_secs(10);
        while !cgroups(&theirs).is_empty() {
            assert!(Instant::now() < deadline, "they stay: {:?}", cgroups(&theirs));
            drop(crate::harness::block_on(Fixture::new()));
        }
        let state = fs::read_to_string(format!("/proc/{zygote}/stat")).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z "), "the zygote lives: {state}");
    });
}

/// A process with a slot, which an action has run in.
struct Victim {
    server: Child,
    zygote: Pid,
}

impl Victim {
    fn start() -> Self {
        let name = "leftovers::cgroups_of_a_killed_server_are_removed_at_the_next_start";
        let mut server = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(VICTIM, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let zygote = lines.find_map(|line| line.unwrap().strip_prefix("zygote ")?.parse().ok());
        Self { server, zygote: Pid::from_raw(zygote.expect("the slot started")) }
    }
}

fn serve_until_killed() {
    crate::harness::block_on(async {
        let mut slot = Fixture::new().await;
        slot.sh("true").await.succeeded();
        println!("\nzygote {}", child());
        // Ends also when the test itself does.
        let _ = std::io::stdin().read(&mut [0]);
        slot.stop().await;
    });
}

fn mark(server: u32) -> String {
    format!("kiln-slot-{server}-")
}

#[test]
fn a_machine_is_probed_and_says_what_it_lacks() {
    crate::harness::block_on(async {
        let dir = tempfile::tempdir().unwrap();
        let capabilities = probe(config(dir.path())).await.unwrap();
        assert!(capabilities.user_namespace);
        for sentence in capabilities.not_enforced() {
            assert!(sentence.contains(": "), "{sentence}");
        }
        let broken =
            SlotConfig { zygote_command: vec!["/no/such/program".into()], ..config(dir.path()) };
        let error = probe(broken).await.unwrap_err();
        assert!(error.to_string().contains("/no/such/program"), "{error}");
    });
}

#[derive(Debug, PartialEq, Eq)]
struct Count {
    own_mounts: usize,
    own_descriptors: usize,
    zygote_descriptors: usize,
    zygote_mounts: usize,
    zygote_children: usize,
}

/// The counts once the zygote has tidied up after its last report: when it waits for a message again.
async fn settled(zygote: u32) -> Count {
    let deadline = Instant::now() + Duration::from_secs(10);
    let state = || fs::read_to_string(format!("/proc/{zygote}/syscall")).unwrap_or_default();
    let waits = |state: &str| state.starts_with(&format!("{} ", libc::SYS_recvmsg));
    while !waits(&state()) {
        assert!(Instant::now() < deadline, "the zygote does not come to rest: {}", state());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    count(zygote)
}

fn count(zygote: u32) -> Count {
    let entries = |path: String| fs::read_dir(path).map_or(0, Iterator::count);
    let lines = |path: String| fs::read_to_string(path).map_or(0, |text| text.lines().count());
    Count {
        own_mounts: lines("/proc/self/mountinfo".to_owned()),
        own_descriptors: entries("/proc/self/fd".to_owned()),
        zygote_descriptors: entries(format!("/proc/{zygote}/fd")),
        zygote_mounts: lines(format!("/proc/{zygote}/mountinfo")),
        zygote_children: lines(format!("/proc/{zygote}/task/{zygote}/children")),
    }
}

fn child() -> u32 {
    let output = std::process::Command::new("pgrep")
        .args(["-P", &std::process::id().to_string(), "-f", "kiln-zygote"])
        .output()
        .unwrap();
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

fn cgroups(mark: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![Path::new("/sys/fs/cgroup").to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                if entry.file_name().to_string_lossy().starts_with(mark) {
                    found.push(entry.path());
                }
                open.push(entry.path());
            }
        }
    }
    found
}
