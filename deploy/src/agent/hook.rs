//! Programs that are run around a switch. One that hangs is killed with all that it started, and so is one whose agent is killed: the
//! next agent may run it again. What a hook leaves running stays.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use kiln_net::counts::duration;
use kiln_net::process::guard::{self, Guard};
use rustix::process::{Pid, Signal, kill_process_group};

/// The variable with which an agent shows who it is: nobody whom it starts has to know.
pub const TOKEN: &str = "KILN_TOKEN";

/// A program with its arguments; it gets the directory of the version as its last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    pub program: String,
    pub arguments: Vec<String>,
    pub timeout: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum HookError {
    #[error("{program:?} cannot be run")]
    Start {
        program: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{:?} took more than {} and was killed", .0, duration(*.1))]
    TimedOut(String, Duration),
    #[error("{program:?} failed: {status}")]
    Failed { program: String, status: ExitStatus },
    #[error("it was not well within {}: {why}", duration(*.within))]
    NotReady { within: Duration, why: String },
    /// The agent has something else to do.
    #[error("something newer came")]
    Stopped,
}

impl Hook {
    pub fn run(&self, version: &Path) -> Result<(), HookError> {
        let program = || self.program.clone();
        let failed = |source| HookError::Start { program: program(), source };
        let guard = Guard::start().map_err(failed)?;
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .arg(version)
            .env_remove(TOKEN)
            .stdin(Stdio::null())
            .process_group(guard::joins(guard.as_ref()))
            .spawn()
            .map_err(failed)?;
        let group = guard.as_ref().map_or_else(|| Pid::from_child(&child), Guard::group);
        let ended = within(child, group, self.timeout);
        if let Some(guard) = guard {
            guard.dismiss();
        }
        match ended.map_err(failed)? {
            None => Err(HookError::TimedOut(program(), self.timeout)),
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(HookError::Failed { program: program(), status }),
        }
    }
}

/// Waits for a child; after `time` its whole process group is killed, and there is no status.
fn within(mut child: Child, group: Pid, time: Duration) -> std::io::Result<Option<ExitStatus>> {
    let (sender, receiver) = mpsc::channel();
    let waiter = std::thread::Builder::new().name("hook".to_owned());
    let waits = waiter.spawn(move || {
        // Nobody listens any more only where this thread is waited for below.
        let _ = sender.send(child.wait());
    });
    let waits = waits.inspect_err(|_| {
        // Nobody would hear of its end.
        let _ = kill_process_group(group, Signal::KILL);
    })?;
    let ended = match receiver.recv_timeout(time) {
        Ok(status) => status.map(Some),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            // It may have ended by itself in the meantime.
            let _ = kill_process_group(group, Signal::KILL);
            Ok(None)
        }
    };
    // The child has ended or is being killed: this takes no time.
    let _ = waits.join();
    ended
}
