//! What a target left in an invocation, out of the records of its actions and, where there are any, out of what its build
//! events say.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::num::NonZeroUsize;

use kiln_cas::{Digest, SharedBlobStore, StoreError};
use kiln_protos::events::Execution;
use kiln_protos::executions::Kept;
use kiln_protos::reapi::{Directory, Tree};
use lru::LruCache;
use prost::Message as _;

use super::error::CatalogError;
use crate::executions::{ExecutionStore, Invocation, RecordId, function, result};

/// Records of one target that are looked at.
const MAX_RECORDS: usize = 10_000;
/// Names in messages.
const MAX_NAMED: usize = 8;
/// Files of a release.
pub const MAX_FILES: usize = 200_000;
/// Directories that are looked through for what is consumed by the target itself.
const MAX_DIRECTORIES: usize = 200_000;
/// Records of which the files stay in memory: those of a directory are asked for one after the other.
const MAX_READ: NonZeroUsize = NonZeroUsize::new(16).expect("it is not 0");
/// Bytes of a Tree or a Directory.
const MAX_TREE: u64 = 64 << 20;

/// A file of a release.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OutputFile {
    /// As its action named it.
    pub path: String,
    pub digest: Digest,
    pub is_executable: bool,
}

/// A file that a build event names as an output of the target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToldFile {
    pub path: String,
    /// In hexadecimal digits.
    pub hash: String,
    pub size: u64,
}

/// Whose outputs are wanted.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub target: String,
    /// What build events say; nothing where there are none.
    pub told: Option<Vec<ToldFile>>,
    /// Paths, or their ends; empty: all.
    pub paths: Vec<String>,
}

/// The outputs, and when they were made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outputs {
    pub files: Vec<OutputFile>,
    /// Nanoseconds since the Unix epoch: the first beginning and the last end of an action of the target.
    pub started: i64,
    pub finished: i64,
}

impl Outputs {
    fn note(&mut self, execution: &Execution) {
        let timeline = execution.timeline.unwrap_or_default();
        let begun = if timeline.leased > 0 { timeline.leased } else { timeline.finished };
        self.started = self.started.min(begun);
        self.finished = self.finished.max(timeline.finished);
    }
}

pub struct Finder<'a> {
    pub store: &'a ExecutionStore,
    pub blobs: &'a SharedBlobStore,
    pub invocation: &'a Invocation,
}

/// An action of the target.
struct Made {
    files: Vec<OutputFile>,
    /// Symbolic links in directories that it left.
    links: Vec<String>,
    input_root: Option<Digest>,
}

/// Bazel writes the labels of its main repository in three ways.
pub fn is_same(one: &str, other: &str) -> bool {
    plain(one) == plain(other)
}

/// `//app` for `//app:app`, `@//app` and `@@//app`.
fn plain(label: &str) -> String {
    let label = label.trim_start_matches('@');
    match label.rsplit_once(':') {
        Some((package, name)) if package.ends_with(&format!("/{name}")) => package.to_owned(),
        _ => label.to_owned(),
    }
}

/// Whether an output is meant by a path that somebody wrote: its own, its end, or that of a directory above it.
fn fits(output: &str, path: &str) -> bool {
    // So Bazel prints what lies below `bazel-out/CONFIGURATION/bin`.
    let path = path.strip_prefix("bazel-bin/").unwrap_or(path);
    output.strip_suffix(path).is_some_and(|it| it.is_empty() || it.ends_with('/'))
        || output.strip_prefix(path).is_some_and(|it| it.starts_with('/'))
}

/// A link that is left out would be missed by whoever runs what is released: build events name what it leads to.
fn all_files(made: Vec<Made>) -> Result<Vec<OutputFile>, CatalogError> {
    match made.iter().flat_map(|it| &it.links).next() {
        Some(link) => Err(CatalogError::Link(link.clone())),
        None => Ok(made.into_iter().flat_map(|it| it.files).collect()),
    }
}

