//! Why an action was executed and not answered from the cache, in words.

use kiln_cas::{Digest, StoreError};
use kiln_protos::events::Execution;
use kiln_protos::events::execution::Origin;
use kiln_scheduler::journal::{JournalEntry, action_of, has_failed};

use super::compare::{Comparison, Difference, add_texts, compare};
use super::load::Loaded;
use crate::state::WebState;

pub const HIT: &str = "It was answered from the action cache.";
pub const MERGED: &str = "It joined an execution of the same action that was under way.";
pub const RUNNING: &str = "It has not ended yet.";
pub const CANCELLED: &str = "It was cancelled, or no client waited for it any more.";
pub const NOT_RUN: &str = "No worker ever ran it, so that there was no result to keep.";
pub const UNKNOWN: &str = "The journal knows no run of it, so there is none to compare with.";
pub const SKIPPED: &str = "The client asked not to look into the cache (skip_cache_lookup).";
pub const NOT_KEPT: &str = "The action says that its result must not be kept (do_not_cache).";
pub const FAILED: &str = "The same action ran before and failed; failures are not cached.";
pub const REMOVED: &str = "The same action ran before, but its result or a blob that the result \
                           names has been removed since.";
pub const OTHER_INSTANCE: &str =
    "The same action ran before under another instance name, which has a cache of its own.";
pub const NO_TARGET: &str =
    "The client named no target, so there is no earlier run to compare with.";
pub const FIRST: &str = "No other action of this target and mnemonic has run here before: it was \
                         new, or its result had been removed.";
pub const SAME: &str = "Command, inputs and settings are the same.";

/// Reasons come first; a comparison follows where there is something to compare with.
pub struct Explanation {
    pub reasons: Vec<&'static str>,
    /// The run that the comparison is with.
    pub earlier: Option<JournalEntry>,
    pub comparison: Option<Result<Comparison, StoreError>>,
}

impl Explanation {
    fn of(reasons: Vec<&'static str>) -> Self {
        Self { reasons, earlier: None, comparison: None }
    }

    pub fn differences(&self) -> &[Difference] {
        match &self.comparison {
            Some(Ok(comparison)) => &comparison.differences,
            _ => &[],
        }
    }
}

/// Explains the run that `loaded` shows.
pub async fn explain(state: &WebState, loaded: &Loaded) -> Explanation {
    let Some(entry) = &loaded.run else {
        let reason = if loaded.running.is_some() { RUNNING } else { UNKNOWN };
        return Explanation::of(vec![reason]);
    };
    let run = &entry.execution;
    match run.origin() {
        Origin::CacheHit => return Explanation::of(vec![HIT]),
        Origin::Merged => return Explanation::of(vec![MERGED]),
        Origin::Executed | Origin::Unspecified => {}
    }
    if run.cancelled {
        return Explanation::of(vec![CANCELLED]);
    }
    if run.timeline.unwrap_or_default().leased == 0 && has_failed(run) {
        return Explanation::of(vec![NOT_RUN]);
    }
    let mut reasons = asked_for(run);
    if reasons.is_empty()
        && let Some(reason) = same_action_before(loaded, entry)
    {
        return Explanation::of(vec![reason]);
    }
    let compared = loaded.compared.as_ref();
    let Some((earlier, before)) =
        compared.and_then(|earlier| Some((earlier, action_of(&earlier.execution)?)))
    else {
        if reasons.is_empty() {
            reasons.push(if run.target_id.is_empty() { NO_TARGET } else { FIRST });
        }
        return Explanation::of(reasons);
    };
    let Explanation { reasons: same, comparison, .. } = two(state, &before, &loaded.digest).await;
    reasons.extend(same);
    Explanation { reasons, earlier: Some(earlier.clone()), comparison }
}

/// Explains a run by an earlier one of the same, or of what made the same. Lines of files are not compared.
pub async fn between(
    state: &WebState,
    earlier: &JournalEntry,
    entry: &JournalEntry,
) -> Explanation {
    let (before, run) = (&earlier.execution, &entry.execution);
    let reasons = asked_for(run);
    let (Some(old), Some(new)) = (action_of(before), action_of(run)) else {
        return Explanation::of(reasons);
    };
    match (old == new, reasons.is_empty()) {
        (true, true) => Explanation::of(vec![why_again(before, run)]),
        (true, false) => Explanation::of(reasons),
        (false, _) => {
            let comparison = Some(compare(state, &old, &new).await);
            Explanation { reasons, earlier: None, comparison }
        }
    }
}

/// What can be said of a run before which there was none.
pub fn without_earlier(entry: &JournalEntry) -> Explanation {
    let mut reasons = asked_for(&entry.execution);
    if reasons.is_empty() {
        reasons.push(if entry.execution.target_id.is_empty() { NO_TARGET } else { FIRST });
    }
    Explanation::of(reasons)
}

/// Compares any two actions.
pub async fn two(state: &WebState, before: &Digest, after: &Digest) -> Explanation {
    let mut comparison = compare(state, before, after).await;
    if let Ok(comparison) = &mut comparison {
        add_texts(state, comparison).await;
    }
    let is_same =
        comparison.as_ref().is_ok_and(|found| found.differences.is_empty() && !found.is_cut);
    let reasons = if is_same { vec![SAME] } else { Vec::new() };
    Explanation { reasons, earlier: None, comparison: Some(comparison) }
}

fn asked_for(run: &Execution) -> Vec<&'static str> {
    let skipped = run.skip_cache_lookup.then_some(SKIPPED);
    let not_kept = run.do_not_cache.then_some(NOT_KEPT);
    skipped.into_iter().chain(not_kept).collect()
}

/// Why an earlier run of the very same action did not serve.
fn same_action_before(loaded: &Loaded, entry: &JournalEntry) -> Option<&'static str> {
    let earlier = loaded
        .runs
        .iter()
        .find(|run| run.seq < entry.seq && run.execution.origin() == Origin::Executed)?;
    Some(why_again(&earlier.execution, &entry.execution))
}

/// Why a run of the very same action does not serve a later one.
fn why_again(earlier: &Execution, run: &Execution) -> &'static str {
    if earlier.instance_name != run.instance_name {
        return OTHER_INSTANCE;
    }
    if earlier.exit_code != 0 || earlier.status_code != 0 { FAILED } else { REMOVED }
}
