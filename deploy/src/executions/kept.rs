//! Events and what is kept of them; what is kept and the records that provenance is walked over.

use std::collections::BTreeSet;

use kiln_cas::{Digest, DigestFunction};
use kiln_protos::events::{self, Execution, execution};
use kiln_protos::executions::Kept;
use kiln_protos::reapi::{self, ActionResult};
use kiln_protos::worker::sandboxed::{self, Root};
use kiln_protos::worker::{SANDBOXED, Sandboxed};
use prost::Message;

use super::keys::{Hash, RecordId};
use crate::provenance::{
    ActionRecord, Mechanism, Origin, Output, RootFileSystem, Run, Sandbox, Written,
};

/// Bytes of each text.
const MAX_TEXT: usize = 1_000;
const MAX_PROPERTIES: usize = 64;
/// Bytes of the outputs that are kept with their paths, as they are about: a record is bounded.
const MAX_OUTPUT_BYTES: usize = 300 << 10;
/// What an output takes up beside its path.
const OUTPUT_BYTES: usize = 120;
/// For how many others a result counts for each so many bytes of it, and one that left directories.
const WEIGHT: usize = 1 << 10;
const WITH_DIRECTORIES: usize = 60;
/// Hashes of what else an action left.
pub const MAX_MORE: usize = 18_000;
/// What is said of whoever wrote a result: the action cache does not know it.
const SOMEBODY: &str = "a client that writes results, or a build whose records were not written";

/// How an invocation came to a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum How {
    Ran,
    Merged,
    Hit,
}

/// A result that somebody was given, and what is kept of how it was made.
pub struct Seen {
    pub id: RecordId,
    pub how: How,
    pub kept: Kept,
    /// Directories that it left, by their `Tree`; what is in them is to be read.
    pub trees: Vec<Digest>,
    /// Its record is there and used today: of how it was made nothing is in `kept`.
    pub is_known: bool,
}

impl Seen {
    /// For how many small ones it counts where several are written together.
    pub fn weight(&self) -> usize {
        let directories = if self.trees.is_empty() { 0 } else { WITH_DIRECTORIES };
        1 + directories + self.kept.encoded_len() / WEIGHT
    }
}

/// What is kept of the end of a request; `None`: there is no result. `is_known` says of a result whether its record is
/// there and used today: of who was given it once more only that is kept.
pub fn seen(event: &Execution, is_known: impl FnOnce(RecordId) -> bool) -> Option<Seen> {
    let function = DigestFunction::from_wire(event.digest_function).ok()?;
    let action = digest(event.action.as_ref()?, function)?;
    let how = match event.origin() {
        execution::Origin::Executed => How::Ran,
        execution::Origin::Merged => How::Merged,
        execution::Origin::CacheHit => How::Hit,
        execution::Origin::Unspecified => return None,
    };
    if event.action_result.is_empty() {
        return None;
    }
    let id = RecordId::of(&event.instance_name, &action, &event.action_result);
    if how != How::Ran && is_known(id) {
        let kept = Kept { execution: Some(given(event)), ..Kept::default() };
        return Some(Seen { id, how, kept, trees: Vec::new(), is_known: true });
    }
    let result = ActionResult::decode(event.action_result.clone()).ok()?;
    let wire = |it: &reapi::Digest| Digest::from_wire(it, function).ok();
    let directories =
        result.output_directories.iter().filter_map(|it| wire(it.tree_digest.as_ref()?));
    let trees = directories.collect();
    let mut kept = Kept { written: how == How::Hit, ..Kept::default() };
    let beyond = bounded(event, result, &mut kept);
    add(&mut kept, beyond.iter().filter_map(|it| wire(it.digest.as_ref()?)));
    Some(Seen { id, how, kept, trees, is_known: false })
}

/// Adds contents that the action left beside the outputs that are kept with their paths.
pub fn add(kept: &mut Kept, contents: impl Iterator<Item = Digest>) {
    for content in contents {
        match kept.more.len() < MAX_MORE {
            true => kept.more.push(content.hash.to_vec().into()),
            false => kept.left_out = kept.left_out.saturating_add(1),
        }
    }
}

