//! The program of a version, kept running: in a process group of its own, started again when it ends by itself, ended
//! with all that it started.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kiln_net::Backoff;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::hook::{HookError, TOKEN};
use super::leftover::Leftover;

/// Pauses between two starts of a program that ends by itself.
const AGAIN: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));
/// What ran this long was a good start: the next one comes soon.
const GOOD_RUN: Duration = Duration::from_secs(60);
/// The variable that says to the program which version it is, and by which it is known again.
pub const VERSION: &str = "KILN_VERSION";

/// What to run in each version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// A relative path with a slash is one in the version.
    pub program: String,
    pub arguments: Vec<String>,
    /// The time between TERM and KILL.
    pub grace: Duration,
}

/// A version that is to run: its name, and the directory that it lies in.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    version: String,
    place: PathBuf,
}

struct Live {
    /// The number of the process and of its group. It is nobody else's as long as this is there: the process is reaped
    /// when it is taken away.
    pid: Pid,
    started: Instant,
    /// The version that was started. It is kept here since programs that change their title write over the environment
    /// that the kernel shows.
    version: String,
}

#[derive(Default)]
struct Inner {
    wanted: Option<Wanted>,
    live: Option<Live>,
    /// Ended by itself, since it was wanted.
    crashes: u64,
    /// How often in a row the program failed.
    failures: u32,
    not_before: Option<Instant>,
    /// How the program ended, or why it does not start; `None`: it runs, or nothing was started.
    last: Option<String>,
    closing: bool,
}

struct Shared {
    program: Program,
    /// Notes which process is to be ended by the next agent, should this one be killed.
    leftover: Leftover,
    inner: Mutex<Inner>,
    changed: Condvar,
}

/// Keeps a program running.
pub struct Supervisor {
    shared: Arc<Shared>,
    keeper: Option<JoinHandle<()>>,
}

impl Supervisor {
    /// Opens a supervisor, which first ends what an agent that was killed has left behind. `root`: the agent's
    /// directory.
    pub fn open(root: &Path, program: Program) -> io::Result<Self> {
        let leftover = Leftover::new(root);
        leftover.end(program.grace)?;
        let (inner, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { program, leftover, inner, changed });
        let keeps = shared.clone();
        let keeper = std::thread::Builder::new().name("keeper".to_owned());
        let keeper = Some(keeper.spawn(move || keeps.keep())?);
        Ok(Self { shared, keeper })
    }

    /// Ends what runs, and runs this version instead. Returns when it has been started.
    pub fn run(&self, version: &str, place: &Path) -> Result<(), HookError> {
        let mut inner = self.shared.lock();
        inner.wanted = None;
        inner = self.shared.end(inner);
        let wanted = Wanted { version: version.to_owned(), place: place.to_owned() };
        *inner = Inner { wanted: Some(wanted), closing: inner.closing, ..Inner::default() };
        self.shared.changed.notify_all();
        while inner.live.is_none() && inner.last.is_none() && !inner.closing {
            inner = self.shared.wait(inner);
        }
        Ok(())
    }

    /// The version of the process that lives, as the kernel knows it, else as it was started.
    pub fn running(&self) -> Option<String> {
        let inner = self.shared.lock();
        let live = inner.live.as_ref()?;
        let pid = live.pid.as_raw_nonzero();
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let mut variables = environment.split(|it| *it == 0);
        let found = variables
            .find_map(|it| std::str::from_utf8(it).ok()?.strip_prefix(VERSION)?.strip_prefix('='));
        Some(found.map_or_else(|| live.version.clone(), str::to_owned))
    }

    /// How often it has ended by itself since it was switched to, and how it did last.
    pub fn crashes(&self) -> (u64, Option<String>) {
        let inner = self.shared.lock();
        (inner.crashes, inner.last.clone())
    }

    /// Waits until the process is started or ends, and no longer than this.
    pub fn wait(&self, time: Duration) {
        drop(self.shared.wait_until(self.shared.lock(), Instant::now() + time));
    }

    /// How long the process has lived; `None`: there is none.
    pub fn up(&self) -> Option<Duration> {
        self.shared.lock().live.as_ref().map(|it| it.started.elapsed())
    }
}