impl Finder<'_> {
    pub async fn outputs(&self, wanted: &Wanted) -> Result<Outputs, CatalogError> {
        let mut found = Outputs { started: i64::MAX, finished: 0, ..Outputs::default() };
        let made = self.made(&wanted.target, &mut found).await?;
        found.files = match &wanted.told {
            Some(told) => self.of_told(told, &wanted.paths, &made).await?,
            None if !wanted.paths.is_empty() => all_files(made)?,
            None => self.final_outputs(&wanted.target, made).await?,
        };
        found.files.sort();
        found.files.dedup();
        if !wanted.paths.is_empty() {
            self.choose(wanted, &mut found.files)?;
        }
        if found.files.is_empty() {
            return Err(self.no_outputs(&wanted.target));
        }
        if found.finished == 0 {
            self.note_makers(&mut found).await?;
        }
        found.started = found.started.min(found.finished);
        Ok(found)
    }

    /// A target without actions of its own, such as a group of files: when its files were made.
    async fn note_makers(&self, outputs: &mut Outputs) -> Result<(), CatalogError> {
        let contents: Vec<_> = outputs.files.iter().take(MAX_NAMED).map(|it| it.digest).collect();
        for content in contents {
            for id in self.store.makers(&self.invocation.instance, &content).await? {
                let kept = self.store.get(id).await?.unwrap_or_default();
                kept.execution.iter().for_each(|it| outputs.note(it));
            }
        }
        Ok(())
    }

    fn no_outputs(&self, target: &str) -> CatalogError {
        let known: BTreeSet<_> = self.invocation.used.values().flatten().collect();
        let known: Vec<_> = known.into_iter().filter(|it| !it.is_empty()).collect();
        let more = known.len().saturating_sub(MAX_NAMED);
        let more = (more > 0).then(|| format!("{more} more"));
        let known = known.into_iter();
        CatalogError::NoOutputs {
            invocation: self.invocation.invocation.clone(),
            target: target.to_owned(),
            known: known.take(MAX_NAMED).map(|it| it.to_string()).chain(more).collect(),
        }
    }

    /// Of what is at hand, what somebody asked for by name.
    fn choose(&self, wanted: &Wanted, files: &mut Vec<OutputFile>) -> Result<(), CatalogError> {
        let is_none = |path: &&String| !files.iter().any(|it| fits(&it.path, path));
        if let Some(path) = wanted.paths.iter().find(is_none) {
            return Err(CatalogError::NoSuchOutput {
                target: wanted.target.clone(),
                path: path.clone(),
                known: files.iter().take(MAX_NAMED).map(|it| it.path.clone()).collect(),
            });
        }
        files.retain(|file| wanted.paths.iter().any(|path| fits(&file.path, path)));
        Ok(())
    }

    /// The actions of the target that ended well.
    async fn made(&self, target: &str, times: &mut Outputs) -> Result<Vec<Made>, CatalogError> {
        let of = |(id, targets): (&RecordId, &Vec<std::sync::Arc<str>>)| {
            targets.iter().any(|it| is_same(it, target)).then_some(*id)
        };
        let mut ids: Vec<_> = self.invocation.used.iter().filter_map(of).collect();
        ids.sort_unstable();
        let mut all = Vec::new();
        for id in ids.into_iter().take(MAX_RECORDS) {
            let Some(kept) = self.store.get(id).await? else { continue };
            let Some(execution) = kept.execution.as_ref().filter(|it| it.exit_code == 0) else {
                continue;
            };
            times.note(execution);
            let input_root = execution.input_root.as_ref().and_then(|it| {
                let size = u64::try_from(it.size_bytes).ok()?;
                Digest::from_hex(it.hash.as_bytes(), size, function(&kept)?).ok()
            });
            let mut links = Vec::new();
            let files = self.files(&kept, &mut links).await?;
            all.push(Made { files, links, input_root });
        }
        Ok(all)
    }

    /// Files of a record, those in directories too; `links`: symbolic links in directories.
    async fn files(
        &self,
        kept: &Kept,
        links: &mut Vec<String>,
    ) -> Result<Vec<OutputFile>, CatalogError> {
        let Some(function) = function(kept) else { return Ok(Vec::new()) };
        let result = result(kept);
        let mut files = Vec::new();
        for it in &result.output_files {
            let digest = it.digest.as_ref().and_then(|it| Digest::from_wire(it, function).ok());
            let (path, is_executable) = (it.path.clone(), it.is_executable);
            files.extend(digest.map(|digest| OutputFile { path, digest, is_executable }));
        }
        for it in &result.output_directories {
            let tree = it.tree_digest.as_ref().and_then(|it| Digest::from_wire(it, function).ok());
            if let Some(tree) = tree {
                self.read_tree(&it.path, &tree, &mut files, links).await?;
            }
        }
        Ok(files)
    }

    async fn read_tree(
        &self,
        path: &str,
        tree: &Digest,
        files: &mut Vec<OutputFile>,
        links: &mut Vec<String>,
    ) -> Result<(), CatalogError> {
        let decoded = match self.message::<Tree>(tree).await? {
            Some(tree) => tree,
            None => return Err(CatalogError::Evicted(StoreError::NotFound(*tree))),
        };
        let function = tree.function;
        let children: BTreeMap<_, _> = decoded
            .children
            .iter()
            .map(|it| (function.digest(&it.encode_to_vec()).hash, it))
            .collect();
        let mut open: Vec<_> = decoded.root.iter().map(|it| (path.to_owned(), it)).collect();
        let mut directories = 0;
        while let Some((path, directory)) = open.pop() {
            directories += 1;
            // One directory may stand in many places.
            if directories > MAX_DIRECTORIES {
                return Err(CatalogError::TooMany(MAX_DIRECTORIES));
            }
            links.extend(directory.symlinks.iter().map(|it| format!("{path}/{}", it.name)));
            for file in &directory.files {
                let digest =
                    file.digest.as_ref().and_then(|it| Digest::from_wire(it, function).ok());
                let Some(digest) = digest else { continue };
                if files.len() >= MAX_FILES {
                    return Err(CatalogError::TooMany(MAX_FILES));
                }
                let path = format!("{path}/{}", file.name);
                files.push(OutputFile { path, digest, is_executable: file.is_executable });
            }
            for child in &directory.directories {
                let digest =
                    child.digest.as_ref().and_then(|it| Digest::from_wire(it, function).ok());
                let directory = digest.and_then(|it| children.get(&it.hash).copied());
                // Names within a tree are not empty, so that it ends.
                if let Some(directory) = directory.filter(|_| path.len() < 4096) {
                    open.push((format!("{path}/{}", child.name), directory));
                }
            }
        }
        Ok(())
    }

    /// What build events name: their paths may lack what the action's have, so that content decides.
    async fn of_told(
        &self,
        told: &[ToldFile],
        paths: &[String],
        made: &[Made],
    ) -> Result<Vec<OutputFile>, CatalogError> {
        let mut own: BTreeMap<String, Vec<&OutputFile>> = BTreeMap::new();
        for file in made.iter().flat_map(|it| &it.files) {
            own.entry(file.digest.hex()).or_default().push(file);
        }
        let mut files = Vec::new();
        let mut read = LruCache::new(MAX_READ);
        for told in told.iter().take(MAX_FILES) {
            let same = own.get(&told.hash).map(Vec::as_slice).unwrap_or_default();
            let at_path = same.iter().find(|it| it.path == told.path).or(same.first());
            let known = match at_path {
                Some(file) => Some((*file).clone()),
                None => self.of_others(told, &mut read).await?,
            };
            if known.is_none() && (paths.is_empty() || paths.iter().any(|it| fits(&told.path, it)))
            {
                return Err(CatalogError::NotStored(told.path.clone()));
            }
            // Many files may have one content: the events say which path is meant.
            files.extend(known.map(|it| OutputFile { path: told.path.clone(), ..it }));
        }
        Ok(files)
    }

    /// A file that another target made, or a source; `None`: the store does not have it.
    async fn of_others(
        &self,
        told: &ToldFile,
        read: &mut LruCache<RecordId, Vec<OutputFile>>,
    ) -> Result<Option<OutputFile>, CatalogError> {
        for function in kiln_cas::DigestFunction::ALL {
            let Ok(digest) = Digest::from_hex(told.hash.as_bytes(), told.size, function) else {
                continue;
            };
            let mut elsewhere = None;
            for id in self.store.makers(&self.invocation.instance, &digest).await? {
                if !read.contains(&id) {
                    let Some(kept) = self.store.get(id).await? else { continue };
                    let files = self.files(&kept, &mut Vec::new()).await?;
                    read.put(id, files);
                }
                for file in read.get(&id).into_iter().flatten().filter(|it| it.digest == digest) {
                    if file.path == told.path {
                        return Ok(Some(file.clone()));
                    }
                    elsewhere.get_or_insert_with(|| file.clone());
                }
            }
            if elsewhere.is_some() {
                return Ok(elsewhere);
            }
            if self.blobs.find_missing(&[digest]).await?.is_empty() {
                let path = told.path.clone();
                // Nobody here knows whether it is a program: one that is none is not harmed.
                return Ok(Some(OutputFile { path, digest, is_executable: true }));
            }
        }
        Ok(None)
    }

    /// The outputs of the one action that makes nothing for another action of the target.
    async fn final_outputs(
        &self,
        target: &str,
        made: Vec<Made>,
    ) -> Result<Vec<OutputFile>, CatalogError> {
        if made.len() <= 1 {
            return all_files(made);
        }
        let consumed = self.consumed(&made).await?;
        let last = |it: &Made| {
            !it.files.is_empty() && !it.files.iter().any(|it| consumed.contains(&it.digest))
        };
        let mut last: Vec<_> = made.into_iter().filter(last).collect();
        if last.len() > 1 {
            let first = |it: &Made| it.files.first().map(|it| it.path.clone());
            return Err(CatalogError::Ambiguous {
                target: target.to_owned(),
                count: last.len(),
                paths: last.iter().filter_map(first).take(MAX_NAMED).collect(),
            });
        }
        all_files(last.pop().into_iter().collect())
    }

    async fn consumed(&self, made: &[Made]) -> Result<HashSet<Digest>, CatalogError> {
        let (mut files, mut seen) = (HashSet::new(), HashSet::new());
        let mut open: Vec<_> = made.iter().filter_map(|it| it.input_root).collect();
        while let Some(digest) = open.pop() {
            if !seen.insert(digest) || seen.len() > MAX_DIRECTORIES {
                continue;
            }
            let Some(directory) = self.message::<Directory>(&digest).await? else { continue };
            let wire =
                |it: &kiln_protos::reapi::Digest| Digest::from_wire(it, digest.function).ok();
            files.extend(directory.files.iter().filter_map(|it| wire(it.digest.as_ref()?)));
            open.extend(directory.directories.iter().filter_map(|it| wire(it.digest.as_ref()?)));
        }
        Ok(files)
    }

    /// `None`: it is not in the store any more.
    async fn message<M: prost::Message + Default>(
        &self,
        digest: &Digest,
    ) -> Result<Option<M>, CatalogError> {
        let bytes = match self.blobs.read(digest, 0, None).await {
            Ok(blob) => blob.collect(MAX_TREE).await?,
            Err(StoreError::NotFound(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        Ok(Some(M::decode(bytes).unwrap_or_default()))
    }
}
