//! A release up to its signatures: content, closure, provenance, bills of materials. It blocks, on a thread of its own.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::blocking::Blocking;
use super::content::{Content, Form, content};
use super::entry::{Counts, Draft, Unsigned};
use super::error::CatalogError;
use super::held::{self, MAX_HELD};
use super::layers::KnownLayers;
use super::outputs::Outputs;
use crate::executions::RecordArchive;
use crate::json;
use crate::oci::{ContentDigest, Descriptor, EMPTY_CONFIG, EMPTY_TYPE};
use crate::provenance::{
    BuildRequest, CLOSURE_INDEX_TYPE, CLOSURE_PART_TYPE, Describes, Limits, ListError, Package,
    Part, Provenance, Revision, Root, SLSA_PREDICATE, SignedBy, cyclonedx, provenance, read_index,
    spdx,
};
use crate::releases::{
    CYCLONEDX_PREDICATE, Release, ReleaseName, SPDX_PREDICATE, closure_manifest,
};
use crate::resource::ResourceDescriptor;
use crate::signing::{COSIGN_SIGN_PREDICATE, Statement};
use crate::timestamp::Timestamp;

/// Blobs of one release: its record names them all.
pub const MAX_BLOBS: usize = 6_000;
const STATEMENT_TYPE: &str = "application/vnd.in-toto+json";
/// How long signatures are waited for.
const PATIENCE: i64 = 3_600;

/// What a release is to be made of.
#[derive(Debug, Clone)]
pub struct Plan {
    pub name: ReleaseName,
    pub instance: String,
    pub invocation: String,
    pub target: String,
    pub revision: Revision,
    pub form: Form,
    /// Operating system and architecture of packed files.
    pub platform: (String, String),
    pub signed_by: SignedBy,
    pub builder: String,
    pub version: String,
    pub now: Timestamp,
}

/// What is claimed: a type, and what it says.
type Claim = (&'static str, Map<String, Value>);

struct Preparing<'a> {
    store: &'a Blocking,
    plan: &'a Plan,
    /// Everything that was put, or was there.
    kept: Vec<(ContentDigest, u64)>,
}

pub fn prepare(
    store: &Blocking,
    known: &KnownLayers,
    archive: &RecordArchive,
    plan: &Plan,
    outputs: &Outputs,
) -> Result<Draft, CatalogError> {
    let (os, architecture) = (&plan.platform.0, &plan.platform.1);
    let content = content(store, known, outputs, plan.form, (os, architecture))?;
    let mut preparing = Preparing { store, plan, kept: Vec::new() };
    preparing.kept.extend(content.blobs.iter().map(|it| (it.digest.clone(), it.size)));
    let made = preparing.provenance(archive, outputs)?;
    let closure = preparing.closure(&made, &content)?;
    let statements = preparing.statements(&made, &content, outputs)?;
    preparing.draft(&content, made, closure, statements, outputs)
}

