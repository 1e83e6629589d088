//! The walk as it is when nothing is done ahead, together or at the same time.

use std::cmp::Reverse;
use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use kiln_cas::Digest;

use super::super::closure::BATCH;
use super::super::{ActionRecord, Archive as _, Found, Origin, Root};
use super::fake::Fake;

struct PlainWalk<'a> {
    fake: &'a Fake,
    met: HashSet<(String, Digest)>,
    ids: HashSet<String>,
    wanted: VecDeque<(String, Digest, i64)>,
    actions: VecDeque<Arc<ActionRecord>>,
    found: Vec<Found>,
}

/// All that is found, in the order in which it is told.
pub fn plain_walk(fake: &Fake, roots: &[Root]) -> Vec<Found> {
    let mut walk = PlainWalk {
        fake,
        met: HashSet::new(),
        ids: HashSet::new(),
        wanted: VecDeque::new(),
        actions: VecDeque::new(),
        found: Vec::new(),
    };
    for root in roots {
        walk.want(root.path.clone(), root.digest, i64::MAX);
    }
    while !walk.wanted.is_empty() || !walk.actions.is_empty() {
        for _ in 0..walk.wanted.len().min(BATCH) {
            walk.look_up();
        }
        while walk.wanted.len() < BATCH {
            let Some(record) = walk.actions.pop_front() else { break };
            walk.read_inputs(&record);
        }
    }
    walk.found
}

impl PlainWalk<'_> {
    fn want(&mut self, path: String, digest: Digest, before: i64) {
        if self.met.insert((path.clone(), digest)) {
            self.wanted.push_back((path, digest, before));
        }
    }

    fn look_up(&mut self) {
        let Some((path, digest, before)) = self.wanted.pop_front() else { return };
        match self.maker(&path, &digest, before) {
            None => self.found.push(Found::Source { path, digest }),
            Some(record) => {
                if self.ids.insert(record.id.clone()) {
                    self.found.push(Found::Action(record.clone()));
                    self.actions.push_back(record);
                }
            }
        }
    }

    fn maker(&self, path: &str, digest: &Digest, before: i64) -> Option<Arc<ActionRecord>> {
        let is_here =
            |it: &ActionRecord| it.outputs.iter().any(|it| it.digest == *digest && it.path == path);
        let is_used = |it: &ActionRecord| self.fake.is_used(it);
        let mut makers = self.fake.producers(&[*digest]).unwrap().remove(0);
        makers.sort_by_key(|it| (is_used(it), is_here(it), it.finished, Reverse(it.id.clone())));
        let (earlier, mut later): (Vec<_>, Vec<_>) =
            makers.into_iter().partition(|it| it.finished <= before);
        let later = later.pop().filter(|it| is_used(it) && is_here(it) && it.started != before);
        earlier.last().cloned().or(later)
    }

    fn read_inputs(&mut self, record: &ActionRecord) {
        let Origin::Ran(run) = &record.origin else { return };
        let mut open = vec![(String::new(), run.input_root)];
        while let Some((path, directory)) = open.pop() {
            if !self.met.insert((path.clone(), directory)) {
                continue;
            }
            let below = |name: &str| {
                if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }
            };
            match self.fake.directories(&[directory]).unwrap().remove(0) {
                None => self.found.push(Found::Missing { path, directory }),
                Some(listing) => {
                    for (name, digest) in &listing.files {
                        self.want(below(name), *digest, record.started);
                    }
                    open.extend(listing.directories.iter().map(|(name, it)| (below(name), *it)));
                }
            }
        }
    }
}
