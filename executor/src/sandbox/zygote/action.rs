//! One action from its request to its report.

use std::borrow::Cow;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::rc::Rc;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, Uid, fchown};

use super::command::{self, Command, NotStarted};
use super::conditions;
use super::error::{Context, ZygoteError};
use super::identity::Identity;
use super::init::{NAMESPACES, Plan};
use super::namespace::MountNamespace;
use super::network::EmptyNetwork;
use super::outcome::{Outcome, Told};
use super::privileges::StandIns;
use super::process::{self, Ended};
use super::renames::{Listener, Renames, Rights};
use super::roots::Roots;
use super::scratch::{self, Scratch};
use super::seccomp::OfAction;
use super::socket::Socket;
use crate::sandbox::cgroup::{Cgroups, SMALLEST};
use crate::sandbox::wire::{Asked, Reply, Report, Request, Status};
use crate::sandbox::{CommandSpec, Conditions, Limits, NotChanged, UpperDir};

/// Processes of the slot's user that are not the action's: the zygote and init, where they are
/// the same user.
const OWN_PROCESSES: u64 = 2;

/// The advice where an action had too little memory.
const MORE_MEMORY: &str =
    "raise the property kiln-memory where the action names one, else workers.memory";

/// All that a slot's zygote keeps to run its actions with, one after the other.
#[derive(Debug)]
pub(super) struct Workshop {
    pub identity: Identity,
    pub cgroups: Cgroups,
    pub roots: Roots,
    pub scratch: Scratch,
    pub upper: UpperDir,
    /// The mount namespace of the zygote.
    pub home: MountNamespace,
    /// The mount namespace of the last action, kept until its report has been sent: the kernel
    /// takes its time to end it.
    pub last: Option<MountNamespace>,
    /// The paths in the running tool's namespace at which parts of its input root are mounted;
    /// empty: it sees none.
    pub shown: Vec<PathBuf>,
    /// The user namespace that programs enter from the zygote's, if there is one.
    pub namespace: Option<OwnedFd>,
    /// The network of the next action; `None` where it is to be made anew.
    pub network: Option<EmptyNetwork>,
    pub outcome: Outcome,
    pub filter: OfAction,
    pub init_stack: Vec<u8>,
    pub program_stack: Vec<u8>,
    pub null: File,
    /// A descriptor of this process, by which init notices the zygote's death.
    pub zygote: OwnedFd,
    /// Answers the kernel's questions about renames; `None` where this kernel asks none.
    pub renames: Option<Rc<Listener>>,
}

impl Workshop {
    /// Runs an action to its report. `None`: the server is gone, and the action with it.
    pub(super) fn run(
        &mut self,
        spec: &CommandSpec,
        fds: Vec<OwnedFd>,
        socket: &mut Socket,
    ) -> Option<(Reply, Option<OwnedFd>)> {
        match self.try_run(spec, fds, socket) {
            Ok(Some((report, root))) => Some((Reply::Done(report), Some(root))),
            Ok(None) => None,
            Err(error) => Some((Reply::Failed(error.to_string()), None)),
        }
    }

    /// Does between two actions what the next one need not wait for.
    pub(super) fn tidy(&mut self) {
        self.last = None;
        if let Err(error) = self.scratch.forget() {
            // The place's next use tries again, and fails with its reason.
            error.print();
        }
        if self.network.as_ref().is_some_and(|network| !network.is_clean()) {
            self.network = None;
        }
        if self.network.is_none() {
            // A failure shows again, with its reason, when an action needs it.
            self.network = EmptyNetwork::create().ok();
        }
    }

    fn try_run(
        &mut self,
        spec: &CommandSpec,
        fds: Vec<OwnedFd>,
        socket: &mut Socket,
    ) -> Result<Option<(Report, OwnedFd)>, ZygoteError> {
        let [stdout, stderr] = <[OwnedFd; 2]>::try_from(fds).map_err(|_| {
            ZygoteError::Refused("a command needs two descriptors for its output".to_owned())
        })?;
        let (spec, not_changed) = &self.possible(spec);
        let identity = self.identity.under(spec.conditions);
        let (root, fits) = self.scratch.prepare(spec, identity)?;
        give(&identity, &stdout)?;
        give(&identity, &stderr)?;
        let command = match Command::new(spec) {
            Ok(command) => command,
            Err(why) => return Ok(Some((not_started(&why, &stderr), root))),
        };
        if let Some(name) = scratch::blocked_mount_point(spec) {
            return Ok(Some((not_started(&command::unfit_root(name), &stderr), root)));
        }
        if !fits || !self.scratch.hand_over(spec, &root)? {
            return Ok(Some((not_started(&command::no_room(), &stderr), root)));
        }
        if !self.limit(&spec.limits)? {
            return Ok(Some((self.too_little_memory(spec, &stderr), root)));
        }
        let trees = self.scratch.trees(spec)?;
        let streams = Streams { stdin: None, stdout: &stdout, stderr: &stderr };
        let init = self.start(spec, identity, &command, streams, &trees)?;
        // Only the action holds the ends of its pipes from here on.
        drop((stdout, stderr));
        let unexpected = &mut |_, _: &Socket| {
            Err(ZygoteError::Refused("a request came while an action runs".to_owned()))
        };
        let rights = Rights { identity, namespace: self.namespace.as_ref().map(OwnedFd::as_fd) };
        let renames = Renames::new(self.renames.as_deref(), Some(rights));
        let Some(ended) = attend(init, socket, renames, unexpected)? else { return Ok(None) };
        let mut report = self.conclude(spec, ended)?;
        report.not_changed.clone_from(not_changed);
        Ok(Some((report, root)))
    }

