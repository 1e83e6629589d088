//! Says which SLSA build level is reached, and what hinders the next one.

use kiln_net::counts::counted;
use serde::{Deserialize, Serialize};

use super::closure::Found;
use super::record::{Origin, RootFileSystem};

/// Who has the key that provenance is signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignedBy {
    /// The server, out of reach of those who build.
    Server,
    /// Whoever asked for the release.
    Client,
}

/// A level of SLSA's build track (version 1.0), with the reason for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Level {
    pub build_level: u8,
    /// What speaks for the level, in sentences.
    pub because: Vec<String>,
    /// What is in the way of the next level.
    pub but: Vec<String>,
}

/// Ends of what Bazel itself writes where it keeps what it builds, whatever rules say, and uploads: command lines, module maps,
/// which runfiles there are, its status. What rules have it write (`ctx.actions.write`) is not told from what a program
/// made on the client's machine.
const WRITTEN_BY_BAZEL: [&str; 8] = [
    ".params",
    ".cppmap",
    ".runfiles/MANIFEST",
    ".runfiles_manifest",
    ".repo_mapping",
    "/_repo_mapping",
    "/stable-status.txt",
    "/volatile-status.txt",
];
/// Names of what was made elsewhere that are told.
const MAX_NAMED: usize = 3;

/// Whether something lies where a build tool keeps what it built, and is none of what it writes there itself: then it was
/// made, and not here. What is empty has nothing in it that anybody could have made.
fn is_made(path: &str, size: u64) -> bool {
    let by_bazel = || WRITTEN_BY_BAZEL.iter().any(|end| path.ends_with(end));
    let is_output =
        path.starts_with("buck-out/") || (path.starts_with("bazel-out/") && !by_bazel());
    is_output && size > 0
}

/// What of the closure decides about the level, counted while it is walked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Isolation {
    ran: usize,
    written: usize,
    not_isolated: usize,
    host: usize,
    missing: usize,
    unrecorded: usize,
    elsewhere: usize,
    first_elsewhere: Vec<String>,
}

impl Isolation {
    /// Notes that so many executions are known to be recorded nowhere.
    pub fn miss(&mut self, unrecorded: u64) {
        self.unrecorded = usize::try_from(unrecorded).unwrap_or(usize::MAX);
    }

    pub fn count(&mut self, found: &Found) {
        match found {
            Found::Source { path, digest } if is_made(path, digest.size) => {
                self.elsewhere += 1;
                if self.first_elsewhere.len() < MAX_NAMED {
                    self.first_elsewhere.push(path.clone());
                }
            }
            Found::Source { .. } => {}
            Found::Missing { .. } => self.missing += 1,
            Found::Action(record) => match &record.origin {
                Origin::Wrote(_) => self.written += 1,
                Origin::Ran(run) => {
                    self.ran += 1;
                    self.not_isolated += usize::from(run.sandbox.missing().next().is_some());
                    self.host += usize::from(run.sandbox.root == RootFileSystem::Host);
                }
            },
        }
    }
}

/// The level that a closure reaches.
pub fn level(closure: &Isolation, signed_by: SignedBy) -> Level {
    let mut because = vec![format!(
        "the provenance is derived from the records of {}",
        counted(closure.ran, "execution")
    )];
    let mut but = Vec::new();
    if closure.ran == 0 {
        but.push("nothing of it was built here".to_owned());
        return Level { build_level: 0, because: Vec::new(), but };
    }
    match signed_by {
        SignedBy::Server => {
            because.push("the server that ran the build wrote and signed it".to_owned());
        }
        SignedBy::Client => {
            but.push("it is signed with a key that the server alone does not hold".to_owned());
        }
    }
    let hosted = but.is_empty();
    but.extend(hindrances(closure));
    let build_level = match (hosted, but.is_empty()) {
        (false, _) => 1,
        (true, false) => 2,
        (true, true) => {
            because.push("each action ran by itself, in a sandbox without a network".to_owned());
            3
        }
    };
    if closure.host > 0 {
        because.push(format!(
            "{} saw programs of the worker's machine that no digest names",
            counted(closure.host, "action")
        ));
    }
    Level { build_level, because, but }
}

fn hindrances(closure: &Isolation) -> impl Iterator<Item = String> {
    let elsewhere =
        format!("made somewhere else and uploaded, such as {}", closure.first_elsewhere.join(", "));
    let hindrance = |count: usize, [one, many]: [&str; 2], what: &str| {
        (count > 0).then(|| format!("{count} {} {what}", if count == 1 { one } else { many }))
    };
    let directory = ["directory of inputs is", "directories of inputs are"];
    [
        hindrance(
            closure.written,
            ["result was", "results were"],
            "written by a client and not built here",
        ),
        hindrance(closure.not_isolated, ["action ran", "actions ran"], "without full isolation"),
        hindrance(closure.missing, directory, "not in the store any more"),
        hindrance(closure.elsewhere, ["input was", "inputs were"], &elsewhere),
        hindrance(
            closure.unrecorded,
            ["execution of that time was", "executions of that time were"],
            "not recorded",
        ),
    ]
    .into_iter()
    .flatten()
}
