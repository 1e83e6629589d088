//! `kiln release verify`.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;
use kiln_deploy::oci::DirectoryLayout;
use kiln_deploy::releases::{self, Checked, Expected, Failure, ReleaseName};
use kiln_deploy::signing::KeyRing;
use kiln_deploy::timestamp::Timestamp;
use kiln_net::causes;
use serde::Serialize;

use crate::cli::error::{CliError, Exit};
use crate::cli::text::{self, Look, look};

/// Bytes of a key, or of a policy of keys.
const MAX_KEY_BYTES: u64 = 1 << 20;

/// Verify an exported release.
///
/// Reads the directory and the keys, and nothing else: no network, no other file, no setting. Every blob is
/// hashed, every layer looked through, every signature verified, and the list of the closure compared with what
/// the provenance says. The first broken link ends it, with exit code 1.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln release verify app-1.4 --key release.pub
  kiln release verify app-1.4 --key keys.json --name team/app:1.4 --level 3
  kiln release verify app-1.4 --key release.pub --source git+https://git.example/app --json

A policy of keys says when each is valid; docs/releases.md has the format.")]
pub struct Verify {
    /// Where the release was exported to: an OCI image layout
    #[arg(value_name = "DIR")]
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

    /// The lowest SLSA build level that it must reach
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(0..=3))]
    level: Option<u64>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What is printed for programs.
#[derive(Serialize)]
struct Verdict<'a> {
    verified: bool,
    checked: &'a [Checked],
    #[serde(skip_serializing_if = "Option::is_none")]
    broken: Option<String>,
}

impl Verify {
    pub fn run(self) -> Result<Exit, CliError> {
        let keys = read_keys(&self.key)?;
        let Self { directory, name, builder, source, level, json, .. } = self;
        let expected = Expected { name, builder, source, level };
        let layout = DirectoryLayout::new(directory);
        match releases::verify(&layout, &keys, &expected, now()) {
            Ok(checked) => show(json, &checked, None).map(|()| Exit::Done),
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

fn read_keys(path: &Path) -> Result<KeyRing, CliError> {
    let shown = path.display().to_string();
    let failed = |error| CliError::usage(format!("cannot read {shown}: {error}"));
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(MAX_KEY_BYTES).read_to_string(&mut text).map_err(failed)?;
    KeyRing::read(&shown, &text).map_err(|error| CliError::usage(causes::chain(&error)))
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}