/// The hashes of everything that it left, each once.
pub fn hashes(kept: &Kept) -> BTreeSet<Hash> {
    let Some(function) = function(kept) else { return BTreeSet::new() };
    let outputs = outputs(&result(kept), function).into_iter().map(|it| (function, it.digest.hash));
    let more =
        kept.more.iter().filter_map(|it| Some((function, <[u8; 32]>::try_from(&**it).ok()?)));
    outputs.chain(more).collect()
}

fn digest(wire: &events::Digest, function: DigestFunction) -> Option<Digest> {
    let size = u64::try_from(wire.size_bytes).ok()?;
    Digest::from_hex(wire.hash.as_bytes(), size, function).ok()
}

/// Everything from outside cut to its bound, and without what a client prints. Returns the files beyond.
fn bounded(event: &Execution, result: ActionResult, kept: &mut Kept) -> Vec<reapi::OutputFile> {
    let mut room = MAX_OUTPUT_BYTES;
    let mut fits = |path: &str| {
        let size = path.len().min(MAX_TEXT) + OUTPUT_BYTES;
        let fits = size <= room;
        room = room.saturating_sub(size);
        fits
    };
    let directory = |it: reapi::OutputDirectory| reapi::OutputDirectory {
        path: cut(&it.path),
        tree_digest: it.tree_digest,
        root_directory_digest: it.root_directory_digest,
        ..Default::default()
    };
    let file = |it: reapi::OutputFile| reapi::OutputFile {
        path: cut(&it.path),
        digest: it.digest,
        is_executable: it.is_executable,
        ..Default::default()
    };
    let link = |it: reapi::OutputSymlink| reapi::OutputSymlink {
        path: it.path,
        target: it.target,
        ..Default::default()
    };
    // What is cut short leads elsewhere.
    let is_short = |it: &reapi::OutputSymlink| it.path.len().max(it.target.len()) <= MAX_TEXT;
    let links = result.output_symlinks.into_iter().filter(is_short);
    let links = links.filter(|it| fits(&format!("{}{}", it.path, it.target))).map(link).collect();
    let directories = result.output_directories.into_iter().filter(|it| fits(&it.path));
    let directories = directories.map(directory).collect();
    let (files, beyond): (Vec<_>, Vec<_>) =
        result.output_files.into_iter().map(file).partition(|it| fits(&it.path));
    let mut told = result.execution_metadata.unwrap_or_default().auxiliary_metadata;
    told.retain(|it| it.type_url == SANDBOXED && it.value.len() <= MAX_TEXT);
    told.truncate(1);
    let metadata = reapi::ExecutedActionMetadata { auxiliary_metadata: told, ..Default::default() };
    let result = ActionResult {
        output_directories: directories,
        output_files: files,
        output_symlinks: links,
        execution_metadata: Some(metadata),
        ..Default::default()
    };
    kept.execution = Some(execution(event, &result));
    beyond
}

/// To whom a result was given.
fn given(event: &Execution) -> Execution {
    Execution {
        instance_name: cut(&event.instance_name),
        invocation_id: cut(&event.invocation_id),
        target_id: cut(&event.target_id),
        ..Default::default()
    }
}

fn execution(event: &Execution, result: &ActionResult) -> Execution {
    let property =
        |it: &events::Property| events::Property { name: cut(&it.name), value: cut(&it.value) };
    Execution {
        id: cut(&event.id),
        instance_name: cut(&event.instance_name),
        digest_function: event.digest_function,
        action: event.action.clone(),
        command: event.command.clone(),
        input_root: event.input_root.clone(),
        invocation_id: cut(&event.invocation_id),
        target_id: cut(&event.target_id),
        mnemonic: cut(&event.mnemonic),
        configuration_id: cut(&event.configuration_id),
        worker: cut(&event.worker),
        exit_code: event.exit_code,
        timeline: event.timeline,
        action_result: result.encode_to_vec().into(),
        do_not_cache: event.do_not_cache,
        platform: event.platform.iter().take(MAX_PROPERTIES).map(property).collect(),
        ..Default::default()
    }
}

fn cut(text: &str) -> String {
    text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or_default().to_owned()
}

