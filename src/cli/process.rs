//! What commands do with their own process: its runtime, its limits, its settings.

use std::path::PathBuf;

use super::error::{CliError, Exit};
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

/// Lets this process open as many files as the machine allows: the 1,024 that shells give are fewer than
/// the connections and blobs of a large build.
pub fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return };
    let wanted = hard.min(OPEN_FILES);
    if soft < wanted
        && let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, wanted, hard)
    {
        tracing::warn!(%error, "no more than {soft} files can be open");
    }
}

/// Settings from `--config` (or `KILN_CONFIG`), the environment and flags.
pub fn settings(file: Option<&PathBuf>, flags: Vec<FlagValue>) -> Result<Settings, ConfigError> {
    Settings::load(file.map(PathBuf::as_path), std::env::vars(), flags)
}
