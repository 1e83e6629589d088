//! Fresh segments, as far as pages of all tests need them. What was told of an attempt may be in several of them, so that
//! their attempts are joined at each look.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::days::Counted;
use super::segment::{Invocation, Outline, Outlines, TestEntry};
use crate::attempts::{Account, Gist, Known, Slot, join_place};
use crate::model::{TestKey, Time};

/// What a name takes beside its text, about: counters, allocations and its place among the others.
const NAME_BYTES: usize = 128;

/// The attempts of a segment in outline: about 120 bytes each, and names, which all digests share.
#[derive(Debug)]
pub struct Digest {
    /// Tests in order, each with its places in `attempts`.
    tests: Vec<(Arc<TestKey>, Range<usize>)>,
    /// The names of invocations, and what else is known of them: their ids are empty there.
    invocations: Vec<(Arc<str>, Invocation)>,
    attempts: Vec<Outline>,
    bytes: u64,
}

impl Digest {
    pub fn new(outlines: Outlines, names: &mut SharedNames) -> Self {
        let known = names.bytes;
        let at = |it: u64| usize::try_from(it).unwrap_or(usize::MAX);
        let test = |it: TestEntry| (names.test(it.test), at(it.runs.start)..at(it.runs.end));
        let mut tests: Vec<_> = outlines.tests.into_iter().map(test).collect();
        let invocation = |it: Invocation| {
            let id = names.invocation(&it.id);
            (id, Invocation { id: String::new(), ..it })
        };
        let invocations: Vec<_> = outlines.invocations.into_iter().map(invocation).collect();
        let mut attempts = outlines.attempts;
        // Lists that were made in the place of larger ones, or that grew, have room for more.
        tests.shrink_to_fit();
        attempts.shrink_to_fit();
        let lists = size_of_val(&*tests) + size_of_val(&*invocations) + size_of_val(&*attempts);
        let texts: usize = invocations.iter().map(|(_, it)| text_bytes(it)).sum();
        let bytes = names.bytes - known + (size_of::<Self>() + lists + texts) as u64;
        Self { tests, invocations, attempts, bytes }
    }

    /// Bytes of memory that the digest takes, about, with the names that it brought. Those that others brought before it
    /// are theirs.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Bytes of what is said of an invocation.
fn text_bytes(it: &Invocation) -> usize {
    let told = [&it.commit, &it.branch].into_iter().flatten();
    it.instance.len() + told.map(String::len).sum::<usize>()
}

/// The names in digests, each of them once in memory: two of these are equal where they are at one address.
#[derive(Debug, Default)]
pub struct SharedNames {
    tests: HashSet<Arc<TestKey>>,
    invocations: HashSet<Arc<str>>,
    /// Bytes that names took which came, about, of those as well that are forgotten.
    bytes: u64,
}

impl SharedNames {
    fn test(&mut self, test: TestKey) -> Arc<TestKey> {
        if let Some(known) = self.tests.get(&test) {
            return known.clone();
        }
        let texts = test.instance.len() + test.label.len() + test.configuration.len();
        self.bytes += (NAME_BYTES + texts) as u64;
        let test = Arc::new(test);
        self.tests.insert(test.clone());
        test
    }

    fn invocation(&mut self, id: &str) -> Arc<str> {
        if let Some(known) = self.invocations.get(id) {
            return known.clone();
        }
        self.bytes += (NAME_BYTES + id.len()) as u64;
        let id: Arc<str> = id.into();
        self.invocations.insert(id.clone());
        id
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.tests.is_empty() && self.invocations.is_empty()
    }

    /// Forgets the names that no digest has any more.
    pub fn prune(&mut self) {
        self.tests.retain(|it| Arc::strong_count(it) > 1);
        self.invocations.retain(|it| Arc::strong_count(it) > 1);
    }
}

/// The invocation of an attempt. One that knows no commit and no branch has those of others of its invocation, where
/// these agree.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    pub id: &'a Arc<str>,
    pub commit: Option<&'a str>,
    pub branch: Option<&'a str>,
    is_wanted: bool,
}

/// An attempt in fresh segments: what one source says of it, or what several came to.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    pub test: &'a Arc<TestKey>,
    pub origin: Origin<'a>,
    pub outline: Outline,
}

