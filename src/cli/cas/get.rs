//! `kiln cas get`.

use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use futures_util::StreamExt;
use kiln_cas::blob::BlobStream;
use kiln_cas::{BlobStore, Digest};

use super::progress::Progress;
use super::remote::Remote;
use crate::cli::digest::DigestArgument;
use crate::cli::error::{CliError, Exit};
use crate::cli::text;

/// Write a blob to stdout or a file; what arrives is verified
#[derive(Debug, Args)]
pub struct Get {
    #[arg(value_name = "DIGEST")]
    digest: DigestArgument,
    /// Write to this file, which appears only when it is whole
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

impl Get {
    pub async fn run(self, remote: &Remote<'_>) -> Result<Exit, CliError> {
        let DigestArgument(digest) = self.digest;
        let blob =
            remote.store.read(&digest, 0, None).await.map_err(|error| remote.error(error))?;
        let chunks = blob.into_stream();
        match self.output {
            None => copy(remote, &digest, chunks, text::write_out).await?,
            Some(path) => to_file(remote, &digest, chunks, &path).await?,
        }
        Ok(Exit::Done)
    }
}

async fn to_file(
    remote: &Remote<'_>,
    digest: &Digest,
    chunks: BlobStream,
    path: &Path,
) -> Result<(), CliError> {
    let failed = |error: std::io::Error| {
        CliError::machine(format!("cannot write {}: {error}", path.display()))
    };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let file = tempfile::Builder::new()
        .prefix(".kiln-get-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .tempfile_in(directory.unwrap_or(Path::new(".")))
        .map_err(failed)?;
    copy(remote, digest, chunks, |data| file.as_file().write_all(data).map_err(failed)).await?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// Writes chunks to the output. Error: the bytes do not hash to the digest.
async fn copy(
    remote: &Remote<'_>,
    digest: &Digest,
    mut chunks: BlobStream,
    mut write: impl FnMut(&[u8]) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let mut hasher = digest.function.hasher();
    let mut progress = Progress::new(digest.size);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| remote.error(error))?;
        hasher.update(&chunk);
        write(&chunk)?;
        progress.add(chunk.len());
    }
    progress.end();
    let actual = hasher.finish();
    if actual != *digest {
        let message = format!("the server sent bytes that are {actual}, not {digest}");
        return Err(CliError::answered(message).hint("do not use what was written"));
    }
    Ok(())
}
