//! The hermeticity check of one execution: run it again under other conditions, and when something differs find
//! out which of them it was.

use kiln_cas::{BlobStore, Digest, DigestFunction, StoreError};
use kiln_protos::events::{self, Execution};
use kiln_protos::hermeticity::difference::Kind;
use kiln_protos::hermeticity::{Checked, Condition, Difference, Verdict};
use kiln_protos::reapi::{ActionResult, Tree};
use prost::Message;

use super::content::{AFTER, BEFORE, Finder, Place, Window, hints};
use super::outputs::{Made, Outputs, differences, outputs, within};
use super::rerun::{CONDITIONS, Ran, rerun};
use crate::job::unix_nanos;
use crate::journal::action_of;
use crate::shared::Core;

/// Differences of one action that are told one by one.
const MAX_DIFFERENCES: usize = 20;
/// Bytes of each content that are compared, at most; they are read in pieces.
const MAX_COMPARED: u64 = 64 << 20;
const PIECE: u64 = 1 << 20;
/// Largest `Tree` that is looked into.
const MAX_TREE: u64 = 8 << 20;

/// The hermeticity check of `execution`, which is comparable.
pub async fn examine(core: &Core, execution: &Execution) -> Checked {
    let mut checked = Checked {
        instance_name: execution.instance_name.clone(),
        action: execution.action.clone(),
        digest_function: execution.digest_function,
        target_id: execution.target_id.clone(),
        mnemonic: execution.mnemonic.clone(),
        invocation_id: execution.invocation_id.clone(),
        first_worker: execution.worker.clone(),
        ..Default::default()
    };
    if let Err(message) = run_again(core, execution, &mut checked).await {
        checked.message = message;
        checked.verdict = Verdict::NotChecked as i32;
    }
    checked.at = unix_nanos();
    checked
}

async fn run_again(
    core: &Core,
    execution: &Execution,
    checked: &mut Checked,
) -> Result<(), String> {
    let action = action_of(execution).ok_or("the journal has no digest of this action")?;
    let first = ActionResult::decode(execution.action_result.clone())
        .map_err(|error| format!("the journal's result is not valid: {error}"))?;
    let compare = Compare { blobs: core.parts.blobs.as_ref(), function: action.function };
    let again = once_more(core, execution, action, &CONDITIONS, checked).await?;
    checked.worker = again.worker.to_string();
    checked.not_changed.clone_from(&again.not_changed);
    let is_changed = |one: &Condition| {
        !again.not_changed.iter().any(|not_changed| not_changed.condition() == *one)
    };
    let changed: Vec<Condition> = CONDITIONS.into_iter().filter(is_changed).collect();
    checked.changed = changed.iter().map(|one| *one as i32).collect();
    checked.stdout_differs = first.stdout_digest != again.result.stdout_digest;
    checked.stderr_differs = first.stderr_digest != again.result.stderr_digest;

    let mut found = compare.results(&first, &again.result).await;
    if found.is_empty() {
        checked.verdict = Verdict::Same as i32;
        return Ok(());
    }
    checked.more_differences =
        u32::try_from(found.len().saturating_sub(MAX_DIFFERENCES)).unwrap_or(u32::MAX);
    found.truncate(MAX_DIFFERENCES);
    for difference in &mut found {
        compare.locate(difference).await;
    }
    checked.differences = found;

    let unchanged = once_more(core, execution, action, &[], checked).await?;
    if compare.differ(&first, &unchanged.result) {
        checked.verdict = Verdict::NotDeterministic as i32;
        return Ok(());
    }
    for condition in changed {
        let alone = once_more(core, execution, action, &[condition], checked).await?;
        if compare.differ(&first, &alone.result) {
            checked.causes.push(condition as i32);
        }
    }
    checked.verdict = Verdict::NotHermetic as i32;
    Ok(())
}

async fn once_more(
    core: &Core,
    execution: &Execution,
    action: Digest,
    changed: &[Condition],
    checked: &mut Checked,
) -> Result<Ran, String> {
    checked.runs += 1;
    rerun(core, execution, action, changed).await
}

