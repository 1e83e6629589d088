//! Selects the executions that a hermeticity check runs again.

use std::collections::HashSet;

use kiln_cas::Digest;
use kiln_cas::records::RecordsError;
use kiln_protos::events::Execution;

use crate::journal::{Journal, MAX_PAGE, Page, Query, action_of};

/// Executions that are looked through, newest first, for those of a pattern or a build.
const MAX_LOOKED_THROUGH: usize = 50_000;

/// The executions to look for: those of an invocation, of a target, or of these actions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    Invocation(String),
    /// A label, `PACKAGE:all`, `PACKAGE:*` or `PACKAGE/...`.
    Target(String),
    Actions(Vec<Digest>),
}

/// Whether a label is one of `pattern`.
pub fn matches(pattern: &str, label: &str) -> bool {
    // Bazel writes labels of the main repository with and without `@` or `@@`.
    let (pattern, label) = (pattern.trim_start_matches('@'), label.trim_start_matches('@'));
    if let Some(package) = pattern.strip_suffix("/...") {
        let Some(rest) = label.strip_prefix(package) else { return false };
        return package.ends_with("//") || package == "/" || rest.starts_with(['/', ':']);
    }
    let all = pattern.strip_suffix(":all").or_else(|| pattern.strip_suffix(":*"));
    match (all, label.rsplit_once(':')) {
        (Some(package), Some((of_label, _))) => package == of_label,
        _ => pattern == label,
    }
}

/// The part of all actions that `rate` takes is the same every time, and everywhere.
pub fn is_sampled(action: &Digest, rate: f64) -> bool {
    let first = action.hash.first_chunk().copied().unwrap_or_default();
    // Of a hash all bits are as good as random.
    let place = f64::from(u32::from_be_bytes(first)) / (f64::from(u32::MAX) + 1.0);
    place < rate
}

/// Whether there is a result that a second one can be compared with.
pub fn is_comparable(execution: &Execution) -> bool {
    // Put together of parts, and parts of it, are compared with nothing that ran whole.
    let ran_whole = execution.shard.is_none();
    ran_whole && execution.status_code == 0 && !execution.action_result.is_empty()
}

/// The newest comparable execution of each action that is wanted, in `instance`.
pub async fn select(
    journal: &Journal,
    instance: &str,
    wanted: &Wanted,
) -> Result<Vec<Execution>, RecordsError> {
    let queries = match wanted {
        Wanted::Invocation(id) => vec![Query::Invocation(id.clone())],
        Wanted::Target(_) => vec![Query::Recent],
        Wanted::Actions(actions) => actions.iter().copied().map(Query::Action).collect(),
    };
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for query in queries {
        let mut page = Page::first(MAX_PAGE);
        let mut left = MAX_LOOKED_THROUGH / MAX_PAGE;
        loop {
            let entries = journal.executions(&query, page).await?;
            page.before = entries.last().map(|last| last.seq);
            left -= 1;
            let is_last = entries.len() < MAX_PAGE || left == 0;
            for entry in entries {
                let execution = entry.execution;
                let is_wanted = match wanted {
                    Wanted::Target(pattern) => matches(pattern, &execution.target_id),
                    Wanted::Invocation(_) | Wanted::Actions(_) => true,
                };
                if is_wanted
                    && execution.instance_name == instance
                    && is_comparable(&execution)
                    && action_of(&execution).is_some_and(|action| seen.insert(action))
                {
                    found.push(Execution::clone(&execution));
                }
            }
            if is_last {
                break;
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use kiln_cas::DigestFunction;

    use super::*;

    #[test]
    fn patterns_are_bazels() {
        for (pattern, label, expected) in [
            ("//a:b", "//a:b", true),
            ("//a:b", "@//a:b", true),
            ("//a:b", "@@//a:b", true),
            ("//a:b", "//a:bc", false),
            ("//a:all", "//a:b", true),
            ("//a:*", "//a:b", true),
            ("//a:all", "//a/c:b", false),
            ("//a/...", "//a:b", true),
            ("//a/...", "//a/c:b", true),
            ("//a/...", "//ab:b", false),
            ("//...", "//x/y:z", true),
            ("//...", "//:z", true),
        ] {
            assert_eq!(matches(pattern, label), expected, "{pattern} {label}");
        }
    }

    #[test]
    fn a_rate_takes_its_part() {
        let actions: Vec<Digest> =
            (0..4000u32).map(|n| DigestFunction::Sha256.digest(&n.to_be_bytes())).collect();
        let taken = |rate| actions.iter().filter(|action| is_sampled(action, rate)).count();
        assert_eq!((taken(0.0), taken(1.0)), (0, 4000));
        assert!((300..500).contains(&taken(0.1)), "{}", taken(0.1));
    }
}
