//! SLSA provenance, version 1, out of a closure.

use std::collections::BTreeSet;
use std::sync::mpsc::sync_channel;

use serde_json::{Map, Value, json};

use super::archive::Archive;
use super::beside::beside;
use super::closure::{Closure, ClosureError, Found, Limits, Root, walk};
use super::level::{Isolation, Level, SignedBy, level};
use super::list::{CLOSURE_INDEX_TYPE, ClosureEntry, ListError, ListWriter, PartSink};
use super::packages::{Package, Packages};
use super::record::Origin;
use super::revision::{Claimed, Revision};
use crate::json::{self, JsonError};
use crate::resource::{NotADigest, ResourceDescriptor};
use crate::timestamp::Timestamp;

/// The type of the predicate: SLSA provenance, version 1.
pub const SLSA_PREDICATE: &str = "https://slsa.dev/provenance/v1";
/// What a build by Kiln is; docs/releases.md says what its parameters mean.
const BUILD_TYPE: &str = "https://kiln.build/releases/build/v1";
/// Bytes of a predicate. Other tools refuse what is much larger.
pub const MAX_PREDICATE_BYTES: usize = 1 << 20;
/// Things that are named in the provenance itself; all of them are in the list.
const MAX_NAMED: usize = 100;
/// Images in which actions ran.
const MAX_IMAGES: usize = 1000;
/// Things that were found and are not in the list yet.
const MAX_WAITING: usize = 4096;

/// What was asked for, and by whom it was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildRequest {
    /// URI of the server that built it.
    pub builder: String,
    pub builder_version: String,
    pub invocation: String,
    pub instance: String,
    /// What the release is of, e.g. `//app:image`.
    pub target: String,
    /// What was built, as others say.
    pub revision: Revision,
    pub signed_by: SignedBy,
    pub started: Timestamp,
    pub finished: Timestamp,
    /// When the provenance is signed: keys are held against it.
    pub signed: Timestamp,
}

/// What is said of a build.
#[derive(Debug, Clone, PartialEq)]
pub struct Provenance {
    pub predicate: Map<String, Value>,
    pub level: Level,
    pub closure: Closure,
    /// The list's index, to be kept with the parts that the sink got.
    pub index: Vec<u8>,
    /// The digest of the index as `sha256:…`.
    pub index_digest: String,
    pub packages: Vec<Package>,
}