impl Seen<'_> {
    pub fn counted(&self) -> Counted {
        let Outline { slot, execution, outcome, started, took, identity, .. } = self.outline;
        Counted { slot, execution, outcome, started, took, identity }
    }

    pub fn is_of_invocation(&self, other: &Self) -> bool {
        Arc::ptr_eq(self.origin.id, other.origin.id)
    }
}

impl Account for Seen<'_> {
    fn gist(&self) -> Gist {
        let Outline { known, execution, outcome, started, slot, .. } = self.outline;
        Gist { known, execution, outcome, started, attempt: slot.attempt }
    }

    fn set_gist(&mut self, gist: Gist) {
        let Gist { known, execution, outcome, started, attempt } = gist;
        let slot = Slot { attempt, ..self.outline.slot };
        self.outline = Outline { known, execution, outcome, started, slot, ..self.outline };
    }

    fn configuration(&self) -> &str {
        &self.test.configuration
    }

    fn has_log(&self) -> bool {
        self.outline.log.is_some()
    }

    fn shares_log(&self, other: &Self) -> bool {
        self.outline.log.is_some() && self.outline.log == other.outline.log
    }

    fn richness(&self) -> (usize, bool, bool) {
        let it = &self.outline;
        (it.cases as usize, it.has_failure, it.log.is_some())
    }

    fn fill(&mut self, other: Self) {
        if self.test.configuration.is_empty() {
            self.test = other.test;
        }
        self.origin.commit = self.origin.commit.or(other.origin.commit);
        self.origin.branch = self.origin.branch.or(other.origin.branch);
        let (own, more) = (&mut self.outline, other.outline);
        own.took = own.took.or(more.took);
        own.identity = own.identity.or(more.identity);
        own.log = own.log.or(more.log);
        own.has_failure |= more.has_failure;
        own.cases = own.cases.max(more.cases);
    }
}

/// Hands out the attempts at each test that has one of these labels, by instance and label, in these invocations, by
/// their ids: joined, and those of one invocation beside each other. Some accounts do not know which configuration they
/// are of, so that all of a label are joined together.
pub fn each_joined<'a>(
    digests: &'a [Arc<Digest>],
    labels: impl Fn(&str, &str) -> bool,
    invocations: impl Fn(&str) -> bool,
    mut each: impl FnMut(&'a TestKey, &[Seen<'a>]),
) {
    let origins = origins(digests, invocations);
    for parts in by_label(digests, labels) {
        let mut accounts: Vec<Placed<'a>> = Vec::new();
        parts.iter().for_each(|it| it.put_accounts(&origins[it.number], &mut accounts));
        // Accounts at one place stay in the order in which they came.
        accounts.sort_by_key(|it| it.place);
        let mut runs: Vec<Seen<'a>> = Vec::with_capacity(accounts.len());
        for place in accounts.chunk_by(|a, b| a.place == b.place) {
            match place {
                // Nothing is to be joined, and there is no other attempt that a number would tell it from.
                [only] => runs.push(only.seen(&origins)),
                several => {
                    runs.extend(join_place(several.iter().map(|it| it.seen(&origins)).collect()));
                }
            }
        }
        if runs.iter().any(|it| !Arc::ptr_eq(it.test, runs[0].test)) {
            runs.sort_by(|a, b| a.test.cmp(b.test));
        }
        for own in runs.chunk_by(|a, b| a.test == b.test) {
            each(own[0].test, own);
        }
    }
}

/// Invocations as one segment would list them that had all of these attempts, in order.
pub fn invocations(digests: &[Arc<Digest>]) -> Vec<Invocation> {
    type Facts<'a> = (&'a str, &'a str, Option<&'a str>, Option<&'a str>);
    let origins = origins(digests, |_| true);
    let mut known: HashMap<Facts<'_>, Time> = HashMap::new();
    for (digest, origins) in digests.iter().zip(&origins) {
        for ((id, it), origin) in digest.invocations.iter().zip(origins) {
            let facts = (it.instance.as_str(), &**id, origin.commit, origin.branch);
            let from = known.entry(facts).or_insert(it.from);
            // 0 says that nobody knows.
            if *from == Time(0) || Time(0) < it.from && it.from < *from {
                *from = it.from;
            }
        }
    }
    let invocation = |((instance, id, commit, branch), from): (Facts<'_>, Time)| Invocation {
        instance: instance.to_owned(),
        id: id.to_owned(),
        commit: commit.map(str::to_owned),
        branch: branch.map(str::to_owned),
        from,
    };
    let mut all: Vec<_> = known.into_iter().map(invocation).collect();
    all.sort_unstable();
    all
}