    /// The report on an action whose processes are gone.
    pub(super) fn conclude(
        &mut self,
        spec: &CommandSpec,
        ended: Ended,
    ) -> Result<Report, ZygoteError> {
        self.cgroups.relieve();
        let status = match self.outcome.read() {
            Told::Ended(status) => status,
            // Its very first steps may be too much for its limits.
            Told::Failed(_) if self.cgroups.seen().out_of_memory => ended.status,
            Told::Failed(message) => return Err(ZygoteError::Refused(message)),
            Told::Nothing => ended.status,
        };
        Ok(self.report(spec, status, ended))
    }

    /// The command with those of its conditions that can be changed, and the others.
    fn possible<'a>(&self, spec: &'a CommandSpec) -> (Cow<'a, CommandSpec>, Vec<NotChanged>) {
        if spec.conditions == Conditions::default() {
            return (Cow::Borrowed(spec), Vec::new());
        }
        let inputs = self.scratch.copy_hindrance(spec);
        let (conditions, not_changed) =
            conditions::possible(spec, &self.identity, self.upper, inputs.as_deref());
        (Cow::Owned(CommandSpec { conditions, ..spec.clone() }), not_changed)
    }

    pub(super) fn start(
        &mut self,
        spec: &CommandSpec,
        identity: Identity,
        command: &Command,
        streams: Streams<'_>,
        trees: &[(OwnedFd, PathBuf)],
    ) -> Result<Pid, ZygoteError> {
        if !spec.network && self.network.is_none() {
            self.network = Some(EmptyNetwork::create()?);
        }
        self.outcome.clear()?;
        let plan = Plan {
            spec,
            command,
            identity,
            namespace: self.namespace.as_ref().map(OwnedFd::as_fd),
            trees,
            network: self.network.as_ref().filter(|_| !spec.network),
            stand_ins: self.stand_ins(spec),
            stdin: streams.stdin.map_or(self.null.as_fd(), OwnedFd::as_fd),
            is_tool: streams.stdin.is_some(),
            stdout: streams.stdout,
            stderr: streams.stderr,
            zygote: self.zygote.as_fd(),
            outcome: &self.outcome,
            filter: &self.filter,
        };
        let namespace = self.roots.get(&spec.root, spec.network)?;
        let program_stack = &mut self.program_stack;
        let namespaces = NAMESPACES | conditions::namespaces(spec.conditions);
        let spawned = namespace.enter_copy().and_then(|copy| {
            self.last = Some(copy);
            process::spawn(namespaces, &mut self.init_stack, &mut || {
                plan.run(program_stack);
                0
            })
        });
        self.home.enter()?;
        spawned
    }

    /// Sets the limits of the next action. False: they leave no room to start anything.
    pub(super) fn limit(&mut self, limits: &Limits) -> Result<bool, ZygoteError> {
        if limits.memory_bytes.is_some_and(|bytes| bytes < SMALLEST) {
            return Ok(false);
        }
        let refused = ZygoteError::Refused;
        if self.cgroups.prepare(limits).map_err(refused)? {
            return Ok(true);
        }
        // What the last action left in memory counts as well.
        self.last = None;
        self.scratch.forget()?;
        self.cgroups.prepare(limits).map_err(refused)
    }

    fn too_little_memory(&self, spec: &CommandSpec, stderr: &OwnedFd) -> Report {
        let bytes = spec.limits.memory_bytes.unwrap_or(0);
        let limit = format!("memory: in {bytes} bytes nothing can be started; {MORE_MEMORY}");
        Report { over_limit: Some(limit), ..not_started(&command::no_memory(), stderr) }
    }

    /// Resource limits for what no cgroup and no file system of this machine limits. That of processes is
    /// always set, so that it is not the server's; where a cgroup counts them it is not met first.
    fn stand_ins(&self, spec: &CommandSpec) -> StandIns {
        let limits = &spec.limits;
        StandIns {
            processes: limits.processes.map(|count| {
                let spare = if self.cgroups.limits_processes() { u64::from(count) } else { 0 };
                u64::from(count) + OWN_PROCESSES + spare
            }),
            data_bytes: limits.memory_bytes.filter(|_| !self.cgroups.limits_memory()),
            file_bytes: limits.disk_bytes.filter(|_| self.upper == UpperDir::Disk),
        }
    }

    fn report(&self, spec: &CommandSpec, status: Status, ended: Ended) -> Report {
        let seen = self.cgroups.seen();
        Report {
            status,
            user: ended.user,
            system: ended.system,
            peak_memory_bytes: seen.peak_memory_bytes.unwrap_or(ended.peak_memory_bytes),
            over_limit: self.over_limit(spec, status),
            not_changed: Vec::new(),
        }
    }

    /// A limit explains only an end that needs explaining.
    fn over_limit(&self, spec: &CommandSpec, status: Status) -> Option<String> {
        if status == Status::Exited(0) {
            return None;
        }
        let seen = self.cgroups.seen();
        if let Some(bytes) = spec.limits.memory_bytes.filter(|_| seen.out_of_memory) {
            return Some(format!(
                "memory: the action needed more than {bytes} bytes, its files in /tmp included; {MORE_MEMORY}"
            ));
        }
        if let Some(count) = spec.limits.processes.filter(|_| seen.out_of_processes) {
            return Some(format!(
                "processes: the action wanted more than {count} at once; have it start fewer, or raise \
                 workers.processes"
            ));
        }
        self.disk_full(&spec.limits)
    }

    pub(super) fn disk_full(&self, limits: &Limits) -> Option<String> {
        let bytes = limits.disk_bytes.filter(|_| self.scratch.is_full())?;
        Some(format!(
            "disk: the action filled the {bytes} bytes it may write; have it write less, or raise workers.disk"
        ))
    }
}

