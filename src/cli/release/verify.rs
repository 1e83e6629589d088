//! `kiln release verify`.

use std::path::{Path, PathBuf};

use clap::Args;
use kiln_deploy::oci::DirectoryLayout;
use kiln_deploy::releases::{self, Checked, Expected, Failure, ReleaseName};
use kiln_deploy::signing::KeyRing;
use kiln_deploy::timestamp::Timestamp;
use kiln_net::causes;
use kiln_net::clock::unix_seconds;
use serde::Serialize;

use super::{fetch, keys};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use crate::cli::text::{self, Look, look};

/// Verify an exported release, or one of a server.
///
/// Of a directory it reads that and the keys, and nothing else: no network, no other file, no setting. What is named team/app:1.4 and is no
/// directory is exported from the server first, and must be the release of that name, which nobody has rejected. Every blob is
/// hashed, every layer looked through, every signature verified, and the list of the closure compared with what
/// the provenance says. The first broken link ends it, with exit code 1.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln release verify app-1.4 --key release.pub
  kiln release verify app-1.4 --key keys.json --name team/app:1.4 --level 3
  kiln release verify team/app:1.4 --key release.pub
  kiln release verify app-1.4 --key release.pub --source git+https://git.example/app --json

A policy of keys says when each is valid; docs/releases.md has the format.")]
pub struct Verify {
    /// Where the release was exported to (an OCI image layout), or its name at a server
    #[arg(value_name = "DIR|NAME")]
    directory: PathBuf,

    /// Whom to trust: a public key in PEM, or a policy of keys in JSON
    #[arg(long, value_name = "FILE")]
    key: PathBuf,

    /// The release that it must be
    #[arg(long, value_name = "NAME")]
    name: Option<ReleaseName>,

    /// The builder that must have built it
    #[arg(long, value_name = "URI")]
    builder: Option<String>,

    /// The source that it must be built from: git+URL, or git+URL@COMMIT
    #[arg(long, value_name = "URI")]
    source: Option<String>,

    /// The branch that must be named in it; the server does not see it
    #[arg(long, value_name = "NAME")]
    branch: Option<String>,

    /// The lowest SLSA build level that it must reach
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=3))]
    level: Option<u64>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The result of a verification as `--json` prints it.
#[derive(Serialize)]
struct Verdict<'a> {
    verified: bool,
    checked: &'a [Checked],
    #[serde(skip_serializing_if = "Option::is_none")]
    broken: Option<String>,
}

impl Verify {
    pub async fn run(
        mut self,
        target: impl FnOnce() -> Result<Target, CliError>,
    ) -> Result<Exit, CliError> {
        let keys = keys::ring(&self.key)?;
        let Some(name) = self.named() else {
            let directory = self.directory.clone();
            if !directory.is_dir() {
                let message = format!("there is no directory {}", directory.display());
                let hint = "name an export, or a release such as team/app:1.4";
                return Err(CliError::usage(message).hint(hint));
            }
            return self.verify(&directory, &keys, None);
        };
        let directory = tempfile::tempdir()
            .map_err(|error| CliError::machine(format!("no temporary directory: {error}")))?;
        let release = fetch::fetch(&target()?, &name, directory.path()).await?;
        let rejected = release.rejected.map(|it| format!("{} rejected it: {}", it.by, it.reason));
        self.name.get_or_insert(name);
        self.verify(directory.path(), &keys, rejected)
    }

    /// The name of a release that was given instead of a directory. A directory of that name goes
    /// before.
    fn named(&self) -> Option<ReleaseName> {
        let text = self.directory.to_str().filter(|_| !self.directory.exists())?;
        text.parse().ok()
    }

    fn verify(
        self,
        directory: &Path,
        keys: &KeyRing,
        rejected: Option<String>,
    ) -> Result<Exit, CliError> {
        let Self { name, builder, source, branch, level, json, .. } = self;
        let expected = Expected { name, builder, source, branch, level };
        let layout = DirectoryLayout::new(directory);
        match releases::verify(&layout, keys, &expected, now()) {
            Ok(checked) => {
                let exit = if rejected.is_some() { Exit::Negative } else { Exit::Done };
                show(json, &checked, rejected).map(|()| exit)
            }
            Err(Failure { checked, broken }) => {
                show(json, &checked, Some(causes::chain(&broken))).map(|()| Exit::Negative)
            }
        }
    }
}

fn show(json: bool, checked: &[Checked], broken: Option<String>) -> Result<(), CliError> {
    if json {
        return text::print_json(&Verdict { verified: broken.is_none(), checked, broken });
    }
    let line = |it: &Checked| format!("{} {:<10} {}\n", look(Look::Good, "ok"), it.what, it.detail);
    let end = match broken {
        Some(broken) => format!("{} {broken}\n", look(Look::Bad, "BROKEN")),
        None => format!("{}\n", look(Look::Good, "verified")),
    };
    text::print(&(checked.iter().map(line).collect::<String>() + &end))
}

pub fn now() -> Timestamp {
    Timestamp::from_unix(unix_seconds())
}
