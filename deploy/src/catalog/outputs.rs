//! What a target left in an invocation, out of the records of its actions and, where there are any, out of what its build
//! events say.

use std::collections::{BTreeSet, HashSet};

use kiln_cas::{Digest, SharedBlobStore};
use kiln_protos::events::Execution;
use kiln_protos::reapi::Directory;

use super::error::CatalogError;
use super::files::{OutputFile, OutputNode, ToldFile, fits, is_same};
use super::left::{Left, MAX_DIRECTORIES, message};
use crate::executions::{ExecutionStore, Invocation, RecordId, function};

/// Records of one target that are looked at.
const MAX_RECORDS: usize = 10_000;
/// Records that are read together.
const TOGETHER: usize = 64;
/// Names that a message lists at most.
const MAX_NAMED: usize = 8;
/// Says which outputs are wanted, and of which target.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub target: String,
    /// What build events say; nothing where there are none.
    pub told: Option<Vec<ToldFile>>,
    /// Paths, or their ends; empty: all.
    pub paths: Vec<String>,
    /// The hash of the one action that is meant, where that is known: anybody who builds here may name the invocation and the
    /// target in his requests.
    pub action: Option<String>,
}

/// The outputs, and when they were made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outputs {
    pub files: Vec<OutputFile>,
    /// Links and empty directories. Where there is a file of the same path as well, the file is what the link leads to.
    pub nodes: Vec<OutputNode>,
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
pub(super) struct Made {
    pub left: Left,
    input_root: Option<Digest>,
}

fn all(made: impl IntoIterator<Item = Made>) -> (Vec<OutputFile>, Vec<OutputNode>) {
    let (files, nodes): (Vec<_>, Vec<_>) =
        made.into_iter().map(|it| (it.left.files, it.left.nodes)).unzip();
    (files.concat(), nodes.concat())
}

impl Finder<'_> {
    pub async fn outputs(&self, wanted: &Wanted) -> Result<Outputs, CatalogError> {
        let mut found = Outputs { started: i64::MAX, finished: 0, ..Outputs::default() };
        let made = self.made(wanted, &mut found).await?;
        (found.files, found.nodes) = match &wanted.told {
            Some(told) => self.of_told(told, &wanted.paths, &made).await?,
            None if !wanted.paths.is_empty() => all(made),
            None => self.final_outputs(&wanted.target, made).await?,
        };
        found.files.sort();
        found.files.dedup();
        found.nodes.sort();
        found.nodes.dedup();
        if !wanted.paths.is_empty() {
            self.choose(wanted, &mut found)?;
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

    /// Leaves of the outputs that were found those that somebody asked for by name.
    fn choose(&self, wanted: &Wanted, found: &mut Outputs) -> Result<(), CatalogError> {
        let Outputs { files, nodes, .. } = found;
        let is_none = |path: &&String| !files.iter().any(|it| fits(&it.path, path));
        if let Some(path) = wanted.paths.iter().find(is_none) {
            return Err(CatalogError::NoSuchOutput {
                target: wanted.target.clone(),
                path: path.clone(),
                known: files.iter().take(MAX_NAMED).map(|it| it.path.clone()).collect(),
            });
        }
        let is_wanted = |it: &str| wanted.paths.iter().any(|path| fits(it, path));
        files.retain(|it| is_wanted(&it.path));
        nodes.retain(|it| is_wanted(&it.path));
        Ok(())
    }

    /// The actions of the target that ended well.
    async fn made(&self, wanted: &Wanted, times: &mut Outputs) -> Result<Vec<Made>, CatalogError> {
        let of = |(id, targets): (&RecordId, &Vec<std::sync::Arc<str>>)| {
            targets.iter().any(|it| is_same(it, &wanted.target)).then_some(*id)
        };
        let is_meant = |it: &&Execution| {
            let hash = it.action.as_ref().map(|it| it.hash.as_str());
            it.exit_code == 0 && (wanted.action.is_none() || wanted.action.as_deref() == hash)
        };
        let mut ids: Vec<_> = self.invocation.used.iter().filter_map(of).collect();
        ids.sort_unstable();
        ids.truncate(MAX_RECORDS);
        let mut all = Vec::new();
        for ids in ids.chunks(TOGETHER) {
            for kept in self.store.get_each(ids).await?.into_iter().flatten() {
                let Some(execution) = kept.execution.as_ref().filter(is_meant) else {
                    continue;
                };
                times.note(execution);
                let input_root = execution.input_root.as_ref().and_then(|it| {
                    let size = u64::try_from(it.size_bytes).ok()?;
                    Digest::from_hex(it.hash.as_bytes(), size, function(&kept)?).ok()
                });
                let left = Left::read(self.blobs, &kept).await?;
                all.push(Made { left, input_root });
            }
        }
        Ok(all)
    }

    /// The outputs of the one action that makes nothing for another action of the target.
    async fn final_outputs(
        &self,
        target: &str,
        made: Vec<Made>,
    ) -> Result<(Vec<OutputFile>, Vec<OutputNode>), CatalogError> {
        if made.len() <= 1 {
            return Ok(all(made));
        }
        let consumed = self.consumed(&made).await?;
        let last = |it: &Made| {
            let files = &it.left.files;
            !files.is_empty() && !files.iter().any(|it| consumed.contains(&it.digest))
        };
        let mut last: Vec<_> = made.into_iter().filter(last).collect();
        if last.len() > 1 {
            let first = |it: &Made| it.left.files.first().map(|it| it.path.clone());
            return Err(CatalogError::Ambiguous {
                target: target.to_owned(),
                count: last.len(),
                paths: last.iter().filter_map(first).take(MAX_NAMED).collect(),
            });
        }
        Ok(all(last.pop()))
    }

    async fn consumed(&self, made: &[Made]) -> Result<HashSet<Digest>, CatalogError> {
        let (mut files, mut seen) = (HashSet::new(), HashSet::new());
        let mut open: Vec<_> = made.iter().filter_map(|it| it.input_root).collect();
        while let Some(digest) = open.pop() {
            if !seen.insert(digest) || seen.len() > MAX_DIRECTORIES {
                continue;
            }
            let Some(directory) = message::<Directory>(self.blobs, &digest).await? else {
                continue;
            };
            let wire =
                |it: &kiln_protos::reapi::Digest| Digest::from_wire(it, digest.function).ok();
            files.extend(directory.files.iter().filter_map(|it| wire(it.digest.as_ref()?)));
            open.extend(directory.directories.iter().filter_map(|it| wire(it.digest.as_ref()?)));
        }
        Ok(files)
    }
}
