//! Process 1 of an action's namespaces: puts the action's own mounts in, starts the program, reaps whatever
//! is orphaned, and ends with the program. Its end is the end of every process of the action.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, kill, sigaction};
use nix::unistd::{
    Gid, Pid, Uid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, setresgid, setresuid, setsid,
};
use rustix::thread::CapabilitySet;

use super::command::{self, Command, NotStarted};
use super::conditions::{self, COVERED, OTHER_EXEC_ROOT};
use super::error::{Context, ZygoteError};
use super::identity::Identity;
use super::namespace::change_root;
use super::network::EmptyNetwork;
use super::outcome::Outcome;
use super::privileges::{self, StandIns};
use super::seccomp::OfAction;
use super::{attributes, layout, mounts, process};
use crate::sandbox::wire::Status;
use crate::sandbox::{CommandSpec, Condition, EXEC_ROOT, RootFs};

/// The namespaces that init is born into. It finds itself in a mount namespace of its own; the
/// network is joined; those of users and the host name are the slot's, and no action can change them.
pub(super) const NAMESPACES: CloneFlags = CloneFlags::CLONE_NEWPID.union(CloneFlags::CLONE_NEWIPC);

pub(super) struct Plan<'a> {
    pub spec: &'a CommandSpec,
    pub command: &'a Command,
    pub identity: Identity,
    /// The program's user namespace; `None`: it is init's.
    pub namespace: Option<BorrowedFd<'a>>,
    /// The trees to mount, each with its path in the action's root.
    pub trees: &'a [(OwnedFd, PathBuf)],
    /// The network of the action, with loopback only; `None`: it has the machine's network.
    pub network: Option<&'a EmptyNetwork>,
    pub stand_ins: StandIns,
    pub stdin: BorrowedFd<'a>,
    /// Whether the program is a tool: it stays for further requests, and sees in its input root
    /// only what it is shown.
    pub is_tool: bool,
    pub stdout: &'a OwnedFd,
    pub stderr: &'a OwnedFd,
    /// A descriptor of the zygote, readable once that is dead.
    pub zygote: BorrowedFd<'a>,
    pub outcome: &'a Outcome,
    pub filter: &'a OfAction,
}

