//! The declaration of a rollout, in its file.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use kiln_deploy::rollouts::plan::{self, Declared, MAX_BYTES};

use crate::cli::error::CliError;

/// The text of a declaration, and what it declares. An error in it is told before a server is
/// asked.
pub fn read(path: &Path) -> Result<(String, Declared), CliError> {
    let shown = path.display();
    let failed = |error| CliError::usage(format!("cannot read {shown}: {error}"));
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    // One byte more than it may have, so that what is longer is told as that.
    file.take(MAX_BYTES as u64 + 1).read_to_string(&mut text).map_err(failed)?;
    let declared = plan::read(&text).map_err(|error| {
        CliError::usage(format!("{shown}: {error}"))
            .hint("docs/rollouts.md has every key of a declaration")
    })?;
    Ok((text, declared))
}
