//! Sets up the process that a command runs in: its runtime, its limits, its settings.

use std::path::PathBuf;

use super::error::{CliError, Exit};
use super::say::say;
use crate::config::{ConfigError, FlagValue, Settings};

/// Runs a client command on this thread.
pub fn block_on(command: impl Future<Output = Result<Exit, CliError>>) -> Result<Exit, CliError> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::machine(format!("cannot start: {error}")))?;
    runtime.block_on(command)
}

/// Descriptors that a server or a worker asks for at most.
const OPEN_FILES: u64 = 1 << 20;

/// Lets this process have what the machine allows and shells do not give: 1,024 open files are fewer than the
/// connections and blobs of a large build, and a limit of a file's size is met by any large blob.
pub fn raise_limits() {
    use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
    for (resource, most, what) in [
        (Resource::RLIMIT_NOFILE, OPEN_FILES, "open files"),
        (Resource::RLIMIT_FSIZE, RLIM_INFINITY, "the size of a file"),
    ] {
        let Ok((soft, hard)) = getrlimit(resource) else { continue };
        let wanted = hard.min(most);
        if soft < wanted
            && let Err(error) = setrlimit(resource, wanted, hard)
        {
            tracing::warn!(%error, "the limit of {what} stays at {soft}");
        }
    }
}

/// Settings from `--config` (or `KILN_CONFIG`), the environment and flags.
pub fn settings(file: Option<&PathBuf>, flags: Vec<FlagValue>) -> Result<Settings, ConfigError> {
    let settings = Settings::load(file.map(PathBuf::as_path), std::env::vars(), flags)?;
    for remark in settings.remarks() {
        say(&format!("warning: {remark}"));
    }
    Ok(settings)
}