impl Preparing<'_> {
    fn put(&mut self, media_type: &str, data: Vec<u8>) -> Result<Descriptor, CatalogError> {
        let descriptor = self.store.put(media_type, data)?;
        self.kept.push((descriptor.digest.clone(), descriptor.size));
        Ok(descriptor)
    }

    fn provenance(
        &mut self,
        archive: &RecordArchive,
        outputs: &Outputs,
    ) -> Result<Provenance, CatalogError> {
        let moment = |it: i64| Timestamp::from_unix(it.div_euclid(1_000_000_000));
        let plan = self.plan;
        let request = BuildRequest {
            builder: plan.builder.clone(),
            builder_version: plan.version.clone(),
            invocation: plan.invocation.clone(),
            instance: plan.instance.clone(),
            target: plan.target.clone(),
            revision: plan.revision.clone(),
            signed_by: plan.signed_by,
            started: moment(outputs.started),
            finished: moment(outputs.finished),
            signed: plan.now,
        };
        let root = |it: &super::OutputFile| Root { path: it.path.clone(), digest: it.digest };
        let roots: Vec<_> = outputs.files.iter().map(root).collect();
        let (store, kept) = (self.store, &mut self.kept);
        let mut sink = |_: &str, data: Vec<u8>| {
            let put = store.put(CLOSURE_PART_TYPE, data);
            let part = put.map_err(|it| ListError::Sink(Box::new(it)))?;
            kept.push((part.digest, part.size));
            Ok(())
        };
        Ok(provenance(archive, &roots, &request, Limits::default(), &mut sink)?)
    }

    fn closure(
        &mut self,
        made: &Provenance,
        content: &Content,
    ) -> Result<Descriptor, CatalogError> {
        self.put(CLOSURE_INDEX_TYPE, made.index.clone())?;
        self.put(EMPTY_TYPE, EMPTY_CONFIG.to_vec())?;
        let list = |it| CatalogError::Provenance(crate::provenance::ProvenanceError::List(it));
        let parts: Vec<Part> = read_index(&made.index).map_err(list)?.parts;
        let unreadable = || list(ListError::Counts);
        let (descriptor, manifest) =
            closure_manifest(&made.index, &parts, &content.subject)?.ok_or_else(unreadable)?;
        self.put(&descriptor.media_type, manifest)?;
        Ok(descriptor)
    }

    fn statements(
        &mut self,
        made: &Provenance,
        content: &Content,
        outputs: &Outputs,
    ) -> Result<Vec<Unsigned>, CatalogError> {
        let bills = self.bills(&made.packages, content, outputs)?;
        let claims = [(SLSA_PREDICATE, made.predicate.clone())].into_iter().chain(bills);
        let claims = claims.chain([(COSIGN_SIGN_PREDICATE, Map::new())]);
        let name = self.plan.name.to_string();
        let mut statements = Vec::new();
        for (kind, claim) in claims {
            let subject = ResourceDescriptor::new(&name, "sha256", content.subject.digest.hex());
            let payload = Statement::new(vec![subject], kind, claim)?.write()?;
            // It is in its bundle as well once it is signed: it need not stay.
            let payload = self.store.put(STATEMENT_TYPE, payload)?;
            statements.push(Unsigned { predicate_type: kind.to_owned(), payload });
        }
        Ok(statements)
    }

    fn bills(
        &self,
        packages: &[Package],
        content: &Content,
        outputs: &Outputs,
    ) -> Result<[Claim; 2], CatalogError> {
        let tool = format!("kiln-{}", self.plan.version);
        let describes = Describes {
            name: self.plan.name.repository.as_str(),
            sha256: content.subject.digest.hex(),
            created: Timestamp::from_unix(outputs.finished.div_euclid(1_000_000_000)),
            tool: &tool,
        };
        let read = |data: Vec<u8>| json::read(&data, data.len());
        Ok([
            (SPDX_PREDICATE, read(spdx(&describes, packages)?)?),
            (CYCLONEDX_PREDICATE, read(cyclonedx(&describes, packages)?)?),
        ])
    }

    fn draft(
        self,
        content: &Content,
        made: Provenance,
        closure: Descriptor,
        statements: Vec<Unsigned>,
        outputs: &Outputs,
    ) -> Result<Draft, CatalogError> {
        let mut kept = self.kept;
        kept.sort();
        kept.dedup();
        if kept.len() > MAX_BLOBS {
            return Err(CatalogError::TooMany(MAX_BLOBS));
        }
        let counts = Counts {
            actions: made.closure.actions,
            written: made.closure.written,
            sources: made.closure.sources,
            missing: made.closure.missing,
        };
        let plan = self.plan;
        let files = outputs.files.iter().map(|it| it.digest.hex());
        let in_layers = match content.form {
            Form::Image => held::files(self.store, content.blobs.iter()),
            Form::Any | Form::Files => BTreeSet::new(),
        };
        let mut holds: Vec<_> = files.chain(in_layers).collect();
        holds.sort();
        holds.dedup();
        holds.truncate(MAX_HELD);
        Ok(Draft {
            id: format!("{:016x}{:016x}", fastrand::u64(..), fastrand::u64(..)),
            release: Release {
                name: plan.name.clone(),
                subject: content.subject.clone(),
                attestations: vec![closure],
                invocation: plan.invocation.clone(),
                target: plan.target.clone(),
                created: plan.now,
            },
            instance: plan.instance.clone(),
            source: plan.revision.source_text(),
            branch: plan.revision.branch_text().map(str::to_owned),
            level: made.level,
            closure: counts,
            statements,
            content: kept,
            holds,
            until: plan.now.plus(PATIENCE),
        })
    }
}
