//! The results of the parts as one, and the same whatever the order in which they came.

mod times;
mod tree;
mod zip;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use kiln_cas::{BlobStore, Digest, DigestFunction, StoreError};
use kiln_protos::reapi;

use super::subject::Subject;
use crate::reports::TestReports;

/// Bytes of all parts that are put together into one output, at most.
const MAX_OUTPUT: u64 = 64 << 20;
/// Bytes of the `Tree` messages that are put together, at most: in memory they take many times as
/// much.
const MAX_TREES: u64 = 4 << 20;
/// Bytes of what all parts printed that are put together, at most; of more, the beginning of each
/// is kept.
const MAX_LOG: u64 = 64 << 20;

/// The result of one part.
#[derive(Debug, Clone)]
pub struct Piece {
    /// The part's number, counted from 1.
    pub number: u32,
    pub result: reapi::ActionResult,
}

/// The results of all pieces as one, without an exit code.
#[derive(Debug, Default)]
pub struct Merged {
    pub result: reapi::ActionResult,
    /// What is missing from the result or cut short, in words. Empty: it is complete.
    pub remarks: Vec<String>,
    /// Bytes that were stored for the merged result.
    pub stored: u64,
}

/// The stores and readers with which the results of parts are put together.
pub struct Merger<'a> {
    pub blobs: &'a dyn BlobStore,
    pub reports: Arc<dyn TestReports>,
    pub subject: &'a Subject,
    pub function: DigestFunction,
    /// How many parts there are.
    pub count: u32,
}

type Files = Vec<(u32, reapi::OutputFile)>;
type Directories = Vec<(u32, reapi::OutputDirectory)>;

