//! `kiln cas put`.

use std::fs::{File, Metadata};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Args;
use kiln_cas::{BlobStore, Digest, DigestFunction};
use kiln_protos::reapi::{Directory, DirectoryNode, FileNode, SymlinkNode};
use prost::Message;

use super::progress::Progress;
use super::remote::{Remote, named, parse_function};
use crate::cli::error::{CliError, Exit};
use crate::cli::text;

/// Bytes of a file that are read and sent at a time.
const CHUNK: usize = 1 << 20;
/// Deepest directory that is uploaded.
const MAX_DEPTH: usize = 256;

/// Store files, directories or stdin (-), and print their digests
#[derive(Debug, Args)]
pub struct Put {
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// sha256 or blake3
    #[arg(long, value_name = "NAME", default_value = "sha256", value_parser = parse_function)]
    digest_function: DigestFunction,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl Put {
    pub async fn run(self, remote: &Remote<'_>) -> Result<Exit, CliError> {
        let upload = Upload { remote, function: self.digest_function };
        let mut stored = Vec::new();
        for path in &self.paths {
            let digest = upload.path(path).await?;
            if self.json {
                let mut blob = named(&digest);
                blob["path"] = path.to_string_lossy().into();
                stored.push(blob);
            } else {
                text::print(&format!("{digest}  {}\n", path.display()))?;
            }
        }
        if self.json {
            text::print(&format!("{:#}\n", serde_json::json!({ "blobs": stored })))?;
        }
        Ok(Exit::Done)
    }
}

/// Stores what is there, in the default function.
pub async fn path(remote: &Remote<'_>, path: &Path) -> Result<Digest, CliError> {
    Upload { remote, function: DigestFunction::Sha256 }.path(path).await
}

struct Upload<'a> {
    remote: &'a Remote<'a>,
    function: DigestFunction,
}

fn unreadable(path: &Path, error: std::io::Error) -> CliError {
    CliError::machine(format!("cannot read {}: {error}", path.display()))
}

impl Upload<'_> {
    async fn path(&self, path: &Path) -> Result<Digest, CliError> {
        if path == Path::new("-") {
            return self.stdin().await;
        }
        let metadata = std::fs::metadata(path).map_err(|error| unreadable(path, error))?;
        if metadata.is_dir() {
            return Box::pin(self.directory(path, 0)).await;
        }
        let mut file = File::open(path).map_err(|error| unreadable(path, error))?;
        self.file(path, &mut file).await
    }

    /// Stores what stdin gives. It is kept in a file first, since every upload begins with the
    /// digest.
    async fn stdin(&self) -> Result<Digest, CliError> {
        let name = Path::new("stdin");
        let mut spool = tempfile::tempfile().map_err(|error| unreadable(name, error))?;
        std::io::copy(&mut std::io::stdin().lock(), &mut spool)
            .and_then(|_| spool.flush())
            .map_err(|error| unreadable(name, error))?;
        self.file(name, &mut spool).await
    }

    async fn file(&self, path: &Path, file: &mut File) -> Result<Digest, CliError> {
        let failed = |error| unreadable(path, error);
        let mut hasher = self.function.hasher();
        let mut buffer = vec![0; CHUNK];
        file.rewind().map_err(failed)?;
        loop {
            let read = file.read(&mut buffer).map_err(failed)?;
            if read == 0 {
                break;
            }
            hasher.update(&buffer[..read]);
        }
        let digest = hasher.finish();
        if !self.is_missing(&digest).await? {
            return Ok(digest);
        }
        file.rewind().map_err(failed)?;
        self.send(&digest, |buffer| file.read(buffer).map_err(failed)).await?;
        Ok(digest)
    }

    async fn is_missing(&self, digest: &Digest) -> Result<bool, CliError> {
        let missing = self.remote.store.find_missing(&[*digest]).await;
        Ok(!missing.map_err(|error| self.remote.error(error))?.is_empty())
    }

    async fn send(
        &self,
        digest: &Digest,
        mut read: impl FnMut(&mut [u8]) -> Result<usize, CliError>,
    ) -> Result<(), CliError> {
        let failed = |error| self.remote.error(error);
        let mut writer = self.remote.store.writer(digest).await.map_err(failed)?;
        let mut progress = Progress::new(digest.size);
        loop {
            let mut buffer = vec![0; CHUNK];
            let length = read(&mut buffer)?;
            if length == 0 {
                break;
            }
            buffer.truncate(length);
            writer.write(Bytes::from(buffer)).await.map_err(failed)?;
            progress.add(length);
        }
        progress.end();
        writer.commit().await.map_err(failed)
    }

    /// A Directory message with all below it (REAPI: names sorted, each once).
    async fn directory(&self, path: &Path, depth: usize) -> Result<Digest, CliError> {
        if depth > MAX_DEPTH {
            let message = format!("{} is more than {MAX_DEPTH} levels deep", path.display());
            return Err(CliError::usage(message).hint("put an archive of it, or what is below it"));
        }
        let failed = |error| unreadable(path, error);
        let entries = std::fs::read_dir(path).map_err(failed)?;
        let mut entries = entries.collect::<Result<Vec<_>, _>>().map_err(failed)?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        let mut message = Directory::default();
        for entry in entries {
            let path = entry.path();
            let name = entry.file_name().into_string().map_err(|_| {
                CliError::usage(format!("the name of {} is not UTF-8", path.display()))
                    .hint("REAPI has no other names; rename it")
            })?;
            let metadata = entry.metadata().map_err(|error| unreadable(&path, error))?;
            self.entry(&mut message, name, &path, &metadata, depth).await?;
        }
        let encoded = Bytes::from(message.encode_to_vec());
        let digest = self.function.digest(&encoded);
        let stored = self.remote.store.write(&digest, encoded).await;
        stored.map_err(|error| self.remote.error(error))?;
        Ok(digest)
    }

    async fn entry(
        &self,
        message: &mut Directory,
        name: String,
        path: &Path,
        metadata: &Metadata,
        depth: usize,
    ) -> Result<(), CliError> {
        let failed = |error| unreadable(path, error);
        if metadata.is_symlink() {
            let target = std::fs::read_link(path).map_err(failed)?;
            let target = target.to_string_lossy().into_owned();
            message.symlinks.push(SymlinkNode { name, target, node_properties: None });
        } else if metadata.is_dir() {
            let digest = Box::pin(self.directory(path, depth + 1)).await?.to_wire();
            message.directories.push(DirectoryNode { name, digest: Some(digest) });
        } else if metadata.is_file() {
            let mut file = File::open(path).map_err(failed)?;
            let digest = Some(self.file(path, &mut file).await?.to_wire());
            let is_executable = metadata.permissions().mode() & 0o111 != 0;
            message.files.push(FileNode { name, digest, is_executable, node_properties: None });
        } else {
            let message = format!("{} is no file, directory or link", path.display());
            return Err(CliError::usage(message).hint("leave it out: it has no content to store"));
        }
        Ok(())
    }
}
