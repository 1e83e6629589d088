//! What differs between two snapshots, and how far from the change it is.

use std::collections::{BTreeMap, HashMap, VecDeque};

use super::snapshot::{Snapshot, Target};

/// Why a target is affected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The target changed itself: its rule, an attribute, its content.
    Changed,
    /// There was no target of this name before.
    New,
    /// This dependency of the target is affected, and one step nearer to the change.
    Dependency(String),
    /// A tag says that it depends on more than its inputs.
    Tag(String),
    /// Everything is affected.
    Everything,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Affected {
    pub label: String,
    /// Steps from the nearest target that changed itself: 0 for that one. `None` where no way leads from the
    /// change to the target: a tag names it, or everything is affected.
    pub distance: Option<u32>,
    pub cause: Cause,
}

/// Why everything is affected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Everything {
    /// Files that every target depends on differ: these ones.
    Common(Vec<String>),
    /// The base cannot be compared with, for this reason.
    NoBase(String),
}

/// What a change affects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impact {
    pub everything: Option<Everything>,
    /// Targets and files that are affected, by distance, then by label.
    pub affected: Vec<Affected>,
    /// Labels of what is there no more.
    pub removed: Vec<String>,
}

/// `always`: targets with one of these tags are affected by each change. Without a `base`, by the reason
/// given, everything is affected.
pub fn compare(base: Result<&Snapshot, String>, head: &Snapshot, always: &[String]) -> Impact {
    let base = match base {
        Ok(base) => base,
        Err(reason) => return everything(head, Everything::NoBase(reason), Vec::new()),
    };
    let removed = base.targets.keys().filter(|label| !head.targets.contains_key(*label));
    let removed: Vec<_> = removed.cloned().collect();
    let common = differing(&base.common, &head.common);
    if !common.is_empty() {
        return everything(head, Everything::Common(common), removed);
    }
    let mut affected = spread(base, head);
    if !affected.is_empty() || !removed.is_empty() {
        add_tagged(head, always, &mut affected);
    }
    affected.sort_by(|one, other| {
        let far = |affected: &Affected| affected.distance.unwrap_or(u32::MAX);
        (far(one), &one.label).cmp(&(far(other), &other.label))
    });
    Impact { everything: None, affected, removed }
}

fn everything(head: &Snapshot, why: Everything, removed: Vec<String>) -> Impact {
    let all = head.targets.keys().map(|label| Affected {
        label: label.clone(),
        distance: None,
        cause: Cause::Everything,
    });
    Impact { everything: Some(why), affected: all.collect(), removed }
}

fn differing<T: PartialEq>(one: &BTreeMap<String, T>, other: &BTreeMap<String, T>) -> Vec<String> {
    let mut keys: Vec<_> = one.keys().chain(other.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    keys.into_iter().filter(|key| one.get(*key) != other.get(*key)).cloned().collect()
}

/// Everything whose hash differs, from what changed itself outwards.
fn spread(base: &Snapshot, head: &Snapshot) -> Vec<Affected> {
    let differs = |label: &str, target: &Target| {
        base.targets.get(label).is_none_or(|before| before.whole != target.whole)
    };
    let differing: HashMap<_, _> = head
        .targets
        .iter()
        .filter(|(label, target)| differs(label, target))
        .map(|(label, target)| (label.as_str(), target))
        .collect();
    let mut dependants: HashMap<&str, Vec<&str>> = HashMap::new();
    for (label, target) in &differing {
        for dep in target.deps.iter().filter(|dep| differing.contains_key(dep.as_str())) {
            dependants.entry(dep).or_default().push(label);
        }
    }
    let mut found: HashMap<&str, (u32, Cause)> = HashMap::new();
    let mut queue = VecDeque::new();
    for (label, target) in &differing {
        if let Some(cause) = root(base, label, target, &differing) {
            found.insert(label, (0, cause));
            queue.push_back(*label);
        }
    }
    // By name, so that the same change always gives the same causes.
    queue.make_contiguous().sort_unstable();
    while let Some(label) = queue.pop_front() {
        let distance = found.get(label).map_or(0, |(distance, _)| *distance) + 1;
        let mut next = dependants.remove(label).unwrap_or_default();
        next.sort_unstable();
        for dependant in next {
            if !found.contains_key(dependant) {
                found.insert(dependant, (distance, Cause::Dependency(label.to_owned())));
                queue.push_back(dependant);
            }
        }
    }
    // A circle that no beginning leads to: its members explain each other, and none may be lost.
    for label in differing.keys() {
        found.entry(label).or_insert((0, Cause::Changed));
    }
    let affected = found.into_iter().map(|(label, (distance, cause))| Affected {
        label: label.to_owned(),
        distance: Some(distance),
        cause,
    });
    affected.collect()
}

/// Why a target that differs is a beginning, if it is one.
fn root(
    base: &Snapshot,
    label: &str,
    target: &Target,
    differing: &HashMap<&str, &Target>,
) -> Option<Cause> {
    let Some(before) = base.targets.get(label) else { return Some(Cause::New) };
    let itself = target.own != before.own || target.deps != before.deps;
    // Where the tool does not say what differs, or a circle hides it, nothing else explains it.
    let explained = target.deps.iter().any(|dep| differing.contains_key(dep.as_str()));
    (itself || !explained).then_some(Cause::Changed)
}

fn add_tagged(head: &Snapshot, always: &[String], affected: &mut Vec<Affected>) {
    let known: std::collections::HashSet<_> =
        affected.iter().map(|affected| affected.label.clone()).collect();
    for (label, target) in &head.targets {
        let tag = target.tags.iter().find(|tag| always.contains(tag));
        if let Some(tag) = tag
            && !known.contains(label)
        {
            let cause = Cause::Tag(tag.clone());
            affected.push(Affected { label: label.clone(), distance: None, cause });
        }
    }
}
