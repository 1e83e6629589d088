//! What a name may mean that somebody copied from a page, from Bazel's or Buck2's output.

use std::collections::BTreeSet;

use kiln_scheduler::Snapshot;
use kiln_scheduler::journal::{JournalEntry, Page, Query};
use kiln_scheduler::snapshot::OperationView;

use super::error::WebError;
use super::state::WebState;

/// Fewest characters of the beginning of a hash or of an invocation id.
pub const MIN_BEGINNING: usize = 4;
/// Executions that are found.
const MAX_FOUND: usize = 50;
/// Actions whose hash begins alike.
const MAX_ALIKE: usize = 10;

/// An operation's name, a target's label, or the beginning of an action's hash: executions,
/// newest first, and what runs or waits.
pub async fn find(
    state: &WebState,
    name: &str,
) -> Result<(Vec<JournalEntry>, Vec<OperationView>), WebError> {
    let queue = state.queue.snapshot().await?;
    let is_it = |operation: &&OperationView| {
        operation.name == name || operation.target == name || begins(&operation.action, name)
    };
    let operations = queue.running.iter().chain(&queue.queued).filter(is_it).cloned().collect();
    if let Some(entry) = state.journal.execution(name).await? {
        return Ok((vec![entry], operations));
    }
    let target = Query::Target { target: name.to_owned(), mnemonic: None };
    let mut found = state.journal.executions(&target, Page::first(MAX_FOUND)).await?;
    if found.is_empty() && is_beginning(name) {
        for action in state.journal.actions_like(&name.to_lowercase(), MAX_ALIKE).await? {
            let page = Page::first(MAX_FOUND / MAX_ALIKE);
            found.extend(state.journal.executions(&Query::Action(action), page).await?);
        }
        found.sort_by_key(|entry| std::cmp::Reverse(entry.seq));
    }
    Ok((found, operations))
}

fn is_beginning(text: &str) -> bool {
    text.len() >= MIN_BEGINNING && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn begins(action: &str, name: &str) -> bool {
    let hash = action.strip_prefix("blake3/").unwrap_or(action);
    is_beginning(name) && hash.starts_with(&name.to_lowercase())
}

/// Characters of a whole invocation id, as build tools make them.
const WHOLE: usize = 36;

/// The invocation id that begins so; `name` itself where several do or none.
pub async fn invocation(
    state: &WebState,
    queue: &Snapshot,
    name: &str,
) -> Result<String, WebError> {
    if !is_short(name)
        || state.journal.build(name).await?.is_some()
        || state.tests.streams.build(name).await?.is_some()
    {
        return Ok(name.to_owned());
    }
    let mut alike: BTreeSet<String> =
        state.journal.builds_like(name, 2).await?.into_iter().collect();
    // What has begun in this moment is in the queue alone.
    let open = queue.running.iter().chain(&queue.queued).map(|operation| &operation.invocation);
    alike.extend(open.filter(|invocation| invocation.starts_with(name)).cloned());
    let told = state.tests.streams.builds_like(name, 2).await?;
    alike.extend(told.into_iter().map(|it| it.summary.stream.invocation));
    match (alike.len(), alike.pop_first()) {
        (1, Some(only)) => Ok(only),
        _ => Ok(name.to_owned()),
    }
}

/// Whether an invocation's id may begin so and go on.
fn is_short(name: &str) -> bool {
    (MIN_BEGINNING..WHOLE).contains(&name.len())
}
