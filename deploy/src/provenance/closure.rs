//! The closure of an output: the action that made it, what made that action's inputs, and so on until there are only
//! sources. Everything is found once and handed on at once: what is remembered is which content
//! and which directories were seen, within limits.
//!
//! Content says nothing of who made it: two actions may leave the same bytes, and a source may hold what
//! an action elsewhere left. Of the records that left some content one counts if it ended before the consumer
//! began; one that the invocation used is preferred, then one that left it at the path where it is consumed, then the latest.
//! Clocks jump, and those of several frontends differ: where nobody made it before, one counts that the invocation itself
//! used and that left it at that very path.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use kiln_cas::Digest;

use super::record::{ActionRecord, Origin};

/// What the walk reads. Storage behind it may be asked for many things at once.
pub trait Archive {
    type Error: std::error::Error + Send + Sync + 'static;

    /// For each content the records that have it among their outputs, a few of them where there are many:
    /// those that the invocation used first, then the latest.
    fn producers(&self, contents: &[Digest]) -> Result<Vec<Vec<Arc<ActionRecord>>>, Self::Error>;

    /// Whether the invocation ran this action, or was answered with its result.
    fn is_used(&self, record: &ActionRecord) -> bool;

    /// Executions of about that time that are known to be recorded nowhere: what they left looks like sources.
    fn unrecorded(&self) -> u64 {
        0
    }

    /// The files and directories in a directory; none if it is not there any more.
    fn directory(&self, directory: &Digest) -> Result<Option<Listing>, Self::Error>;
}

/// A directory: names with digests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    pub files: Vec<(String, Digest)>,
    pub directories: Vec<(String, Digest)>,
}

/// An output to begin with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The path relative to the input root of the action that made it.
    pub path: String,
    pub digest: Digest,
}

/// Something in the closure, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// An action that ran here, or a result that a client wrote.
    Action(Arc<ActionRecord>),
    /// Content that nothing here made: a client uploaded it.
    Source { path: String, digest: Digest },
    /// Inputs that are not in the store any more, so that nothing can be said of what made them.
    Missing { path: String, directory: Digest },
}

/// How large a closure may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub actions: usize,
    /// Files and directories, counted at each path.
    pub entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { actions: 1_000_000, entries: 20_000_000 }
    }
}

/// Contents that are looked up at once.
const BATCH: usize = 1024;
/// Characters of a path.
const MAX_PATH: usize = 4096;

/// What was walked through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Closure {
    pub actions: usize,
    /// How many of the actions have results that a client wrote.
    pub written: usize,
    pub sources: usize,
    pub missing: usize,
}

/// Why there is no closure.
#[derive(Debug, thiserror::Error)]
pub enum ClosureError {
    #[error("records or inputs cannot be read")]
    Archive(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("what was found cannot be kept")]
    Sink(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the closure has more than {0} actions")]
    Actions(usize),
    #[error("the closure has more than {0} inputs")]
    Entries(usize),
    #[error("an input lies deeper than a path can name")]
    Path,
}

/// Walks from the outputs to the sources and tells `found` of each thing in the order in which it is found.
pub fn walk<A: Archive>(
    archive: &A,
    roots: &[Root],
    limits: Limits,
    found: &mut dyn FnMut(Found) -> Result<(), ClosureError>,
) -> Result<Closure, ClosureError> {
    let mut walk = Walk::new(archive, limits, found);
    for root in roots {
        walk.want(root.path.clone(), root.digest, i64::MAX)?;
    }
    while !walk.wanted.is_empty() || !walk.actions.is_empty() {
        walk.look_up()?;
        walk.read_inputs()?;
    }
    Ok(walk.closure)
}

/// A file whose maker is looked for.
struct Wanted {
    path: String,
    digest: Digest,
    /// The time at which the content was consumed.
    before: i64,
}

struct Walk<'a, A> {
    archive: &'a A,
    limits: Limits,
    found: &'a mut dyn FnMut(Found) -> Result<(), ClosureError>,
    /// Files and directories, each with the hash of its path.
    seen: HashSet<(Digest, u64)>,
    records: HashSet<String>,
    listings: Listings,
    wanted: VecDeque<Wanted>,
    actions: VecDeque<Arc<ActionRecord>>,
    closure: Closure,
}

/// Directories that were read: most are inputs of many actions, at different paths.
struct Listings {
    kept: HashMap<Digest, Arc<Listing>>,
    /// Names in all directories that are kept.
    names: usize,
}

/// Names that are kept; what is read beyond is read again when it is met again.
const MAX_KEPT_NAMES: usize = 1_000_000;

impl<'a, A: Archive> Walk<'a, A> {
    fn new(
        archive: &'a A,
        limits: Limits,
        found: &'a mut dyn FnMut(Found) -> Result<(), ClosureError>,
    ) -> Self {
        Self {
            archive,
            limits,
            found,
            seen: HashSet::new(),
            records: HashSet::new(),
            listings: Listings { kept: HashMap::new(), names: 0 },
            wanted: VecDeque::new(),
            actions: VecDeque::new(),
            closure: Closure::default(),
        }
    }

