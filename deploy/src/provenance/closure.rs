//! The closure of an output: the action that made it, what made that action's inputs, and so on until there are only
//! sources. Everything is found once and handed on at once: what is remembered is which content
//! and which directories were seen, within limits.
//!
//! Content says nothing of who made it: two actions may leave the same bytes, and a source may hold what
//! an action elsewhere left. Of the records that left some content one counts if it ended before the consumer
//! began; one that the invocation used is preferred, then one that left it at the path where it is consumed, then the latest.
//! Clocks jump, and those of several frontends differ: where nobody made it before, one counts that the invocation itself
//! used and that left it at that very path.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;

use kiln_cas::Digest;

use super::archive::{Archive, Listing};
use super::beside::beside;
use super::listings::Listings;
use super::met::{Met, PathHash};
use super::record::{ActionRecord, Origin, Output};

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

/// Contents that are looked up at once, and directories that are missing and wait to be told.
pub(super) const BATCH: usize = 1024;
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

/// Walks from the outputs to the sources and tells `found` of each thing in the order in which it is found, on this thread.
/// While records of a batch are looked up, the inputs of actions that are known by then are walked through.
pub fn walk<A: Archive>(
    archive: &A,
    roots: &[Root],
    limits: Limits,
    found: &mut dyn FnMut(Found) -> Result<(), ClosureError>,
) -> Result<Closure, ClosureError> {
    let mut walk = Walk::new(archive, limits, found);
    for Root { path, digest } in roots {
        let (hash, before) = (walk.met.root().child(path), i64::MAX);
        if walk.is_new(&hash, digest)? {
            walk.wanted.push_back(Wanted { path: path.clone(), digest: *digest, before });
        }
    }
    while !walk.wanted.is_empty() {
        walk.step()?;
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

/// The inputs of an action.
struct Inputs {
    root: Digest,
    /// The time at which the action began.
    before: i64,
}

/// A directory that is to be walked through.
struct OpenDirectory {
    path: String,
    hash: PathHash,
    directory: Digest,
}

struct Walk<'a, A> {
    archive: &'a A,
    limits: Limits,
    found: &'a mut dyn FnMut(Found) -> Result<(), ClosureError>,
    /// Files and directories, each at its path.
    met: Met,
    records: HashSet<String>,
    listings: Listings,
    wanted: VecDeque<Wanted>,
    /// Inputs that are to be walked through. Of records nothing else is kept: they are large.
    inputs: VecDeque<Inputs>,
    /// How many of `inputs` were read ahead.
    ahead: usize,
    /// Paths and digests of directories that are missing, until they are told.
    missing: Vec<(String, Digest)>,
    closure: Closure,
}

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
            met: Met::default(),
            records: HashSet::new(),
            listings: Listings::default(),
            wanted: VecDeque::new(),
            inputs: VecDeque::new(),
            ahead: 0,
            missing: Vec::new(),
            closure: Closure::default(),
        }
    }

    /// Whether something at this path is met for the first time.
    fn is_new(&mut self, path: &PathHash, digest: &Digest) -> Result<bool, ClosureError> {
        let is_new = self.met.add(path, digest);
        if is_new && self.met.count() > self.limits.entries {
            return Err(ClosureError::Entries(self.limits.entries));
        }
        Ok(is_new)
    }

    /// Finds who made what is wanted, a batch of it, and goes through inputs until there is another batch.
    ///
    /// Both begin together, and what is found has the order as if they did not: actions that are found now have their
    /// inputs walked through after those that are known, and who made something does not depend on what is met meanwhile.
    fn step(&mut self) -> Result<(), ClosureError> {
        let count = self.wanted.len().min(BATCH);
        let batch: Vec<_> = self.wanted.drain(..count).collect();
        let contents: Vec<_> = batch.iter().map(|it| it.digest).collect();
        let archive = self.archive;
        let (producers, read) = beside(|| archive.producers(&contents), || self.read_inputs());
        self.add_makers(batch, producers.map_err(archive_error)?)?;
        self.tell_missing()?;
        read?;
        while self.wanted.len() < BATCH && !self.inputs.is_empty() {
            let read = self.read_inputs();
            self.tell_missing()?;
            read?;
        }
        Ok(())
    }

    fn add_makers(
        &mut self,
        batch: Vec<Wanted>,
        producers: Vec<Vec<Arc<ActionRecord>>>,
    ) -> Result<(), ClosureError> {
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
            let here = |it: &Output| it.digest == wanted.digest && it.path == wanted.path;
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
        match &record.origin {
            Origin::Ran(run) => {
                self.inputs.push_back(Inputs { root: run.input_root, before: record.started });
            }
            // Of what a client wrote nothing is known but what it wrote.
            Origin::Wrote(_) => self.closure.written += 1,
        }
        (self.found)(Found::Action(record))
    }

    fn add_source(&mut self, wanted: Wanted) -> Result<(), ClosureError> {
        self.closure.sources += 1;
        (self.found)(Found::Source { path: wanted.path, digest: wanted.digest })
    }

    fn tell_missing(&mut self) -> Result<(), ClosureError> {
        for (path, directory) in std::mem::take(&mut self.missing) {
            self.closure.missing += 1;
            (self.found)(Found::Missing { path, directory })?;
        }
        Ok(())
    }

    /// Goes through the inputs of the actions until there is a batch to look up, or one of what is missing.
    fn read_inputs(&mut self) -> Result<(), ClosureError> {
        while self.wanted.len() < BATCH && self.missing.len() < BATCH {
            self.read_ahead()?;
            let Some(inputs) = self.inputs.pop_front() else { break };
            self.ahead = self.ahead.saturating_sub(1);
            self.read_tree(&inputs)?;
        }
        Ok(())
    }

    /// Reads the inputs of the next actions, if that was not done.
    fn read_ahead(&mut self) -> Result<(), ClosureError> {
        if self.ahead == 0 && !self.inputs.is_empty() {
            let roots = self.inputs.iter().map(|it| it.root);
            let read = self.listings.read_ahead(self.archive, &self.met, roots);
            self.ahead = read.map_err(archive_error)?;
        }
        Ok(())
    }

    fn read_tree(&mut self, inputs: &Inputs) -> Result<(), ClosureError> {
        let (path, hash) = (String::new(), self.met.root());
        let mut open = vec![OpenDirectory { path, hash, directory: inputs.root }];
        while let Some(it) = open.pop() {
            if !self.is_new(&it.hash, &it.directory)? {
                continue;
            }
            let read = self.listings.read(self.archive, &it.directory).map_err(archive_error)?;
            let Some(listing) = read else {
                self.missing.push((it.path, it.directory));
                continue;
            };
            self.read_directory(&it, &listing, inputs.before, &mut open)?;
            // An input root lies at no other path, and is not met again at this one.
            if !it.path.is_empty() {
                self.listings.keep(it.directory, &listing);
            }
        }
        Ok(())
    }

    fn read_directory(
        &mut self,
        it: &OpenDirectory,
        listing: &Listing,
        before: i64,
        open: &mut Vec<OpenDirectory>,
    ) -> Result<(), ClosureError> {
        for (name, digest) in &listing.files {
            check_length(&it.path, name)?;
            if self.is_new(&it.hash.child(name), digest)? {
                let path = join(&it.path, name);
                self.wanted.push_back(Wanted { path, digest: *digest, before });
            }
        }
        for (name, digest) in &listing.directories {
            check_length(&it.path, name)?;
            let hash = it.hash.child(name);
            // Most were met with the inputs of another action.
            if !self.met.has(&hash, digest) {
                open.push(OpenDirectory { path: join(&it.path, name), hash, directory: *digest });
            }
        }
        Ok(())
    }
}

fn archive_error<E: std::error::Error + Send + Sync + 'static>(error: E) -> ClosureError {
    ClosureError::Archive(Box::new(error))
}

fn check_length(path: &str, name: &str) -> Result<(), ClosureError> {
    let fits = path.len() + name.len() < MAX_PATH;
    fits.then_some(()).ok_or(ClosureError::Path)
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") }
}
