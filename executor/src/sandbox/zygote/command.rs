//! The action's program: finding it, starting it, and saying why that failed as a shell would.

use std::ffi::{CString, NulError};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::unistd::execve;

use crate::sandbox::CommandSpec;

/// The directories in which a program without a slash in its name is sought when the environment
/// has no PATH.
const DEFAULT_PATH: &[u8] = b"/bin:/usr/bin";
/// The shell that runs files which are executable but have no header saying by what, as with
/// `execvp`.
const SHELL: &std::ffi::CStr = c"/bin/sh";

/// A shell's codes for a program that was not found and for one that cannot be run.
const NOT_FOUND: i32 = 127;
const NOT_RUNNABLE: i32 = 126;

#[derive(Debug)]
pub(super) struct Command {
    arguments: Vec<CString>,
    environment: Vec<CString>,
    /// The paths at which the program may be, in the order in which they are tried.
    candidates: Vec<CString>,
}

/// Why an action never began, by its own fault. `message` is for its stderr, `code` its exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NotStarted {
    pub message: String,
    pub code: i32,
}

impl Command {
    pub(super) fn new(spec: &CommandSpec) -> Result<Self, NotStarted> {
        let Some(program) = spec.arguments.first().filter(|program| !program.is_empty()) else {
            return Err(NotStarted {
                message: "kiln: the command has no program\n".to_owned(),
                code: NOT_FOUND,
            });
        };
        let build = || -> Result<Self, NulError> {
            let arguments = spec
                .arguments
                .iter()
                .map(|text| CString::new(text.as_slice()))
                .collect::<Result<_, _>>()?;
            let join = |(name, value): &(Vec<u8>, Vec<u8>)| {
                CString::new([name.as_slice(), b"=", value].concat())
            };
            let environment = spec.environment.iter().map(join).collect::<Result<_, _>>()?;
            let candidates = candidates(program, spec)
                .into_iter()
                .map(CString::new)
                .collect::<Result<_, _>>()?;
            Ok(Self { arguments, environment, candidates })
        };
        build().map_err(|_| NotStarted {
            message: "kiln: an argument or environment variable contains a NUL byte\n".to_owned(),
            code: NOT_RUNNABLE,
        })
    }

    /// Becomes the program. Returns only if that failed.
    pub(super) fn exec(&self) -> Errno {
        let mut refused = None;
        for candidate in &self.candidates {
            match execve(candidate, &self.arguments, &self.environment) {
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(Errno::EACCES) => refused = Some(Errno::EACCES),
                Err(Errno::ENOEXEC) => return self.exec_by_shell(candidate),
                Err(error) => return error,
                Ok(never) => match never {},
            }
        }
        refused.unwrap_or(Errno::ENOENT)
    }

    fn exec_by_shell(&self, script: &CString) -> Errno {
        let mut arguments = vec![SHELL.to_owned(), script.clone()];
        arguments.extend(self.arguments.iter().skip(1).cloned());
        match execve(SHELL, &arguments, &self.environment) {
            Err(Errno::ENOENT) => Errno::ENOEXEC,
            Err(error) => error,
            Ok(never) => match never {},
        }
    }

    /// Says why the program could not be run. To be called where it would have run, since this
    /// looks at its file.
    pub(super) fn explain(&self, error: Errno) -> NotStarted {
        let name = self.arguments.first().map(|name| name.to_string_lossy()).unwrap_or_default();
        let exists =
            |path: &CString| Path::new(std::ffi::OsStr::from_bytes(path.to_bytes())).exists();
        let why = match error {
            Errno::ENOENT if self.candidates.iter().any(exists) => "its interpreter was not found",
            other => other.desc(),
        };
        let code = if error == Errno::ENOENT { NOT_FOUND } else { NOT_RUNNABLE };
        NotStarted { message: format!("kiln: cannot run {name}: {why}\n"), code }
    }
}

pub(super) fn no_room() -> NotStarted {
    let message = "kiln: the inputs that the action may change, or the directories of its outputs, are more than it may write\n";
    NotStarted { message: message.to_owned(), code: NOT_RUNNABLE }
}

pub(super) fn no_memory() -> NotStarted {
    let message = "kiln: the memory that the action may use does not suffice to start it\n";
    NotStarted { message: message.to_owned(), code: NOT_RUNNABLE }
}

pub(super) fn unfit_root(name: &str) -> NotStarted {
    let message = format!(
        "kiln: the input root cannot be the root file system: its {name:?} is not a directory\n"
    );
    NotStarted { message, code: NOT_FOUND }
}

pub(super) fn no_working_directory(directory: &str, error: Errno) -> NotStarted {
    let message =
        format!("kiln: cannot enter the working directory {directory:?}: {}\n", error.desc());
    NotStarted { message, code: NOT_FOUND }
}

fn candidates(program: &[u8], spec: &CommandSpec) -> Vec<Vec<u8>> {
    if program.contains(&b'/') {
        return vec![program.to_vec()];
    }
    let path = spec
        .environment
        .iter()
        .find(|(name, _)| name == b"PATH")
        .map_or(DEFAULT_PATH, |(_, value)| value);
    let within = |directory: &[u8]| {
        let directory = if directory.is_empty() { b"." } else { directory };
        [directory, b"/", program].concat()
    };
    path.split(|byte| *byte == b':').map(within).collect()
}
