//! What releases say, and what they are asked.

use kiln_deploy::catalog;
use kiln_deploy::oci::Descriptor;
use kiln_deploy::provenance::{ActionRecord, Origin};
use kiln_deploy::retention::Fate;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// `POST /api/v1/releases`, which the server signs, and `/api/v1/releases/prepare`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRequest {
    #[serde(default)]
    pub instance: String,
    /// The name of the release, such as `team/app:1.4.2`.
    pub name: String,
    pub invocation: String,
    /// The label of what is released.
    pub target: String,
    /// `git+URL@COMMIT`, or `git+URL@COMMIT?ref=refs/heads/BRANCH`; nothing: what build events say.
    #[serde(default)]
    pub source: Option<String>,
    /// The branch of the source; null: the one that build events name.
    #[serde(default)]
    pub branch: Option<String>,
    /// Outputs of the target, by their paths or the ends of these; none: all.
    #[serde(default)]
    pub outputs: Vec<String>,
    /// `any` (an image where the outputs are an image layout), `image` or `files`.
    #[serde(default)]
    pub form: ReleaseForm,
    /// The platform of packed files; `linux/amd64` where this is absent.
    #[serde(default)]
    pub platform: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ReleaseForm {
    #[default]
    Any,
    Image,
    Files,
}

/// What `POST /api/v1/releases/prepare` answers: what is to be signed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReleaseDraft {
    /// The id by which the signatures name the draft; `null`: the release is there already.
    pub draft: Option<String>,
    /// The digest of the release's manifest.
    pub digest: String,
    pub statements: Vec<ReleaseStatement>,
    /// The document of cosign's older signature of the image, in base64, which is signed behind the statements; `null`:
    /// there is none.
    #[serde(default)]
    pub image: Option<String>,
    /// The release that is there already, with the same content.
    pub existing: Option<Release>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReleaseStatement {
    pub predicate_type: String,
    /// The bytes to be signed (DSSE's pre-authentication encoding), in base64.
    pub message: String,
}

/// What `POST /api/v1/releases/sign` is given: signatures of what a draft listed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseSignatures {
    #[serde(default)]
    pub instance: String,
    pub draft: String,
    /// The public key of the signatures, in PEM.
    pub public_key: String,
    /// The signatures in base64: those of the statements in their order, then the one of the image.
    pub signatures: Vec<String>,
}

/// What `POST /api/v1/releases/reject` is given: a release that must not be used any more, and why.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseRejection {
    #[serde(default)]
    pub instance: String,
    pub name: String,
    pub reason: String,
}

/// `POST /api/v1/releases/import`: an export whose blobs are in the store already.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseImport {
    #[serde(default)]
    pub instance: String,
    /// The export's `index.json`, in base64.
    pub index: String,
    /// The key that everything must be signed with: a public key in PEM, or a policy of keys in JSON, of which it must
    /// be one.
    pub public_key: String,
}

/// What `POST /api/v1/releases/gc` is given: the instance whose old releases go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseGc {
    #[serde(default)]
    pub instance: String,
    /// Say what would be removed, and remove nothing.
    #[serde(default)]
    pub dry_run: bool,
}

/// What becomes of the releases of an instance: which ones stay, and which ones go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReleaseFates {
    /// All releases of the instance, in the order of their names.
    pub releases: Vec<ReleaseFate>,
    /// Bytes that nothing pins any more. They go when room is needed.
    pub frees: u64,
    /// Whether the releases that are to go were removed.
    pub removed: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReleaseFate {
    pub name: String,
    pub digest: String,
    pub goes: bool,
    /// Every reason for which the release stays; empty: it goes.
    pub stays: Vec<String>,
    /// Bytes that go with the release. Where several that go share some, the first counts them.
    pub frees: u64,
}

impl From<&Fate> for ReleaseFate {
    fn from(it: &Fate) -> Self {
        Self {
            name: it.release.to_string(),
            digest: it.digest.to_string(),
            goes: it.goes(),
            stays: it.stays.iter().map(ToString::to_string).collect(),
            frees: it.frees,
        }
    }
}

/// A release: its content, where that came from, and what was signed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Release {
    pub name: String,
    pub instance: String,
    pub digest: String,
    pub media_type: String,
    pub invocation: String,
    pub target: String,
    /// Commit and branch, as whoever made it said, or whoever built it: its provenance says who.
    pub source: Option<String>,
    pub branch: Option<String>,
    pub created: String,
    pub made_by: String,
    /// SLSA's build level, with what is given and what is in the way of the next.
    pub build_level: u8,
    pub because: Vec<String>,
    pub but: Vec<String>,
    pub closure: ReleaseClosure,
    /// The public key that the release was signed with, in PEM.
    pub public_key: String,
    pub rejected: Option<ReleaseRejected>,
    /// Manifests about the release: what was signed, and the list of its closure.
    pub attestations: Vec<ReleaseBlob>,
    /// Every blob that the release is made of.
    pub content: Vec<ReleaseBlob>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReleaseClosure {
    pub actions: usize,
    /// How many of the actions have results that clients wrote.
    pub written: usize,
    pub sources: usize,
    pub missing: usize,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReleaseRejected {
    pub by: String,
    pub reason: String,
    pub at: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReleaseBlob {
    pub digest: String,
    pub size: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub media_type: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub artifact_type: String,
}

/// What `GET /api/v1/releases` answers: a page of releases.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Releases {
    pub releases: Vec<Release>,
    /// The value of `after` that asks for the next page; `null` on the last one.
    pub next_after: Option<String>,
}

/// What `GET /api/v1/releases/provenance` answers: what was signed of a release's origin, and a part of its closure.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReleaseProvenance {
    pub name: String,
    pub digest: String,
    /// The predicate that was signed (SLSA, version 1).
    pub provenance: Map<String, Value>,
    /// Lines of the list of the closure.
    pub closure: Vec<Map<String, Value>>,
    /// The value of `skip` that asks for the next lines; `null` at the end.
    pub next_skip: Option<usize>,
}