    /// Whether something at this path is met for the first time.
    fn is_new(&mut self, path: &str, digest: Digest) -> Result<bool, ClosureError> {
        if self.seen.len() >= self.limits.entries {
            return Err(ClosureError::Entries(self.limits.entries));
        }
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        Ok(self.seen.insert((digest, hasher.finish())))
    }

    fn want(&mut self, path: String, digest: Digest, before: i64) -> Result<(), ClosureError> {
        if self.is_new(&path, digest)? {
            self.wanted.push_back(Wanted { path, digest, before });
        }
        Ok(())
    }

    /// Finds who made what is wanted, a batch of it.
    fn look_up(&mut self) -> Result<(), ClosureError> {
        let count = self.wanted.len().min(BATCH);
        let batch: Vec<_> = self.wanted.drain(..count).collect();
        let contents: Vec<_> = batch.iter().map(|it| it.digest).collect();
        let producers = self.archive.producers(&contents).map_err(archive_error)?;
        let nobody = std::iter::repeat_with(Vec::new);
        for (wanted, candidates) in batch.into_iter().zip(producers.into_iter().chain(nobody)) {
            match self.choose(&wanted, candidates) {
                Some(record) => self.add_action(record)?,
                None => self.add_source(wanted)?,
            }
        }
        Ok(())
    }

    fn choose(
        &self,
        wanted: &Wanted,
        candidates: Vec<Arc<ActionRecord>>,
    ) -> Option<Arc<ActionRecord>> {
        let rank = |record: &ActionRecord| {
            let here =
                |it: &super::record::Output| it.digest == wanted.digest && it.path == wanted.path;
            (self.archive.is_used(record), record.outputs.iter().any(here), record.finished)
        };
        let (earlier, later): (Vec<_>, Vec<_>) =
            candidates.into_iter().partition(|it| it.finished <= wanted.before);
        let best = |of: Vec<Arc<ActionRecord>>| {
            of.into_iter()
                .max_by(|one, two| rank(one).cmp(&rank(two)).then_with(|| two.id.cmp(&one.id)))
        };
        // Whoever consumes it did not make it before.
        let is_its_own = |it: &Arc<ActionRecord>| {
            matches!(rank(it), (true, true, _)) && it.started != wanted.before
        };
        best(earlier).or_else(|| best(later).filter(is_its_own))
    }

    fn add_action(&mut self, record: Arc<ActionRecord>) -> Result<(), ClosureError> {
        if !self.records.insert(record.id.clone()) {
            return Ok(());
        }
        if self.records.len() > self.limits.actions {
            return Err(ClosureError::Actions(self.limits.actions));
        }
        self.closure.actions += 1;
        self.closure.written += usize::from(matches!(record.origin, Origin::Wrote(_)));
        (self.found)(Found::Action(record.clone()))?;
        self.actions.push_back(record);
        Ok(())
    }

    fn add_source(&mut self, wanted: Wanted) -> Result<(), ClosureError> {
        self.closure.sources += 1;
        (self.found)(Found::Source { path: wanted.path, digest: wanted.digest })
    }

    /// Goes through the inputs of the actions until there is a batch to look up.
    fn read_inputs(&mut self) -> Result<(), ClosureError> {
        while self.wanted.len() < BATCH {
            let Some(record) = self.actions.pop_front() else { break };
            // Of what a client wrote nothing is known but what it wrote.
            if let Origin::Ran(run) = &record.origin {
                self.read_tree(String::new(), run.input_root, record.started)?;
            }
        }
        Ok(())
    }

    fn read_tree(
        &mut self,
        path: String,
        directory: Digest,
        before: i64,
    ) -> Result<(), ClosureError> {
        let mut open = vec![(path, directory)];
        while let Some((path, directory)) = open.pop() {
            if !self.is_new(&path, directory)? {
                continue;
            }
            let Some(listing) = self.listings.read(self.archive, directory)? else {
                self.closure.missing += 1;
                (self.found)(Found::Missing { path, directory })?;
                continue;
            };
            for (name, digest) in &listing.files {
                self.want(join(&path, name)?, *digest, before)?;
            }
            for (name, digest) in &listing.directories {
                open.push((join(&path, name)?, *digest));
            }
        }
        Ok(())
    }
}

impl Listings {
    fn read<A: Archive>(
        &mut self,
        archive: &A,
        directory: Digest,
    ) -> Result<Option<Arc<Listing>>, ClosureError> {
        if let Some(kept) = self.kept.get(&directory) {
            return Ok(Some(kept.clone()));
        }
        let Some(listing) = archive.directory(&directory).map_err(archive_error)? else {
            return Ok(None);
        };
        let listing = Arc::new(listing);
        let names = listing.files.len() + listing.directories.len();
        if self.names + names <= MAX_KEPT_NAMES {
            self.names += names;
            self.kept.insert(directory, listing.clone());
        }
        Ok(Some(listing))
    }
}

fn archive_error<E: std::error::Error + Send + Sync + 'static>(error: E) -> ClosureError {
    ClosureError::Archive(Box::new(error))
}

fn join(path: &str, name: &str) -> Result<String, ClosureError> {
    if path.len() + name.len() >= MAX_PATH {
        return Err(ClosureError::Path);
    }
    Ok(if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") })
}
