//! Sends reports to a server, which keeps them as history.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, ValueHint};
use kiln_ci::junit::{self, Limits};
use serde_json::Value;

use super::files::{is_stdin, open, shown};
use super::refused::said;
use crate::cli::api::Api;
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use crate::cli::text::{self, Look, look};
use kiln_web::format::{counted, encode};

/// Largest report, in bytes: the server takes no larger one.
const MAX_REPORT: u64 = 512 << 20;

/// What reports do not say of the run that made them.
#[derive(Debug, Args)]
pub struct Made {
    /// The commit that was tested
    #[arg(long, value_name = "SHA", required_unless_present = "dry_run", value_hint = ValueHint::Other)]
    commit: Option<String>,
    /// The branch that it is on
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Other)]
    branch: Option<String>,
    /// What the suite is called; without it, what its report calls it
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Other)]
    suite: Option<String>,
}

/// Sends one after the other, once all of them are known to be whole.
pub async fn send(
    target: &Target,
    files: &[PathBuf],
    made: &Made,
    json: bool,
) -> Result<Exit, CliError> {
    // Standard input can be read once only.
    for path in files.iter().filter(|path| !is_stdin(path)) {
        check(path, open(path)?)?;
    }
    let api = Api::new(target)?;
    for path in files {
        let bytes = load(path)?;
        if is_stdin(path) {
            check(path, bytes.as_slice())?;
        }
        let asked = made.path(&target.instance, written(path));
        let receipt = api.send(&asked, "application/xml", bytes).await?;
        match json {
            true => text::print(&format!("{}\n", with_file(receipt, &shown(path))))?,
            false => text::print(&described(&receipt, &shown(path)))?,
        }
    }
    Ok(Exit::Done)
}

impl Made {
    fn path(&self, instance: &str, at: Option<u128>) -> String {
        let commit = self.commit.as_deref().unwrap_or_default();
        let mut path = format!("/tests/import?commit={}", encode(commit, false));
        let instance = Some(instance).filter(|it| !it.is_empty());
        let at = at.map(|it| it.to_string());
        for (name, value) in [
            ("branch", self.branch.as_deref()),
            ("suite", self.suite.as_deref()),
            ("instance", instance),
            ("at", at.as_deref()),
        ] {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", encode(value, false)));
            }
        }
        path
    }
}

/// Refuses a report here that the server would refuse, before anything is sent.
fn check(path: &Path, report: impl Read) -> Result<(), CliError> {
    let read = junit::read(report, &Limits::default(), |_| ());
    read.map(drop).map_err(|refused| said(&shown(path), &refused))
}

fn load(path: &Path) -> Result<Vec<u8>, CliError> {
    let file = shown(path);
    let mut bytes = Vec::new();
    let read = open(path)?.take(MAX_REPORT + 1).read_to_end(&mut bytes);
    read.map_err(|error| CliError::usage(format!("cannot read {file}: {error}")))?;
    if bytes.len() as u64 > MAX_REPORT {
        return Err(CliError::usage(format!("{file} has more than {} MiB", MAX_REPORT >> 20))
            .hint("let the runner write a report for each part of the suite"));
    }
    Ok(bytes)
}

/// Reports of one run keep their time, so that one that is sent again later is the same. A clock that was
/// ahead makes no run of the future.
fn written(path: &Path) -> Option<u128> {
    let modified = path.metadata().ok()?.modified().ok()?.min(SystemTime::now());
    modified.duration_since(UNIX_EPOCH).ok().map(|it| it.as_millis())
}

fn with_file(mut receipt: Value, file: &str) -> Value {
    if let Some(fields) = receipt.as_object_mut() {
        fields.insert("file".to_owned(), file.into());
    }
    receipt
}

fn described(receipt: &Value, file: &str) -> String {
    let number = |name: &str| receipt[name].as_u64().unwrap_or(0);
    let word = |name: &str| receipt[name].as_str().unwrap_or_default().to_owned();
    format!(
        "{}: {} {}, {}, {} failed; it is invocation {}\n",
        look(Look::Bold, file),
        word("suite"),
        word("outcome"),
        counted(number("cases"), "case"),
        number("failed"),
        word("invocation"),
    )
}