/// What `GET /api/v1/releases/diff` answers: what differs between two releases.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReleaseDifference {
    pub old: String,
    pub new: String,
    /// Whether both releases have the same manifest.
    pub same_content: bool,
    /// The source of the old release, `git+URL@COMMIT`; `null`: nobody said it.
    #[serde(default)]
    pub old_source: Option<String>,
    #[serde(default)]
    pub new_source: Option<String>,
    pub sources: ReleaseChanges,
    pub actions: ReleaseChanges,
    pub images: ReleaseChanges,
    /// Other repositories that sources came from, by name; of one of another version, both are named.
    #[serde(default)]
    pub packages: ReleaseChanges,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReleaseChanges {
    pub added: usize,
    pub removed: usize,
    pub changed: usize,
    /// The first changes; `added`, `removed` and `changed` count all of them.
    pub first: Vec<ReleaseChange>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ReleaseChange {
    /// The kind of the change: `added`, `removed` or `changed`.
    pub kind: String,
    pub name: String,
    #[serde(default)]
    pub what: Vec<String>,
}

/// What `GET /api/v1/explain` answers: where some content came from, and what holds it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Explained {
    pub hash: String,
    /// Executions that left the content, the latest first; none: a client uploaded it, or it is not known any more.
    pub made: Vec<Maker>,
    /// Names of the releases that hold the content.
    pub releases: Vec<String>,
    /// Names of those of the releases that somebody rejected.
    #[serde(default)]
    pub rejected: Vec<String>,
}

/// An execution that left some content, or a result that a client wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Maker {
    pub record: String,
    /// Whether a worker of this server ran it.
    pub ran: bool,
    pub target: String,
    pub mnemonic: String,
    pub invocation: String,
    pub worker: String,
    pub action: String,
    /// The paths at which it left the content.
    pub paths: Vec<String>,
    #[serde(with = "super::time")]
    #[schemars(with = "Option<String>")]
    pub finished: i64,
    pub enforced: Vec<String>,
}

impl From<&catalog::CatalogEntry> for Release {
    fn from(it: &catalog::CatalogEntry) -> Self {
        let release = &it.release;
        let blob = |(digest, size): &(kiln_deploy::oci::ContentDigest, u64)| ReleaseBlob {
            digest: digest.to_string(),
            size: *size,
            ..ReleaseBlob::default()
        };
        let rejected = it.rejected.as_ref().map(|it| ReleaseRejected {
            by: it.by.clone(),
            reason: it.reason.clone(),
            at: it.at.to_string(),
        });
        Self {
            name: release.name.to_string(),
            instance: it.instance.clone(),
            digest: release.subject.digest.to_string(),
            media_type: release.subject.media_type.clone(),
            invocation: release.invocation.clone(),
            target: release.target.clone(),
            source: it.source.clone(),
            branch: it.branch.clone(),
            created: release.created.to_string(),
            made_by: it.made_by.clone(),
            build_level: it.level.build_level,
            because: it.level.because.clone(),
            but: it.level.but.clone(),
            closure: ReleaseClosure {
                actions: it.closure.actions,
                written: it.closure.written,
                sources: it.closure.sources,
                missing: it.closure.missing,
            },
            public_key: it.public_key.clone(),
            rejected,
            attestations: release.attestations.iter().map(ReleaseBlob::from).collect(),
            content: it.content.iter().map(blob).collect(),
        }
    }
}

impl From<&Descriptor> for ReleaseBlob {
    fn from(it: &Descriptor) -> Self {
        Self {
            digest: it.digest.to_string(),
            size: it.size,
            media_type: it.media_type.clone(),
            artifact_type: it.artifact_type.clone().unwrap_or_default(),
        }
    }
}

impl Maker {
    /// `hash`: of the content in question.
    pub fn of(record: &ActionRecord, hash: &str) -> Self {
        let (ran, worker, enforced) = match &record.origin {
            Origin::Ran(run) => {
                let enforced = run.sandbox.enforced.iter().map(|it| it.name().to_owned());
                (true, run.worker.clone(), enforced.collect())
            }
            Origin::Wrote(written) => (false, written.by.clone(), Vec::new()),
        };
        let paths = record.outputs.iter().filter(|it| it.digest.hex() == hash);
        Self {
            record: record.id.clone(),
            ran,
            target: record.target.clone(),
            mnemonic: record.mnemonic.clone(),
            invocation: record.invocation.clone(),
            worker,
            action: record.action.to_string(),
            paths: paths.map(|it| it.path.clone()).collect(),
            finished: record.finished,
            enforced,
        }
    }
}

impl ReleaseChanges {
    pub fn of(it: &kiln_deploy::provenance::Changes) -> Self {
        use kiln_deploy::provenance::ChangeKind;
        let first = it.first.iter().map(|it| ReleaseChange {
            kind: match it.kind {
                ChangeKind::Added => "added",
                ChangeKind::Removed => "removed",
                ChangeKind::Changed => "changed",
            }
            .to_owned(),
            name: it.name.clone(),
            what: it.what.iter().map(|it| (*it).to_owned()).collect(),
        });
        Self { added: it.added, removed: it.removed, changed: it.changed, first: first.collect() }
    }
}