/// What those say of an invocation that say anything.
#[derive(Clone, Copy, Default)]
struct Told<'a> {
    told: Option<&'a str>,
    is_disputed: bool,
}

impl<'a> Told<'a> {
    fn hear(&mut self, told: Option<&'a str>) {
        self.is_disputed |= self.told.is_some() && told.is_some() && self.told != told;
        self.told = self.told.or(told);
    }

    fn agreed(self) -> Option<&'a str> {
        self.told.filter(|_| !self.is_disputed)
    }
}

/// The origins in each digest, in the order of its invocations.
fn origins<'a>(
    digests: &'a [Arc<Digest>],
    is_wanted: impl Fn(&str) -> bool,
) -> Vec<Vec<Origin<'a>>> {
    let mut known: HashMap<(&str, &str), (Told<'a>, Told<'a>)> = HashMap::new();
    for (id, it) in digests.iter().flat_map(|it| &it.invocations) {
        let (commit, branch) = known.entry((it.instance.as_str(), &**id)).or_default();
        commit.hear(it.commit.as_deref());
        branch.hear(it.branch.as_deref());
    }
    let origin = |(id, it): &'a (Arc<str>, Invocation)| {
        let told = known.get(&(it.instance.as_str(), &**id)).copied().unwrap_or_default();
        Origin {
            id,
            commit: it.commit.as_deref().or(told.0.agreed()),
            branch: it.branch.as_deref().or(told.1.agreed()),
            is_wanted: is_wanted(id),
        }
    };
    digests.iter().map(|it| it.invocations.iter().map(&origin).collect()).collect()
}

/// What a digest has of a test.
struct Part<'a> {
    /// The number of the digest.
    number: usize,
    digest: &'a Digest,
    test: &'a Arc<TestKey>,
    attempts: Range<usize>,
}

impl<'a> Part<'a> {
    fn put_accounts(&self, origins: &[Origin<'a>], accounts: &mut Vec<Placed<'a>>) {
        let own = self.digest.attempts.get(self.attempts.clone()).unwrap_or_default();
        for outline in own {
            let origin = &origins[outline.invocation as usize];
            // Parts are in no figures.
            if origin.is_wanted && !outline.known.has(Known::PART) {
                let invocation = Arc::as_ptr(origin.id).cast::<u8>().addr();
                let place = (invocation, outline.slot.run, outline.slot.shard);
                accounts.push(Placed { place, number: self.number, test: self.test, outline });
            }
        }
    }
}

/// An account at its place: where its invocation is in memory, run and shard. Instance and label are those of its test.
#[derive(Clone, Copy)]
struct Placed<'a> {
    place: (usize, u32, u32),
    /// The number of its digest.
    number: usize,
    test: &'a Arc<TestKey>,
    outline: &'a Outline,
}

impl<'a> Placed<'a> {
    fn seen(&self, origins: &[Vec<Origin<'a>>]) -> Seen<'a> {
        let origin = origins[self.number][self.outline.invocation as usize];
        Seen { test: self.test, origin, outline: *self.outline }
    }
}

/// What digests have of tests, of each instance and label together: some know no configuration until they are joined.
fn by_label<'a>(
    digests: &'a [Arc<Digest>],
    is_wanted: impl Fn(&str, &str) -> bool,
) -> Vec<Vec<Part<'a>>> {
    let mut labels: HashMap<(&str, &str), usize> = HashMap::new();
    // The number of the label by where a test is in memory; `None`: the label is not wanted.
    let mut known: HashMap<usize, Option<usize>> = HashMap::new();
    let mut parts: Vec<Vec<Part<'a>>> = Vec::new();
    for (number, digest) in digests.iter().enumerate() {
        for (test, attempts) in &digest.tests {
            let label = *known.entry(Arc::as_ptr(test).addr()).or_insert_with(|| {
                let next = labels.len();
                let (instance, label) = (test.instance.as_str(), test.label.as_str());
                is_wanted(instance, label).then(|| *labels.entry((instance, label)).or_insert(next))
            });
            let Some(label) = label else { continue };
            if label == parts.len() {
                parts.push(Vec::new());
            }
            parts[label].push(Part { number, digest, test, attempts: attempts.clone() });
        }
    }
    parts
}

#[cfg(test)]
mod tests;