/// Why there is no provenance.
#[derive(Debug, thiserror::Error)]
pub enum ProvenanceError {
    #[error("the closure could not be walked")]
    Closure(#[from] ClosureError),
    #[error("the closure's list could not be written")]
    List(#[from] ListError),
    #[error("the source is not named by a commit")]
    Source(#[source] NotADigest),
    #[error("the provenance cannot be written")]
    Json(#[from] JsonError),
    #[error(
        "the provenance has {0} bytes, more than {MAX_PREDICATE_BYTES}; make several releases of it"
    )]
    TooLarge(usize),
}

/// What is counted while the closure is walked.
#[derive(Default)]
struct Seen {
    isolation: Isolation,
    packages: Packages,
    images: BTreeSet<String>,
    written: Vec<Value>,
    invocations: BTreeSet<String>,
}

impl Seen {
    fn count(&mut self, found: &Found) {
        self.isolation.count(found);
        self.packages.count(found);
        let Found::Action(record) = found else { return };
        if self.invocations.len() < MAX_NAMED {
            self.invocations.insert(record.invocation.clone());
        }
        match &record.origin {
            Origin::Ran(run) if !run.image.is_empty() && self.images.len() < MAX_IMAGES => {
                self.images.insert(run.image.clone());
            }
            Origin::Wrote(written) if self.written.len() < MAX_NAMED => {
                self.written.push(json!({"record": record.id, "by": written.by}));
            }
            Origin::Ran(_) | Origin::Wrote(_) => {}
        }
    }
}

/// Walks through the closure of `roots`, hands the parts of its list to `sink`, and says what came out.
pub fn provenance<A: Archive>(
    archive: &A,
    roots: &[Root],
    request: &BuildRequest,
    limits: Limits,
    sink: &mut PartSink<'_>,
) -> Result<Provenance, ProvenanceError> {
    if let Some(source) = &request.revision.source {
        source.what.descriptor().check().map_err(ProvenanceError::Source)?;
    }
    let mut seen = Seen::default();
    let mut list = ListWriter::new(sink);
    let closure = walk_beside(archive, roots, limits, &mut |found| {
        seen.count(found);
        list.add(&ClosureEntry::of(found))
    })?;
    seen.isolation.miss(archive.unrecorded());
    let (index, index_digest) = list.finish(&closure)?;
    let level = level(&seen.isolation, request.signed_by);
    let packages = seen.packages.finish(main_package(request));
    let predicate = predicate(request, &seen, &level, &closure, &index_digest);
    let size = json::write(&predicate)?.len();
    if size > MAX_PREDICATE_BYTES {
        return Err(ProvenanceError::TooLarge(size));
    }
    Ok(Provenance { predicate, level, closure, index, index_digest, packages })
}

/// Walks on a thread of its own and hands what is found to `take` on this one. An error of `take` ends the walk.
fn walk_beside<A: Archive>(
    archive: &A,
    roots: &[Root],
    limits: Limits,
    take: &mut dyn FnMut(&Found) -> Result<(), ListError>,
) -> Result<Closure, ClosureError> {
    let (sender, found) = sync_channel(MAX_WAITING);
    let walking = move || {
        walk(archive, roots, limits, &mut |it| {
            // Whoever takes says itself why it takes no more.
            sender.send(it).map_err(|it| ClosureError::Sink(Box::new(it)))
        })
    };
    let (walked, taken) = beside(walking, || found.into_iter().try_for_each(|it| take(&it)));
    taken.map_err(|it| ClosureError::Sink(Box::new(it)))?;
    walked
}

fn main_package(request: &BuildRequest) -> &str {
    let source = request.revision.source.as_ref();
    source.map_or(request.target.as_str(), |it| it.what.uri.as_str())
}

fn predicate(
    request: &BuildRequest,
    seen: &Seen,
    level: &Level,
    closure: &Closure,
    index: &str,
) -> Map<String, Value> {
    let definition = json!({
        "buildType": BUILD_TYPE,
        "externalParameters": external(request),
        "internalParameters": {
            "instance": request.instance,
            "signedOn": request.signed,
            "claimed": claimed(&request.revision),
            "slsa": level,
            "closure": {
                "actions": closure.actions,
                "executed": closure.actions.saturating_sub(closure.written),
            },
            "notBuiltHere": {
                "uploadedSources": closure.sources,
                "writtenResults": closure.written,
                "firstWrittenResults": seen.written,
                "missingInputs": closure.missing,
            },
            "invocations": seen.invocations,
        },
        "resolvedDependencies": dependencies(request, seen, index),
    });
    let details = json!({
        "builder": {"id": request.builder, "version": {"kiln": request.builder_version}},
        "metadata": {
            "invocationId": request.invocation,
            "startedOn": request.started,
            "finishedOn": request.finished,
        },
    });
    Map::from_iter([("buildDefinition".to_owned(), definition), ("runDetails".to_owned(), details)])
}

fn external(request: &BuildRequest) -> Value {
    let mut parameters = json!({"target": request.target});
    if let Some(source) = request.revision.source_text() {
        parameters["source"] = json!(source);
    }
    if let Some(branch) = request.revision.branch_text() {
        parameters["branch"] = json!(branch);
    }
    parameters
}

/// The claims about what Kiln did not see, with who said each.
fn claimed(revision: &Revision) -> Map<String, Value> {
    let source = revision.source.as_ref().map(|it| ("source", it.by));
    let branch = revision.branch.as_ref().map(|it| ("branch", it.by));
    let said = source.into_iter().chain(branch);
    said.map(|(what, by)| (what.to_owned(), json!(by.name()))).collect()
}

fn dependencies(request: &BuildRequest, seen: &Seen, index: &str) -> Vec<ResourceDescriptor> {
    let hex = |digest: &str| digest.strip_prefix("sha256:").unwrap_or(digest).to_owned();
    let list = ResourceDescriptor {
        media_type: CLOSURE_INDEX_TYPE.to_owned(),
        ..ResourceDescriptor::new("closure", "sha256", &hex(index))
    };
    let images = seen.images.iter().map(|image| ResourceDescriptor {
        uri: format!("oci:{image}"),
        ..ResourceDescriptor::new("image", "sha256", &hex(image))
    });
    let source = &request.revision.source;
    let source = source.as_ref().map(|Claimed { what, .. }| what.descriptor());
    source.into_iter().chain([list]).chain(images).collect()
}