impl Merger<'_> {
    /// `pieces`: in the order of their numbers. Errors: a blob of theirs cannot be had, or none be stored.
    pub async fn put_together(&self, pieces: &[Piece]) -> Result<Merged, StoreError> {
        let mut merged = Merged::default();
        let mut files: BTreeMap<String, Files> = BTreeMap::new();
        let mut directories: BTreeMap<String, Directories> = BTreeMap::new();
        for Piece { number, result } in pieces {
            for file in &result.output_files {
                files.entry(file.path.clone()).or_default().push((*number, file.clone()));
            }
            for directory in &result.output_directories {
                let path = directory.path.clone();
                directories.entry(path).or_default().push((*number, directory.clone()));
            }
        }
        for (path, files) in files {
            if path != self.subject.status || self.subject.status_is_declared {
                self.file(&path, files, &mut merged).await?;
            }
        }
        for (path, directories) in directories {
            self.directory(&path, directories, &mut merged).await?;
        }
        self.links(pieces, &mut merged.result);
        self.streams(pieces, &mut merged).await?;
        let metadata = pieces.iter().filter_map(|piece| piece.result.execution_metadata.clone());
        merged.result.execution_metadata = Some(times::metadata(&metadata.collect::<Vec<_>>()));
        Ok(merged)
    }

    async fn file(&self, path: &str, files: Files, merged: &mut Merged) -> Result<(), StoreError> {
        let Some((_, first)) = files.first().cloned() else { return Ok(()) };
        let is_same = files.iter().all(|(_, file)| file.digest == first.digest);
        let is_list = self.subject.lists.iter().any(|list| list == path);
        let is_joined = path == self.subject.report || is_list || path.ends_with(".zip");
        if is_same || !is_joined {
            merged.result.output_files.push(first);
            return Ok(());
        }
        let mut contents = Vec::with_capacity(files.len());
        let mut left = MAX_OUTPUT;
        for (number, file) in &files {
            match self.read(file.digest.as_ref(), &mut left).await? {
                Some(data) => contents.push((*number, data)),
                None => {
                    let remark = format!(
                        "{path}: the shards left more than {MAX_OUTPUT} bytes together; only that of shard {} is kept",
                        files.first().map_or(1, |(number, _)| *number)
                    );
                    merged.remarks.push(remark);
                    merged.result.output_files.push(first);
                    return Ok(());
                }
            }
        }
        match self.joined(path, contents).await {
            Ok(data) => {
                let digest = Some(self.write(data, merged).await?.to_wire());
                let file = reapi::OutputFile { digest, contents: Vec::new(), ..first };
                merged.result.output_files.push(file);
            }
            Err(problem) => merged.remarks.push(format!("{path}: {problem}")),
        }
        Ok(())
    }

    /// Makes one file of those that the parts wrote at this path. Errors: why that cannot be done,
    /// in words.
    async fn joined(&self, path: &str, contents: Vec<(u32, Bytes)>) -> Result<Bytes, String> {
        let data = |(_, data): &(u32, Bytes)| data.clone();
        if path == self.subject.report {
            let reports = self.reports.clone();
            let all: Vec<Bytes> = contents.iter().map(data).collect();
            let joined = tokio::task::spawn_blocking(move || reports.put_together(&all)).await;
            return joined.map_err(|error| error.to_string())?;
        }
        if path.ends_with(".zip") {
            let joined = tokio::task::spawn_blocking(move || {
                let all: Vec<(u32, &[u8])> =
                    contents.iter().map(|(number, data)| (*number, &**data)).collect();
                zip::put_together(&all, MAX_OUTPUT).map(Bytes::from)
            });
            let joined = joined.await.map_err(|error| error.to_string())?;
            return joined.map_err(|(number, error)| format!("that of shard {number}: {error}"));
        }
        let mut all = Vec::new();
        for (_, text) in &contents {
            all.extend_from_slice(text);
            end_line(&mut all);
        }
        Ok(all.into())
    }

    async fn directory(
        &self,
        path: &str,
        all: Directories,
        merged: &mut Merged,
    ) -> Result<(), StoreError> {
        let Some((_, first)) = all.first().cloned() else { return Ok(()) };
        if all.iter().all(|(_, directory)| directory.tree_digest == first.tree_digest) {
            merged.result.output_directories.push(first);
            return Ok(());
        }
        let (mut trees, mut left) = (Vec::with_capacity(all.len()), MAX_TREES);
        for (number, directory) in &all {
            let tree = self.read(directory.tree_digest.as_ref(), &mut left).await?;
            trees.extend(tree.map(|tree| (*number, tree)));
        }
        let joined = match trees.len() == all.len() {
            true => tree::put_together(&trees, self.function),
            false => Err("the trees of the shards are too large"),
        };
        match joined {
            Ok(data) => {
                let tree_digest = Some(self.write(data, merged).await?.to_wire());
                let directory =
                    reapi::OutputDirectory { tree_digest, root_directory_digest: None, ..first };
                merged.result.output_directories.push(directory);
            }
            Err(problem) => merged.remarks.push(format!("{path}: {problem}")),
        }
        Ok(())
    }

    /// Takes over the parts' symlinks; where several parts have one path, the first part's link
    /// counts.
    fn links(&self, pieces: &[Piece], merged: &mut reapi::ActionResult) {
        type Links = fn(&reapi::ActionResult) -> &Vec<reapi::OutputSymlink>;
        let all = |links: Links| {
            let mut by_path = BTreeMap::new();
            for link in pieces.iter().flat_map(|piece| links(&piece.result)) {
                by_path.entry(&link.path).or_insert(link);
            }
            by_path.into_values().cloned().collect::<Vec<_>>()
        };
        merged.output_symlinks = all(|it| &it.output_symlinks);
        #[allow(deprecated, reason = "older clients read these alone")]
        {
            merged.output_file_symlinks = all(|it| &it.output_file_symlinks);
            merged.output_directory_symlinks = all(|it| &it.output_directory_symlinks);
        }
    }

    async fn streams(&self, pieces: &[Piece], merged: &mut Merged) -> Result<(), StoreError> {
        let stdout = |it: &reapi::ActionResult| (it.stdout_raw.clone(), it.stdout_digest.clone());
        let stderr = |it: &reapi::ActionResult| (it.stderr_raw.clone(), it.stderr_digest.clone());
        let stdout = self.stream("stdout", pieces, stdout, merged).await?;
        let stderr = self.stream("stderr", pieces, stderr, merged).await?;
        merged.result.stdout_digest = stdout.map(|digest| digest.to_wire());
        merged.result.stderr_digest = stderr.map(|digest| digest.to_wire());
        Ok(())
    }

    /// Puts one stream of all parts together, each part's behind a line with its number. `None`: no
    /// part printed anything.
    async fn stream(
        &self,
        name: &str,
        pieces: &[Piece],
        of: impl Fn(&reapi::ActionResult) -> (Vec<u8>, Option<reapi::Digest>),
        merged: &mut Merged,
    ) -> Result<Option<Digest>, StoreError> {
        let room = MAX_LOG / u64::from(self.count.max(1));
        let (mut all, mut is_silent, mut is_cut) = (Vec::new(), true, false);
        for Piece { number, result } in pieces {
            let (raw, digest) = of(result);
            let size = digest.as_ref().map_or(0, |digest| digest.size_bytes);
            let text = match raw.is_empty() {
                true => self.beginning(digest.as_ref(), room).await?,
                false => raw.into(),
            };
            is_silent &= text.is_empty();
            is_cut |= u64::try_from(size).unwrap_or(0) > room;
            let (count, code) = (self.count, result.exit_code);
            let header = format!("==== kiln: shard {number} of {count}, exit code {code} ====\n");
            all.extend_from_slice(header.as_bytes());
            all.extend_from_slice(&text);
            end_line(&mut all);
        }
        if is_silent {
            return Ok(None);
        }
        if is_cut {
            let remark = format!("{name}: of each shard the first {room} bytes are kept");
            all.extend_from_slice(format!("==== kiln: {remark} ====\n").as_bytes());
            merged.remarks.push(remark);
        }
        self.write(all.into(), merged).await.map(Some)
    }

    /// The content of a blob, whose size is taken from the bytes `left`. `None`: there is no room
    /// for it.
    async fn read(
        &self,
        digest: Option<&reapi::Digest>,
        left: &mut u64,
    ) -> Result<Option<Bytes>, StoreError> {
        let Some(digest) = digest.and_then(|it| Digest::from_wire(it, self.function).ok()) else {
            return Ok(Some(Bytes::new()));
        };
        let Some(rest) = left.checked_sub(digest.size) else { return Ok(None) };
        *left = rest;
        self.blobs.read(&digest, 0, None).await?.collect(digest.size).await.map(Some)
    }

    async fn beginning(
        &self,
        digest: Option<&reapi::Digest>,
        room: u64,
    ) -> Result<Bytes, StoreError> {
        let Some(digest) = digest.and_then(|it| Digest::from_wire(it, self.function).ok()) else {
            return Ok(Bytes::new());
        };
        self.blobs.read(&digest, 0, Some(room)).await?.collect(room).await
    }

    async fn write(&self, data: Bytes, merged: &mut Merged) -> Result<Digest, StoreError> {
        let digest = self.function.digest(&data);
        if !digest.is_empty_blob() {
            merged.stored = merged.stored.saturating_add(digest.size);
            self.blobs.write(&digest, data).await?;
        }
        Ok(digest)
    }
}

fn end_line(text: &mut Vec<u8>) {
    if text.last().is_some_and(|byte| *byte != b'\n') {
        text.push(b'\n');
    }
}

#[cfg(test)]
mod tests;
