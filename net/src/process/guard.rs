//! Guards, which end programs together with the process that runs them, also where it is killed: one runs beside each
//! program.
//!
//! A program runs in a process group that its guard leads: a small process of this binary, started before it. The guard waits
//! on a descriptor of the process that started it for the end of that process, however it comes, and then ends its group: the
//! program, and all that it has started. Where the program ends first, the guard is ended by whoever ran it.
//!
//! Why not the kernel's signal at the death of a parent (`PR_SET_PDEATHSIG`)? It comes when the *thread* ends that forked,
//! and a runtime's threads come and go; programs with other rights forget it; and it reaches the program alone, not what that
//! has started. Why not a process between this one and the program? It would have to pass on exit codes, signals and streams.
//!
//! What has left the group (setsid) stays: nobody can tell it from what is meant to.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, getpgrp, getpid, getppid, kill_process_group, pidfd_open,
};

/// The word that `kiln` is started with to be a guard. The id of the process that it watches follows.
pub const WORD: &str = "process-guard";
/// A program that is just being started when its server ends has joined the group by then.
const JOINS: Duration = Duration::from_millis(50);
/// How often it is looked where the kernel has no descriptors of processes (before 5.3).
const LOOK: Duration = Duration::from_secs(1);
/// What a guard ends with that is told nothing it could watch.
const USAGE: u8 = 2;

/// What this process starts guards by. Without it programs run unguarded.
static COMMAND: OnceLock<Vec<OsString>> = OnceLock::new();

/// From now on programs are guarded. `command`: the program of guards, which calls [`main`] with its last argument, and its first
/// arguments.
pub fn start_by(command: Vec<OsString>) {
    // Whoever says it twice says the same.
    COMMAND.set(command).ok();
}

/// A guard could not be started. The program is not run then: without a guard it would go on where nobody knows of it.
#[derive(Debug, thiserror::Error)]
#[error(
    "the guard beside it cannot be started by {program} (is /proc mounted, may more processes be started?)"
)]
struct NoGuard {
    program: String,
    #[source]
    source: io::Error,
}

/// A guard that watches. Dropping it ends it with all that is in its group.
pub struct Guard {
    process: Child,
    /// Whether the guard ends alone when this is dropped, and what is left of its group stays.
    alone: bool,
}

impl Guard {
    /// Nothing where this process has no command for guards. The error says that it is about the guard: whoever runs a program
    /// names that alone.
    pub fn start() -> io::Result<Option<Self>> {
        let command = COMMAND.get().and_then(|it| it.split_first());
        command.map(|(program, arguments)| Self::begin(program, arguments)).transpose()
    }

    fn begin(program: &OsStr, arguments: &[OsString]) -> io::Result<Self> {
        let mut command = Command::new(program);
        // It holds neither streams nor a directory of anybody, and needs no secret.
        command.args(arguments).arg(std::process::id().to_string()).env_clear().current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.process_group(0).spawn().map_err(|source| {
            let program = program.to_string_lossy().into_owned();
            io::Error::other(NoGuard { program, source })
        })?;
        Ok(Self { process, alone: false })
    }

    /// The group that it leads, for programs to join. It is nobody else's until the guard has gone.
    pub fn group(&self) -> Pid {
        Pid::from_child(&self.process)
    }

    /// Ends the guard alone: what is left of its group stays.
    pub fn dismiss(mut self) {
        self.alone = true;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        match self.alone {
            true => self.process.kill().ok(),
            false => kill_process_group(self.group(), Signal::KILL).ok(),
        };
        // It was killed: this takes no time.
        self.process.wait().ok();
    }
}

/// The number by which a program joins the group of its guard; without one it leads its own.
pub fn joins(guard: Option<&Guard>) -> i32 {
    guard.map_or(0, |it| it.group().as_raw_nonzero().get())
}

/// What a guard's process does: it watches until it ends with its group. `parent`: what followed [`WORD`].
pub fn main(parent: Option<OsString>) -> ExitCode {
    let id = parent.and_then(|it| it.to_str()?.parse::<i32>().ok()).filter(|it| *it > 0);
    // Who leads no group was not started as a guard, and would end others.
    let Some(parent) = id.and_then(Pid::from_raw).filter(|_| getpgrp() == getpid()) else {
        return ExitCode::from(USAGE);
    };
    wait_for_end(parent);
    std::thread::park_timeout(JOINS);
    // Itself as well.
    kill_process_group(getpid(), Signal::KILL).ok();
    ExitCode::FAILURE
}