/// The result that is kept, with its outputs.
pub fn result(kept: &Kept) -> ActionResult {
    let bytes = kept.execution.as_ref().map(|it| it.action_result.clone()).unwrap_or_default();
    ActionResult::decode(bytes).unwrap_or_default()
}

/// The hash function of everything that a record names.
pub fn function(kept: &Kept) -> Option<DigestFunction> {
    DigestFunction::from_wire(kept.execution.as_ref()?.digest_function).ok()
}

/// The record as provenance knows it; `None`: what is kept is not whole.
pub fn record(id: RecordId, kept: &Kept) -> Option<ActionRecord> {
    let it = kept.execution.as_ref()?;
    let function = function(kept)?;
    let result = result(kept);
    let timeline = it.timeline.unwrap_or_default();
    let origin = if kept.written {
        Origin::Wrote(Written { by: SOMEBODY.to_owned() })
    } else {
        Origin::Ran(Box::new(Run {
            command: digest(it.command.as_ref()?, function)?,
            input_root: digest(it.input_root.as_ref()?, function)?,
            worker: it.worker.clone(),
            image: image(&result),
            platform: it.platform.iter().map(|it| (it.name.clone(), it.value.clone())).collect(),
            sandbox: sandbox(&result),
            exit_code: it.exit_code,
        }))
    };
    Some(ActionRecord {
        id: id.to_string(),
        instance: it.instance_name.clone(),
        invocation: it.invocation_id.clone(),
        target: it.target_id.clone(),
        mnemonic: it.mnemonic.clone(),
        configuration: it.configuration_id.clone(),
        action: digest(it.action.as_ref()?, function)?,
        outputs: outputs(&result, function),
        origin,
        started: if timeline.leased > 0 { timeline.leased } else { timeline.received },
        finished: timeline.finished,
    })
}

fn outputs(result: &ActionResult, function: DigestFunction) -> Vec<Output> {
    let output = |path: &str, digest: Option<&reapi::Digest>, is_tree| {
        let digest = Digest::from_wire(digest?, function).ok()?;
        Some(Output { path: path.to_owned(), digest, is_tree })
    };
    let files =
        result.output_files.iter().filter_map(|it| output(&it.path, it.digest.as_ref(), false));
    let trees = result.output_directories.iter().filter_map(|it| {
        output(&it.path, it.root_directory_digest.as_ref().or(it.tree_digest.as_ref()), true)
    });
    files.chain(trees).collect()
}

fn told(result: &ActionResult) -> Option<Sandboxed> {
    let metadata = result.execution_metadata.as_ref()?;
    let told = metadata.auxiliary_metadata.iter().find(|it| it.type_url == SANDBOXED)?;
    Sandboxed::decode(told.value.as_slice()).ok()
}

fn image(result: &ActionResult) -> String {
    let image = told(result).map(|it| it.image).filter(|it| crate::encoding::is_hex(it, 64));
    image.map_or_else(String::new, |it| format!("sha256:{it}"))
}

/// What a worker does not say is taken for the worst.
fn sandbox(result: &ActionResult) -> Sandbox {
    let told = told(result).unwrap_or_default();
    let root = match told.root() {
        Root::Inputs => RootFileSystem::Inputs,
        Root::Image => RootFileSystem::Image,
        Root::Host | Root::Unspecified => RootFileSystem::Host,
    };
    Sandbox { root, enforced: told.enforced().filter_map(mechanism).collect() }
}

fn mechanism(wire: sandboxed::Mechanism) -> Option<Mechanism> {
    Some(match wire {
        sandboxed::Mechanism::Unspecified => return None,
        sandboxed::Mechanism::Processes => Mechanism::Processes,
        sandboxed::Mechanism::Mounts => Mechanism::Mounts,
        sandboxed::Mechanism::NoNetwork => Mechanism::NoNetwork,
        sandboxed::Mechanism::User => Mechanism::User,
        sandboxed::Mechanism::SystemCalls => Mechanism::SystemCalls,
        sandboxed::Mechanism::Memory => Mechanism::Memory,
        sandboxed::Mechanism::ProcessCount => Mechanism::ProcessCount,
        sandboxed::Mechanism::Cpu => Mechanism::Cpu,
    })
}