struct Compare<'a> {
    blobs: &'a dyn BlobStore,
    function: DigestFunction,
}

impl Compare<'_> {
    fn differ(&self, first: &ActionResult, again: &ActionResult) -> bool {
        first.exit_code != again.exit_code || outputs(first) != outputs(again)
    }

    async fn results(&self, first: &ActionResult, again: &ActionResult) -> Vec<Difference> {
        let mut found = Vec::new();
        if first.exit_code != again.exit_code {
            found.push(Difference {
                kind: Kind::ExitCode as i32,
                first_text: first.exit_code.to_string(),
                again_text: again.exit_code.to_string(),
                ..Default::default()
            });
        }
        let (first, again) = (outputs(first), outputs(again));
        for difference in differences(&first, &again) {
            let within = self.within(&difference.path, &first, &again).await;
            match within {
                Some(within) if !within.is_empty() => found.extend(within),
                _ => found.push(difference),
            }
        }
        found
    }

    /// Differences within a directory. `None`: it is none, or cannot be looked into.
    async fn within(
        &self,
        path: &str,
        first: &Outputs,
        again: &Outputs,
    ) -> Option<Vec<Difference>> {
        let (Some(Made::Tree(first)), Some(Made::Tree(again))) = (first.get(path), again.get(path))
        else {
            return None;
        };
        let read = async |digest: &kiln_protos::reapi::Digest| {
            let digest = Digest::from_wire(digest, self.function).ok()?;
            let blob = self.blobs.read(&digest, 0, None).await.ok()?;
            Tree::decode(blob.collect(MAX_TREE).await.ok()?).ok()
        };
        let (first, again) = (read(first).await?, read(again).await?);
        let (first, again) =
            (within(path, &first, self.function), within(path, &again, self.function));
        Some(differences(&first, &again))
    }

    /// Adds where the contents part, if both are there.
    async fn locate(&self, difference: &mut Difference) {
        let digest = |digest: &Option<events::Digest>| {
            let digest = digest.as_ref()?;
            let size = u64::try_from(digest.size_bytes).ok()?;
            Digest::from_hex(digest.hash.as_bytes(), size, self.function).ok()
        };
        let (Some(first), Some(again)) = (digest(&difference.first), digest(&difference.again))
        else {
            return;
        };
        if let Err(error) = self.fill(difference, &first, &again).await {
            difference.hints.push(format!("the contents cannot be compared: {error}"));
        }
    }

    async fn fill(
        &self,
        difference: &mut Difference,
        first: &Digest,
        again: &Digest,
    ) -> Result<(), StoreError> {
        let Some(place) = self.find(first, again).await? else { return Ok(()) };
        let start = place.offset.saturating_sub(BEFORE);
        let at = usize::try_from(place.offset - start).unwrap_or(0);
        let length = place.offset - start + AFTER;
        let (first, again) =
            (self.piece(first, start, length).await?, self.piece(again, start, length).await?);
        let window = |bytes| Window { bytes, at, start };
        let (first, again) = (window(&first), window(&again));
        difference.offset = Some(place.offset);
        difference.line = (first.is_text() && again.is_text()).then_some(place.line);
        difference.first_text = first.excerpt();
        difference.again_text = again.excerpt();
        difference.hints = hints(first, again);
        Ok(())
    }

    async fn find(&self, first: &Digest, again: &Digest) -> Result<Option<Place>, StoreError> {
        let mut finder = Finder::default();
        let mut offset = 0;
        while offset < MAX_COMPARED && offset < first.size.max(again.size) {
            let pieces =
                (self.piece(first, offset, PIECE).await?, self.piece(again, offset, PIECE).await?);
            if let Some(place) = finder.feed(&pieces.0, &pieces.1) {
                return Ok(Some(place));
            }
            offset += PIECE;
        }
        Ok(None)
    }

    /// Up to `length` bytes of a content from `offset` on; beyond its end there are none.
    async fn piece(
        &self,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<bytes::Bytes, StoreError> {
        if offset >= digest.size {
            return Ok(bytes::Bytes::new());
        }
        self.blobs.read(digest, offset, Some(length)).await?.collect(length).await
    }
}