impl Drop for Supervisor {
    /// Ends the program, and the thread that keeps it running.
    fn drop(&mut self) {
        let mut inner = self.shared.lock();
        (inner.closing, inner.wanted) = (true, None);
        drop(self.shared.end(inner));
        self.shared.changed.notify_all();
        if let Some(keeper) = self.keeper.take() {
            // It has nothing to say.
            let _ = keeper.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, inner: MutexGuard<'a, Inner>) -> MutexGuard<'a, Inner> {
        self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_until<'a>(&self, inner: MutexGuard<'a, Inner>, at: Instant) -> MutexGuard<'a, Inner> {
        let time = at.saturating_duration_since(Instant::now());
        self.changed.wait_timeout(inner, time).unwrap_or_else(PoisonError::into_inner).0
    }

    /// TERM to the group, and KILL after the grace. Returns when the process is gone.
    fn end<'a>(&self, mut inner: MutexGuard<'a, Inner>) -> MutexGuard<'a, Inner> {
        let Some(live) = &inner.live else { return inner };
        let until = Instant::now() + self.program.grace;
        // It may have ended by itself in the meantime; its waiter says so.
        let _ = kill_process_group(live.pid, Signal::TERM);
        while inner.live.is_some() && Instant::now() < until {
            inner = self.wait_until(inner, until);
        }
        if let Some(live) = &inner.live {
            tracing::warn!(grace = ?self.program.grace, "the program did not end, and is killed");
            let _ = kill_process_group(live.pid, Signal::KILL);
        }
        while inner.live.is_some() {
            inner = self.wait(inner);
        }
        inner
    }

    /// Starts what is wanted and does not live, when it is time.
    fn keep(self: &Arc<Self>) {
        let mut inner = self.lock();
        while !inner.closing {
            let Some(wanted) = inner.wanted.clone().filter(|_| inner.live.is_none()) else {
                inner = self.wait(inner);
                continue;
            };
            if let Some(at) = inner.not_before.filter(|at| *at > Instant::now()) {
                inner = self.wait_until(inner, at);
                continue;
            }
            if let Err(error) = self.start(&mut inner, &wanted) {
                inner.crashes += 1;
                inner.failed(format!("{:?} cannot be run: {error}", self.program.program), None);
            }
            self.changed.notify_all();
        }
    }

    fn start(self: &Arc<Self>, inner: &mut Inner, wanted: &Wanted) -> io::Result<()> {
        let program = &self.program.program;
        let in_version = program.contains('/').then(|| wanted.place.join(program));
        let child = Command::new(in_version.unwrap_or_else(|| program.into()))
            .args(&self.program.arguments)
            .current_dir(&wanted.place)
            .env(VERSION, &wanted.version)
            .env_remove(TOKEN)
            .stdin(Stdio::null())
            .process_group(0)
            .spawn()?;
        let pid = Pid::from_child(&child);
        let (started, version) = (Instant::now(), wanted.version.clone());
        inner.live = Some(Live { pid, started, version });
        if let Err(error) = self.leftover.note(pid) {
            tracing::warn!(%error, "should this agent be killed, its program will be left running");
        }
        let shared = self.clone();
        let waits = std::thread::Builder::new().name("waiter".to_owned());
        waits.spawn(move || shared.wait_for(child, pid)).map(drop).inspect_err(|_| {
            // Nobody would hear of its end.
            let _ = kill_process_group(pid, Signal::KILL);
            inner.live = None;
        })
    }

    /// Waits until the process ends. What it started ends with it: its number is still its own then.
    fn wait_for(&self, mut child: Child, pid: Pid) {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while matches!(waitid(WaitId::Pid(pid), options), Err(rustix::io::Errno::INTR)) {}
        let mut inner = self.lock();
        let _ = kill_process_group(pid, Signal::KILL);
        let status = child.wait();
        let lived = inner.live.take().map(|it| it.started.elapsed());
        if inner.wanted.is_some() {
            let how = status.map_or_else(|error| error.to_string(), |it| it.to_string());
            tracing::warn!(how, "the program ended by itself");
            inner.crashes += 1;
            inner.failed(format!("it ended by itself: {how}"), lived);
        }
        self.changed.notify_all();
    }
}

impl Inner {
    fn failed(&mut self, why: String, lived: Option<Duration>) {
        let good = lived.is_some_and(|it| it >= GOOD_RUN);
        self.failures = if good { 1 } else { self.failures.saturating_add(1) };
        self.not_before = Some(Instant::now() + AGAIN.pause(self.failures));
        self.last = Some(why);
    }
}
