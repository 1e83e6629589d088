//! What the later of two builds had to run, and what differs from the same action of the earlier one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use kiln_cas::Digest;
use kiln_protos::events::Execution;
use kiln_protos::events::execution::Origin;
use kiln_scheduler::journal::{
    Earlier, JournalEntry, MAX_PAGE, Page, Query, action_of, outputs_of, run_ns,
};

use crate::actions::compare::Difference;
use crate::actions::explain::{self, Explanation};
use crate::error::WebError;
use crate::state::WebState;

/// Executions of either build that are looked through.
const MAX_ENTRIES: usize = 2 * MAX_PAGE;
/// Actions that are compared input by input, and for how long.
const MAX_COMPARED: usize = 40;
const WITHIN: Duration = Duration::from_secs(5);
/// Actions and causes that are listed.
const MAX_LISTED: usize = 200;
const MAX_CAUSES: usize = 20;

/// An action that ran.
pub struct Miss {
    pub entry: JournalEntry,
    /// The execution that this one is compared with: of the same action, or of its predecessor, in the earlier build;
    /// else its last run before.
    pub earlier: Option<JournalEntry>,
    /// `None`: it was one too many to be compared.
    pub explanation: Option<Explanation>,
}

/// Something that differs in one or several of the actions that were compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    pub kind: &'static str,
    pub change: &'static str,
    pub name: String,
    pub actions: u64,
}

#[derive(Default)]
pub struct Misses {
    /// Actions that ran: first those that the earlier build had as well, in each part the longest first.
    pub listed: Vec<Miss>,
    /// How many actions ran, as far as was looked.
    pub executed: u64,
    /// How many of the actions that ran the earlier build had as well.
    pub known: u64,
    pub compared: u64,
    /// What differs in most actions comes first. Not among them is what other listed actions made.
    pub causes: Vec<Cause>,
    /// Pairs of places in `listed`: the action that made an input that differs, and the one that reads it.
    pub edges: Vec<(usize, usize)>,
    /// A build has more executions than were looked through.
    pub is_cut: bool,
}

pub async fn misses(state: &WebState, before: &str, after: &str) -> Result<Misses, WebError> {
    let (old, new) = (entries(state, before).await?, entries(state, after).await?);
    let is_cut = old.len() >= MAX_ENTRIES || new.len() >= MAX_ENTRIES;
    let known = Known::of(&old);
    let ran = new.into_iter().filter(|entry| has_run(&entry.execution));
    let mut found: Vec<_> = ran.map(|entry| (known.of_before(&entry).cloned(), entry)).collect();
    let time = |entry: &JournalEntry| run_ns(&entry.execution.timeline.unwrap_or_default());
    found.sort_by_key(|(earlier, entry)| (earlier.is_none(), Reverse(time(entry))));
    let mut misses = Misses {
        executed: found.len() as u64,
        known: found.iter().filter(|(earlier, _)| earlier.is_some()).count() as u64,
        is_cut,
        ..Misses::default()
    };
    let began = Instant::now();
    for (earlier, entry) in found.into_iter().take(MAX_LISTED) {
        let is_due = misses.listed.len() < MAX_COMPARED && began.elapsed() < WITHIN;
        let earlier = match earlier {
            None if is_due => last_run(state, &entry).await?,
            earlier => earlier,
        };
        let explanation = match &earlier {
            Some(earlier) if is_due => Some(explain::between(state, earlier, &entry).await),
            None if is_due => Some(explain::without_earlier(&entry)),
            _ => None,
        };
        misses.compared += u64::from(explanation.is_some());
        misses.listed.push(Miss { entry, earlier, explanation });
    }
    let makers = makers(&misses.listed);
    misses.causes = causes(&misses.listed, &makers);
    misses.edges = edges(&misses.listed, &makers);
    Ok(misses)
}