/// The standard streams of an action. A tool alone has a stdin.
#[derive(Clone, Copy)]
pub(super) struct Streams<'a> {
    pub stdin: Option<&'a OwnedFd>,
    pub stdout: &'a OwnedFd,
    pub stderr: &'a OwnedFd,
}

/// Lets the action open its output again by name, as in `echo text > /dev/stderr`.
pub(super) fn give(identity: &Identity, pipe: &OwnedFd) -> Result<(), ZygoteError> {
    if !identity.switches_user {
        return Ok(());
    }
    fchown(pipe, Some(Uid::from_raw(identity.uid)), None).context("fchown", "the output")
}

pub(super) fn not_started(why: &NotStarted, stderr: &OwnedFd) -> Report {
    // Nobody reads any more: nothing is left to be told.
    let _ = nix::unistd::write(stderr, why.message.as_bytes());
    Report {
        status: Status::Exited(why.code),
        user: std::time::Duration::ZERO,
        system: std::time::Duration::ZERO,
        peak_memory_bytes: 0,
        over_limit: None,
        not_changed: Vec::new(),
    }
}

/// Does what the server asks for while something runs.
pub(super) type Serve<'a> = &'a mut dyn FnMut(Asked, &Socket) -> Result<(), ZygoteError>;

/// Waits for init's end while listening to the server; `serve` gets what is no signal. `None`: the
/// server is gone, and the action has been killed.
pub(super) fn attend(
    init: Pid,
    socket: &mut Socket,
    mut renames: Renames<'_>,
    serve: Serve<'_>,
) -> Result<Option<Ended>, ZygoteError> {
    let pidfd = process::pidfd(init)?;
    loop {
        let [ended, called, renamed] =
            wait_for_any([Some(pidfd.as_fd()), Some(socket.as_fd()), renames.waits_for()])?;
        if ended {
            return process::wait(init).map(Some);
        }
        let mut heard = Ok(true);
        if renamed {
            heard = renames.attend().map(|()| true);
        }
        if called && heard.is_ok() {
            heard = listen(init, socket, serve);
        }
        if !matches!(heard, Ok(true)) {
            signal(init, Signal::SIGKILL);
            process::wait(init)?;
            return heard.map(|_| None);
        }
    }
}

/// Does what the server's next message asks for. False when the server is gone.
fn listen(init: Pid, socket: &mut Socket, serve: Serve<'_>) -> Result<bool, ZygoteError> {
    if socket.receive_some()? == 0 {
        return Ok(false);
    }
    while let Some((request, _)) = socket.next()? {
        match request {
            Request::Terminate => signal(init, Signal::SIGTERM),
            Request::Kill => signal(init, Signal::SIGKILL),
            other => serve(other, socket)?,
        }
    }
    Ok(true)
}

/// Init is this process's child and has not been waited for: the number is still its own.
fn signal(init: Pid, signal: Signal) {
    let _ = kill(init, signal);
}

/// Waits until one of `fds` can be read, and says of each whether it can; `None` cannot.
fn wait_for_any<const N: usize>(
    fds: [Option<BorrowedFd<'_>>; N],
) -> Result<[bool; N], ZygoteError> {
    loop {
        let given = fds.iter().flatten();
        let mut polled: Vec<_> = given.map(|fd| PollFd::new(*fd, PollFlags::POLLIN)).collect();
        match poll(&mut polled, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("poll", "for the action's end"),
            Ok(_) => {
                let mut ready = polled.iter().map(|fd| fd.any().unwrap_or(false));
                return Ok(fds.map(|fd| fd.is_some() && ready.next() == Some(true)));
            }
        }
    }
}
