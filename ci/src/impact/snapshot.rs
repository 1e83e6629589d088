//! What the targets of a commit are made from, as hashes; kept, so that a known commit costs nothing.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::graph::{Content, Graph, Kind};
use super::hash::{Hash, Hasher};

/// Changes when the same sources would give other hashes.
const FORMAT: u32 = 2;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// The class of a rule; `None` for a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// The hash of the target alone, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own: Option<Hash>,
    /// The hash of the target and of all that it depends on.
    pub whole: Hash,
    /// Labels of the target's direct dependencies.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deps: Vec<String>,
}

impl Target {
    /// Rules of tests have names that end in `_test`: Bazel and Buck2's prelude require it.
    pub fn is_test(&self) -> bool {
        self.class.as_deref().is_some_and(|class| class.ends_with("_test"))
    }

    /// Whether a tag has Bazel leave the target out where only a pattern names it.
    pub fn is_manual(&self) -> bool {
        self.tags.iter().any(|tag| tag == "manual")
    }
}

/// The targets of a commit, and the files that concern all of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    format: u32,
    /// Files that every target depends on (`.bazelrc`, lock files), by path.
    pub common: BTreeMap<String, Hash>,
    pub targets: BTreeMap<String, Target>,
}

impl Snapshot {
    /// `content` is asked for each source file. `common` are files that every target depends on.
    pub fn new(
        graph: &Graph,
        common: BTreeMap<String, Hash>,
        content: &HashMap<&str, Content>,
    ) -> Self {
        let own = own_hashes(graph, content);
        let whole = whole_hashes(graph, &own);
        let targets = graph.nodes.iter().enumerate().map(|(place, node)| {
            let class = match &node.kind {
                Kind::Rule(class) => Some(class.clone()),
                Kind::Source(_) | Kind::Generated => None,
            };
            let (tags, mut deps) = (node.tags.clone(), node.deps.clone());
            deps.sort_unstable();
            deps.dedup();
            let target = Target { class, tags, own: own[place], whole: whole[place], deps };
            (node.label.clone(), target)
        });
        Self { format: FORMAT, common, targets: targets.collect() }
    }

    /// `None`: it was made by another version, or is damaged.
    pub fn from_json(json: &[u8]) -> Option<Self> {
        let snapshot: Self = serde_json::from_slice(json).ok()?;
        (snapshot.format == FORMAT).then_some(snapshot)
    }
}

fn own_hashes(graph: &Graph, content: &HashMap<&str, Content>) -> Vec<Option<Hash>> {
    let own = |node: &super::graph::Node| match (&node.kind, node.own) {
        (_, Some(own)) => Some(own),
        (Kind::Source(_), None) => Some(match content.get(node.label.as_str()) {
            Some(Content::Known(hash)) => *hash,
            Some(Content::Absent) | None => Hasher::new("absent").finish(),
        }),
        (Kind::Rule(_) | Kind::Generated, None) => None,
    };
    graph.nodes.iter().map(own).collect()
}

/// Circle by circle, dependencies first. Mostly a circle is one target; whose dependencies lead back to
/// themselves share what all of them are made from.
fn whole_hashes(graph: &Graph, own: &[Option<Hash>]) -> Vec<Hash> {
    let places = graph.places();
    let deps: Vec<Vec<usize>> = graph
        .nodes
        .iter()
        .map(|node| node.deps.iter().filter_map(|dep| places.get(dep.as_str()).copied()).collect())
        .collect();
    let mut whole = vec![Hasher::new("unknown").finish(); graph.nodes.len()];
    for circle in circles(&deps) {
        for (place, hash) in circle_hashes(graph, own, &places, &whole, &circle) {
            whole[place] = hash;
        }
    }
    whole
}

fn circle_hashes(
    graph: &Graph,
    own: &[Option<Hash>],
    places: &HashMap<&str, usize>,
    whole: &[Hash],
    circle: &[usize],
) -> Vec<(usize, Hash)> {
    let mut members: Vec<_> = circle.iter().map(|place| (&graph.nodes[*place], *place)).collect();
    members.sort_by(|one, other| one.0.label.cmp(&other.0.label));
    let mut hasher = Hasher::new("targets");
    hasher.count(members.len());
    for (node, place) in &members {
        let mut deps: Vec<_> = node.deps.iter().map(String::as_str).collect();
        deps.sort_unstable();
        deps.dedup();
        hasher.text(if circle.len() > 1 { &node.label } else { "" });
        hasher.hash(own[*place].unwrap_or_else(|| Hasher::new("unknown").finish()));
        if let Some(told) = node.whole {
            hasher.hash(told);
        }
        hasher.count(deps.len());
        for dep in deps {
            // Of what the tool does not list, and within the circle, the name alone counts.
            let outside = places.get(dep).filter(|place| !circle.contains(place));
            hasher.text(dep).bytes(outside.map_or(&[], |place| whole[*place].as_bytes()));
        }
    }
    let shared = hasher.finish();
    let hash = |node: &super::graph::Node| match members.len() {
        1 => shared,
        _ => Hasher::new("member").hash(shared).text(&node.label).finish(),
    };
    members.iter().map(|(node, place)| (*place, hash(node))).collect()
}

/// A target while the walk is beneath it.
struct Step {
    place: usize,
    next_dep: usize,
}

/// Groups of targets that reach each other, each after the groups that it depends on (Tarjan's
/// algorithm, without recursion: graphs are deep).
fn circles(deps: &[Vec<usize>]) -> Vec<Vec<usize>> {
    const NEW: usize = usize::MAX;
    let (mut index, mut lowest) = (vec![NEW; deps.len()], vec![NEW; deps.len()]);
    let mut grouped = vec![false; deps.len()];
    let (mut open, mut groups, mut count) = (Vec::new(), Vec::new(), 0);
    for first in 0..deps.len() {
        let mut walk: Vec<Step> = Vec::new();
        if index[first] == NEW {
            walk.push(Step { place: first, next_dep: 0 });
        }
        while let Some(Step { place, next_dep }) = walk.last_mut() {
            let place = *place;
            if *next_dep == 0 && index[place] == NEW {
                (index[place], lowest[place]) = (count, count);
                count += 1;
                open.push(place);
            }
            if let Some(dep) = deps[place].get(*next_dep).copied() {
                *next_dep += 1;
                if index[dep] == NEW {
                    walk.push(Step { place: dep, next_dep: 0 });
                } else if !grouped[dep] {
                    lowest[place] = lowest[place].min(index[dep]);
                }
                continue;
            }
            walk.pop();
            if let Some(Step { place: above, .. }) = walk.last() {
                lowest[*above] = lowest[*above].min(lowest[place]);
            }
            if lowest[place] == index[place] {
                let from = open.iter().rposition(|other| *other == place).unwrap_or(0);
                let group = open.split_off(from);
                group.iter().for_each(|member| grouped[*member] = true);
                groups.push(group);
            }
        }
    }
    groups
}