fn wait_for_end(parent: Pid) {
    // Numbers are given out again, but whose child this is, is no other one.
    let lives = || getppid() == Some(parent);
    if let Ok(process) = pidfd_open(parent, PidfdFlags::empty()) {
        while lives() {
            match poll(&mut [PollFd::new(&process, PollFlags::IN)], None) {
                Ok(_) => return,
                Err(error) if error == Errno::INTR => {}
                Err(_) => break,
            }
        }
    }
    while lives() {
        std::thread::park_timeout(LOOK);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};
    use std::time::Instant;

    use super::*;
    use crate::process::{Keep, ProcessError, run_blocking, run_told};

    /// Says that this process is one to be killed.
    const VICTIM: &str = "KILN_TEST_GUARDED";
    const MINUTES: Duration = Duration::from_secs(600);
    const WITHIN: Duration = Duration::from_secs(10);

    /// The command of this test program, to run one of its tests alone.
    fn again(test: &str) -> Vec<OsString> {
        let program = std::env::current_exe().unwrap().into_os_string();
        let test = format!("process::guard::tests::{test}");
        [program, "--exact".into(), test.into(), "--nocapture".into()].to_vec()
    }

    fn sh(script: &str) -> tokio::process::Command {
        let mut command = tokio::process::Command::new("sh");
        command.args(["-c", script]);
        command
    }

    /// No test of its own: what guards of the next one are. The word tells them from whatever else ends in a number
    /// (`--test-threads 1`).
    #[test]
    fn is_a_guard_where_it_is_started_as_one() {
        let mut last = std::env::args_os().rev();
        let parent = last.next();
        if last.next().is_some_and(|it| it == WORD) {
            let _ = main(parent);
        }
    }

    #[test]
    fn where_no_guard_can_be_started_the_guard_is_named() {
        let error = Guard::begin("/nowhere/at-all".as_ref(), &[]).err().expect("nothing is there");
        let said = crate::causes::chain(&error);
        assert!(said.starts_with("the guard beside it cannot be started by /nowhere/"), "{said}");
        assert!(said.contains("No such file"), "{said}");
    }

    #[test]
    fn a_process_that_is_killed_takes_its_programs_and_their_children_along() {
        if std::env::var_os(VICTIM).is_some() {
            return run_until_killed();
        }
        let command = again("a_process_that_is_killed_takes_its_programs_and_their_children_along");
        let mut victim = Command::new(&command[0])
            .args(&command[1..])
            .env(VICTIM, "1")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(victim.stdout.take().unwrap()).lines();
        let started = lines.map_while(Result::ok).find_map(|line| {
            line.split_once("started ").map(|(_, processes)| processes.to_owned())
        });
        let processes = started.expect("it says what it has started");
        assert_eq!(processes.split_whitespace().count(), 2, "a program and its child: {processes}");
        assert!(processes.split_whitespace().all(lives));
        victim.kill().unwrap();
        victim.wait().unwrap();
        end(&processes);
    }

    /// Waits until these processes have ended.
    fn end(processes: &str) {
        let until = Instant::now() + WITHIN;
        while processes.split_whitespace().any(lives) {
            assert!(Instant::now() < until, "they go on: {processes}");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    fn run_until_killed() {
        let mut guards = again("is_a_guard_where_it_is_started_as_one");
        guards.push(WORD.into());
        start_by(guards);
        // First one that ends by itself, and leaves something behind.
        let script = sh("sleep 600 >/dev/null 2>&1 & echo $!; exit 3");
        let ran = run_blocking(script, None, MINUTES, Keep::All(100)).unwrap();
        assert_eq!(ran.status.code(), Some(3));
        end(&String::from_utf8(ran.stdout).unwrap());
        // Then one that takes too long, once it had the time to say what it has started.
        let mut limit = Duration::from_millis(100);
        let late = loop {
            let script = sh("sleep 600 >/dev/null 2>&1 & echo $$ $!; wait");
            let ran = run_blocking(script, None, limit, Keep::All(100));
            let Err(ProcessError::Slow { printed, .. }) = &ran else { panic!("{ran:?}") };
            if !printed.is_empty() {
                break String::from_utf8(printed.clone()).unwrap();
            }
            limit *= 2;
            assert!(limit < MINUTES, "it never says it");
        };
        end(&late);
        let told = |_: bool, data: &[u8]| print!("{}", String::from_utf8_lossy(data));
        let script = sh("sleep 600 & echo started $$ $!; wait");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ran = runtime.block_on(run_told(script, None, MINUTES, &told));
        panic!("it was not killed: {ran:?}");
    }

    /// Returns whether a process runs. A zombie, which has ended without its parent having asked how, does
    /// not.
    fn lives(process: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    }
}