impl Plan<'_> {
    /// The whole life of process 1. `stack` is for the program's first moments.
    pub(super) fn run(&self, stack: &mut [u8]) {
        match self.set_up().and_then(|()| self.start(stack)) {
            Ok(Started::Program(pid)) => {
                // The zygote knows nothing that would end the program for that. Where it fails, what
                // is open stays so until then.
                let _ = privileges::close_all_but(self.outcome.as_fd());
                self.outcome.ended(tend(pid));
            }
            Ok(Started::Not(why)) => {
                // Nobody reads any more: nothing is left to be told.
                let _ = nix::unistd::write(self.stderr, why.message.as_bytes());
                self.outcome.ended(Status::Exited(why.code));
            }
            Err(error) => self.outcome.failed(&error.to_string()),
        }
    }

    fn set_up(&self) -> Result<(), ZygoteError> {
        prctl::set_pdeathsig(Signal::SIGKILL).context("prctl", "PR_SET_PDEATHSIG")?;
        if has_ended(self.zygote) {
            return Err(ZygoteError::Refused("the zygote is gone".to_owned()));
        }
        attributes::raise_oom_score();
        conditions::enter(self.spec.conditions)?;
        // An action of the same user must not look into this process.
        prctl::set_dumpable(false).context("prctl", "PR_SET_DUMPABLE")?;
        if let Some(network) = self.network {
            network.join().context("setns", "the empty network")?;
        }
        self.mount()
    }

    fn mount(&self) -> Result<(), ZygoteError> {
        let elsewhere = self.spec.conditions.has(Condition::Directory);
        if elsewhere {
            mounts::tmpfs(Path::new(COVERED), "mode=0755")?;
            layout::make_dir(Path::new(OTHER_EXEC_ROOT))?;
            mounts::restrict(Path::new(COVERED), false, false)?;
        }
        for (tree, at) in self.trees {
            let is_root = at == Path::new(EXEC_ROOT);
            let at = if elsewhere && is_root { Path::new(OTHER_EXEC_ROOT) } else { at };
            mounts::attach(tree, at)?;
            if self.is_tool && is_root {
                mounts::restrict(at, false, false)?;
            }
        }
        mounts::devpts(Path::new("/dev/pts"))?;
        if self.spec.root == RootFs::Inputs {
            return inputs_become_root();
        }
        mounts::proc(Path::new("/proc"))
    }

    /// The path of the input root, once everything is mounted.
    fn exec_root(&self) -> &'static Path {
        Path::new(match self.spec.root {
            RootFs::Inputs => "/",
            _ if self.spec.conditions.has(Condition::Directory) => OTHER_EXEC_ROOT,
            _ => EXEC_ROOT,
        })
    }

    fn start(&self, stack: &mut [u8]) -> Result<Started, ZygoteError> {
        let directory = self.exec_root().join(&self.spec.working_directory);
        if let Err(error) = chdir(&directory) {
            return Ok(Started::Not(command::no_working_directory(
                &self.spec.working_directory,
                error,
            )));
        }
        conditions::before_start(self.spec.conditions)?;
        watched().thread_block().context("sigprocmask", "in init")?;
        let mut failure = None;
        let child = process::vfork(CloneFlags::empty(), stack, &mut || {
            failure = Some(self.become_program());
            0
        })?;
        match failure {
            None => {
                let kept = match self.identity.switches_user {
                    true => CapabilitySet::KILL,
                    false => CapabilitySet::empty(),
                };
                privileges::keep_capabilities(kept).context("capset", "in init")?;
                Ok(Started::Program(child))
            }
            Some(Failure::Exec(error)) => Ok(Started::Not(self.command.explain(error))),
            Some(Failure::SetUp(error)) => Err(error),
        }
    }

    /// Becomes the program, and returns only where that failed. Called in the program's process,
    /// which shares its memory with init until exec.
    fn become_program(&self) -> Failure {
        match self.drop_everything() {
            Ok(()) => Failure::Exec(self.command.exec()),
            Err(error) => Failure::SetUp(error),
        }
    }

    fn drop_everything(&self) -> Result<(), ZygoteError> {
        setsid().context("setsid", "")?;
        dup2_stdin(self.stdin).context("dup2", "stdin")?;
        dup2_stdout(self.stdout).context("dup2", "stdout")?;
        dup2_stderr(self.stderr).context("dup2", "stderr")?;
        privileges::close_on_exec().context("close_range", "")?;
        default_signals().context("reset", "signals")?;
        if self.identity.switches_user {
            let (uid, gid) = (Uid::from_raw(self.identity.uid), Gid::from_raw(self.identity.gid));
            setresgid(gid, gid, gid).context("setresgid", gid)?;
            setresuid(uid, uid, uid).context("setresuid", uid)?;
        }
        if let Some(namespace) = self.namespace {
            setns(namespace, CloneFlags::CLONE_NEWUSER).context("setns", "a user namespace")?;
            privileges::drop_bounding_set().context("prctl", "PR_CAPBSET_DROP")?;
        }
        conditions::in_program(self.spec.conditions).context("sched_setaffinity", "")?;
        privileges::keep_capabilities(CapabilitySet::empty()).context("capset", "")?;
        self.stand_ins.apply().context("setrlimit", "")?;
        self.filter.apply()
    }
}

/// Makes the input root the root, and takes /dev and /tmp along; the prepared root is gone after
/// this.
fn inputs_become_root() -> Result<(), ZygoteError> {
    let inputs = Path::new(EXEC_ROOT);
    for name in ["dev", "tmp"] {
        mounts::bind(&Path::new("/").join(name), &inputs.join(name))?;
    }
    // Before the change of root: the kernel wants to see a whole one while it mounts another.
    mounts::proc(&inputs.join("proc"))?;
    change_root(inputs)
}

enum Started {
    Program(Pid),
    Not(NotStarted),
}

enum Failure {
    SetUp(ZygoteError),
    Exec(Errno),
}

/// The signals that init waits for: the end of a child, and the zygote's request to end them all.
fn watched() -> SigSet {
    SigSet::from_iter([Signal::SIGCHLD, Signal::SIGTERM])
}

/// Reaps children until the program itself has ended, and answers how it ended.
fn tend(program: Pid) -> Status {
    loop {
        while let Some((pid, status)) = process::reap() {
            if pid == program {
                return status;
            }
        }
        if watched().wait() == Ok(Signal::SIGTERM) {
            // All in this namespace but init itself.
            let _ = kill(Pid::from_raw(-1), Signal::SIGTERM);
        }
    }
}

fn default_signals() -> nix::Result<()> {
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    set_action(Signal::SIGPIPE, &default)?;
    SigSet::empty().thread_set_mask()
}

#[allow(unsafe_code)] // sigaction is unsafe for what a handler may do
fn set_action(signal: Signal, action: &SigAction) -> nix::Result<()> {
    // SAFETY: the default action runs no code of this process.
    unsafe { sigaction(signal, action) }.map(drop)
}

fn has_ended(process: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO) != Ok(0)
}
