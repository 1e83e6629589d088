//! Actions that mean harm: the machine and the next action are unharmed, and the user is told.

use std::time::{Duration, Instant};

use kiln_executor::sandbox::{Ending, SandboxError, UpperDir};
use tokio_util::sync::CancellationToken;

use crate::both;
use crate::harness::{Fixture, as_ordinary_user, as_root, block_on};

#[track_caller]
fn over(ending: &Ending, limit: &str) {
    assert!(
        matches!(ending, Ending::OverLimit { limit: text, .. } if text.starts_with(limit)),
        "{ending:?}"
    );
}

both! {
    async fn a_fork_bomb_is_contained(slot: &mut Fixture) {
        let mut spec = slot.shell("bomb() { bomb | bomb & }; bomb; sleep 60");
        spec.timeout = Duration::from_secs(2);
        let start = Instant::now();
        let ran = slot.run(&spec).await;
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        assert_ne!(ran.ending, Ending::Exited(0));
        assert_eq!(slot.sh("echo well").await.succeeded(), "well");
    }

    async fn a_disk_filler_meets_the_end_of_its_own_disk(slot: &mut Fixture) {
        for script in ["head -c 1000000000 /dev/zero > big", "head -c 1000000000 /dev/zero > /tmp/big",
                       "head -c 1000000000 /dev/zero > /dev/shm/big"] {
            let ran = slot.sh(script).await;
            over(&ran.ending, "disk");
            assert!(ran.stderr.contains("No space left"), "{}", ran.stderr);
        }
        let ran = slot.sh("i=0; while : > f$i; do i=$((i+1)); done; exit 1").await;
        over(&ran.ending, "disk");
        assert_eq!(slot.sh("echo well > f && cat f").await.succeeded(), "well");
    }

    async fn a_daemon_dies_with_its_action(slot: &mut Fixture) {
        let mark = format!("31{}", std::process::id());
        let script = format!("setsid sh -c 'trap \"\" TERM HUP; while :; do sleep {mark}; done' & setsid sleep {mark} >/dev/null 2>&1 & echo started");
        let start = Instant::now();
        assert_eq!(slot.sh(&script).await.succeeded(), "started");
        assert!(start.elapsed() < Duration::from_secs(10), "the daemon's pipes held the run up");
        let left = std::process::Command::new("pgrep").args(["-f", &format!("sleep {mark}")]).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&left.stdout), "");
    }

    async fn a_gigabyte_of_output_is_stopped(slot: &mut Fixture) {
        let before = resident();
        let mut spec = slot.shell("head -c 1000000000 /dev/zero");
        spec.limits.output_bytes = Some(256 << 10);
        let ran = slot.run(&spec).await;
        over(&ran.ending, "output: it printed more than 4194304 bytes");
        assert_eq!(ran.ending.exit_code(), 137);
        assert_eq!(ran.stdout.len(), 4 << 20);
        let grown = resident().saturating_sub(before);
        assert!(grown < 64 << 20, "{grown} bytes more");
    }

    async fn a_stopped_process_can_be_ended(slot: &mut Fixture) {
        let mut spec = slot.shell("kill -STOP $$");
        spec.timeout = Duration::from_millis(200);
        assert_eq!(slot.run(&spec).await.ending, Ending::TimedOut);
    }

    async fn a_killed_zygote_is_an_error_and_is_replaced(slot: &mut Fixture) {
        let before = zygotes();
        assert_eq!(before.len(), 1, "{before:?}");
        let spec = slot.shell("echo started; sleep 60");
        let (result, ()) = tokio::join!(slot.try_run(&spec, CancellationToken::new()), async {
            // The shell's sleep shows that the action runs.
            while children_of(before[0]).is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(before[0]), nix::sys::signal::Signal::SIGKILL).unwrap();
        });
        let error = result.unwrap_err();
        assert!(matches!(error, SandboxError::ZygoteLost(_)), "{error}");
        assert_eq!(slot.sh("echo well").await.succeeded(), "well");
        assert_ne!(zygotes(), before);
    }

    async fn a_dropped_run_leaves_no_action(slot: &mut Fixture) {
        let zygote = zygotes()[0];
        let spec = slot.shell("sleep 60");
        let begun = async {
            loop {
                let init = children_of(zygote);
                if !init.is_empty() {
                    return init;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let init = tokio::select! {
            ended = slot.try_run(&spec, CancellationToken::new()) => panic!("{ended:?}"),
            init = begun => init,
        };
        assert_eq!(slot.sh("echo well").await.succeeded(), "well");
        for pid in init {
            assert!(!std::path::Path::new(&format!("/proc/{pid}/exe")).exists(), "{pid} is left");
        }
    }
}

/// A command that takes memory until it is killed. Where a cgroup limits memory, files in /tmp
/// count; elsewhere each process's data does.
const HOG: &str = "python3 -c 'x = []\nwhile True: x.append(bytearray(1 << 20))'";

#[test]
fn a_memory_hog_is_killed_as_root() {
    as_root(|| {
        block_on(async {
            let mut slot = Fixture::new().await;
            if slot
                .slot()
                .capabilities()
                .not_enforced()
                .iter()
                .any(|what| what.starts_with("memory"))
            {
                eprintln!(
                    "SKIPPED: this machine limits no memory: {:?}",
                    slot.slot().capabilities()
                );
                return;
            }
            let ran = slot.sh(HOG).await;
            over(&ran.ending, "memory");
            assert_eq!(slot.sh("echo well").await.succeeded(), "well");
            let mut spec = slot.shell("head -c 300000000 /dev/zero > /tmp/big");
            spec.limits.disk_bytes = None;
            over(&slot.run(&spec).await.ending, "memory");
            assert_eq!(slot.sh("echo well").await.succeeded(), "well");
            slot.stop().await;
        });
    });
}

#[test]
fn a_memory_hog_fails_as_ordinary_user() {
    as_ordinary_user("sandbox::misbehaving::a_memory_hog_fails_as_ordinary_user", || {
        block_on(async {
            let mut slot = Fixture::new().await;
            let ran = slot.sh(HOG).await;
            assert!(
                ran.stderr.contains("MemoryError")
                    || matches!(ran.ending, Ending::OverLimit { .. }),
                "{:?}: {}",
                ran.ending,
                ran.stderr
            );
            assert_eq!(slot.sh("echo well").await.succeeded(), "well");
            slot.stop().await;
        });
    });
}

#[test]
fn a_fork_bomb_is_named_where_a_cgroup_counts() {
    as_root(|| {
        block_on(async {
            let mut slot = Fixture::new().await;
            if slot
                .slot()
                .capabilities()
                .not_enforced()
                .iter()
                .any(|what| what.starts_with("process"))
            {
                eprintln!("SKIPPED: no pids cgroup: {:?}", slot.slot().capabilities());
                return;
            }
            let mut spec = slot.shell("bomb() { bomb | bomb & }; bomb; sleep 60");
            spec.timeout = Duration::from_secs(1);
            over(&slot.run(&spec).await.ending, "processes");
            slot.stop().await;
        });
    });
}

/// Most open files of a slot's processes, and so of the zygote that removes what an action left.
const OPEN_FILES: u64 = 1024;
/// Levels of directories: more than a process can have open, and than a path of 4,096 bytes can name.
const DEEP: usize = 3000;

#[test]
fn scratch_on_disk_works_and_limits_each_file() {
    for as_user in [as_root as fn(Box<dyn FnOnce()>), ordinary] {
        as_user(Box::new(|| {
            block_on(async {
                let mut slot = Fixture::with(|config| {
                    config.upper = UpperDir::Disk;
                    config.open_files = OPEN_FILES;
                })
                .await;
                slot.input("in", "input");
                let ran = slot.sh("cat in > out; rm in; mkdir -p d && touch d/f; ls").await;
                assert_eq!(ran.succeeded(), "d\nout");
                assert_eq!(ran.output("out").as_deref(), Ok("input"));
                assert_eq!(slot.sh("ls").await.succeeded(), "in");
                let ran = slot.sh("head -c 1000000000 /dev/zero > big").await;
                assert_ne!(ran.ending, Ending::Exited(0));
                let deep =
                    format!("import os\nfor _ in range({DEEP}): os.mkdir('d'); os.chdir('d')");
                let spec = slot.command(&["python3", "-c", &deep]);
                slot.run(&spec).await.succeeded();
                for _ in 0..3 {
                    assert_eq!(slot.sh("ls").await.succeeded(), "in");
                }
                slot.stop().await;
            });
        }));
    }
}

fn ordinary(body: Box<dyn FnOnce()>) {
    as_ordinary_user("sandbox::misbehaving::scratch_on_disk_works_and_limits_each_file", body);
}

fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

fn zygotes() -> Vec<i32> {
    children_of(i32::try_from(std::process::id()).unwrap())
}

fn children_of(parent: i32) -> Vec<i32> {
    let output = std::process::Command::new("pgrep")
        .args(["-P", &parent.to_string(), "-f", "kiln-zygote"])
        .output();
    String::from_utf8(output.unwrap().stdout)
        .unwrap()
        .lines()
        .map(|line| line.parse().unwrap())
        .collect()
}