async fn entries(state: &WebState, invocation: &str) -> Result<Vec<JournalEntry>, WebError> {
    let query = Query::Invocation(invocation.to_owned());
    let mut all: Vec<JournalEntry> = Vec::new();
    while all.len() < MAX_ENTRIES {
        let before = all.last().map(|it| it.seq);
        let page = state.journal.executions(&query, Page { before, limit: MAX_PAGE }).await?;
        let is_last = page.len() < MAX_PAGE;
        all.extend(page);
        if is_last {
            break;
        }
    }
    Ok(all)
}

/// Whether the action ran at a worker, for this build, as a whole.
fn has_run(run: &Execution) -> bool {
    let is_part = run.shard.as_ref().is_some_and(|it| it.number > 0);
    run.origin() == Origin::Executed
        && !run.cancelled
        && !is_part
        && run.timeline.unwrap_or_default().leased > 0
}

async fn last_run(
    state: &WebState,
    entry: &JournalEntry,
) -> Result<Option<JournalEntry>, WebError> {
    let run = &entry.execution;
    let Some(own) = action_of(run).filter(|_| !run.target_id.is_empty()) else { return Ok(None) };
    let outputs = outputs_of(run);
    let earlier = Earlier {
        target: &run.target_id,
        mnemonic: &run.mnemonic,
        configuration: None,
        not_action: Some(&own),
        before: Some(entry.seq),
        outputs: Some(&outputs).filter(|outputs| !outputs.is_empty()),
    };
    Ok(state.journal.last_run_before(earlier).await?)
}

/// What the earlier build asked for, by target and mnemonic.
struct Known<'a>(HashMap<(&'a str, &'a str), Group<'a>>);

/// What one target has of one mnemonic, in the order of the journal. Results are decoded once: a target may have
/// thousands of actions in either build.
#[derive(Default)]
struct Group<'a> {
    entries: Vec<&'a JournalEntry>,
    /// The first place of each action, and of each path that was made.
    actions: HashMap<Digest, usize>,
    outputs: HashMap<String, usize>,
}

impl<'a> Group<'a> {
    fn add(&mut self, entry: &'a JournalEntry) {
        let at = self.entries.len();
        self.entries.push(entry);
        if let Some(action) = action_of(&entry.execution) {
            self.actions.entry(action).or_insert(at);
        }
        for path in outputs_of(&entry.execution) {
            self.outputs.entry(path).or_insert(at);
        }
    }

    fn of_before(&self, run: &Execution) -> Option<&'a JournalEntry> {
        let same = action_of(run).and_then(|own| self.actions.get(&own).copied());
        let made = || outputs_of(run).iter().filter_map(|it| self.outputs.get(it).copied()).min();
        let only = || (self.entries.len() == 1).then_some(0);
        self.entries.get(same.or_else(made).or_else(only)?).copied()
    }
}

impl<'a> Known<'a> {
    fn of(entries: &'a [JournalEntry]) -> Self {
        let mut known: HashMap<_, Group<'a>> = HashMap::new();
        for entry in entries.iter().filter(|it| !it.execution.target_id.is_empty()) {
            let run = &entry.execution;
            known.entry((&*run.target_id, &*run.mnemonic)).or_default().add(entry);
        }
        Self(known)
    }

    /// The execution of the earlier build that belongs to `entry`: of the same action; else the one that made the same
    /// outputs, of which a target may have many; else the only one.
    fn of_before(&self, entry: &JournalEntry) -> Option<&'a JournalEntry> {
        let run = &entry.execution;
        self.0.get(&(&*run.target_id, &*run.mnemonic))?.of_before(run)
    }
}

/// For each output path the place in `listed` of the action that made it.
fn makers(listed: &[Miss]) -> HashMap<String, usize> {
    let outputs = |(at, miss): (usize, &Miss)| {
        outputs_of(&miss.entry.execution).into_iter().map(move |path| (path, at))
    };
    listed.iter().enumerate().flat_map(outputs).collect()
}

fn differences(miss: &Miss) -> &[Difference] {
    miss.explanation.as_ref().map_or(&[], Explanation::differences)
}

fn edges(listed: &[Miss], makers: &HashMap<String, usize>) -> Vec<(usize, usize)> {
    let mut edges = BTreeSet::new();
    for (at, miss) in listed.iter().enumerate() {
        let inputs = differences(miss).iter().filter(|it| it.kind == "input");
        let made = inputs.filter_map(|it| makers.get(&it.name).copied());
        edges.extend(made.filter(|maker| *maker != at).map(|maker| (maker, at)));
    }
    edges.into_iter().collect()
}

/// A changed header is one cause, however many actions read it.
fn causes(listed: &[Miss], makers: &HashMap<String, usize>) -> Vec<Cause> {
    let mut counted: BTreeMap<(&'static str, &'static str, &str), u64> = BTreeMap::new();
    for it in listed.iter().flat_map(differences) {
        let name = match (&*it.name, &it.after, &it.before) {
            ("", Some(value), _) | ("", None, Some(value)) => value,
            (name, ..) => name,
        };
        if it.kind != "input" || !makers.contains_key(name) {
            *counted.entry((it.kind, it.change(), name)).or_default() += 1;
        }
    }
    let cause = |((kind, change, name), actions): ((&'static str, &'static str, &str), u64)| {
        Cause { kind, change, name: name.to_owned(), actions }
    };
    let mut causes: Vec<_> = counted.into_iter().map(cause).collect();
    causes.sort_by_key(|it| Reverse(it.actions));
    causes.truncate(MAX_CAUSES);
    causes
}

#[cfg(test)]
mod tests {
    use kiln_protos::reapi;
    use prost::Message;

    use super::*;
    use crate::actions::compare::Comparison;

    /// An action that made one path and read others that differ.
    fn miss(seq: u64, made: &str, differ: &[&str]) -> Miss {
        let file = reapi::OutputFile { path: made.to_owned(), ..Default::default() };
        let result = reapi::ActionResult { output_files: vec![file], ..Default::default() };
        let execution =
            Execution { action_result: result.encode_to_vec().into(), ..Default::default() };
        let difference = |name: &&str| Difference {
            kind: "input",
            name: (*name).to_owned(),
            before: Some("1".to_owned()),
            after: Some("2".to_owned()),
            contents: None,
            text: None,
        };
        let differences = differ.iter().map(difference).collect();
        let comparison = Comparison { differences, is_cut: false };
        let explanation =
            Explanation { reasons: Vec::new(), earlier: None, comparison: Some(Ok(comparison)) };
        let execution = execution.into();
        Miss {
            entry: JournalEntry { seq, execution },
            earlier: None,
            explanation: Some(explanation),
        }
    }

    #[test]
    fn outputs_tell_apart_what_a_target_has_many_of() {
        let of = |seq: u64, target: &str, made: &str| {
            let run = Execution::clone(&miss(seq, made, &[]).entry.execution);
            let execution = Execution { target_id: target.to_owned(), ..run };
            JournalEntry { seq, execution: execution.into() }
        };
        let before = [of(1, "//a", "a.o"), of(2, "//a", "b.o"), of(3, "//only", "old.o")];
        let known = Known::of(&before);
        let found =
            |target: &str, made: &str| known.of_before(&of(9, target, made)).map(|it| it.seq);
        assert_eq!(found("//a", "b.o"), Some(2));
        assert_eq!(found("//a", "c.o"), None);
        assert_eq!(found("//only", "new.o"), Some(3));
        assert_eq!(found("//other", "a.o"), None);
    }

    #[test]
    fn what_another_action_made_is_no_cause_but_leads_to_it() {
        let listed = [
            miss(1, "out/b.o", &["b.cc", "a.h"]),
            miss(2, "out/app", &["out/a.o", "out/b.o"]),
            miss(3, "out/a.o", &["a.h"]),
        ];
        let makers = makers(&listed);
        assert_eq!(edges(&listed, &makers), [(0, 1), (2, 1)]);
        let causes: Vec<_> =
            causes(&listed, &makers).into_iter().map(|it| (it.name, it.actions)).collect();
        assert_eq!(causes, [("a.h".to_owned(), 2), ("b.cc".to_owned(), 1)]);
    }
}
