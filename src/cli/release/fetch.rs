//! `kiln release export`, and how a release comes to this machine.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueHint};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use kiln_cas::stores::RemoteStore;
use kiln_cas::{BlobStore as _, Digest, DigestFunction};
use kiln_deploy::oci::{ContentDigest, Descriptor, LAYOUT_FILE};
use kiln_deploy::releases::{INDEX_FILE, LAYOUT, ReleaseName, blob_path, export_index};
use kiln_deploy::timestamp::Timestamp;
use kiln_net::causes;

use super::show::path;
use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use crate::cli::text;
use kiln_web::json::{Release, ReleaseBlob};

/// Blobs that are fetched at once.
const AT_ONCE: usize = 4;

/// Write a release to a directory: an OCI image layout that others read as well
///
/// The directory appears with everything that was signed about the release, and `kiln release verify` needs nothing
/// else. `oci-layout` is written last: what was cut short is no layout.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln release export team/app:1.4 --output app-1.4
  kiln release verify app-1.4 --key release.pub
  oras cp --from-oci-layout -r app-1.4:1.4 registry.example/team/app:1.4")]
pub struct Export {
    #[arg(value_name = "NAME", value_hint = ValueHint::Other)]
    name: ReleaseName,
    /// A directory that is not there yet, or is empty
    #[arg(long, short, value_name = "DIR")]
    output: PathBuf,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl Export {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let Self { name, output, json } = self;
        let taken = match std::fs::read_dir(&output) {
            Ok(mut entries) => entries.next().map(|_| "is not empty"),
            Err(_) => output.symlink_metadata().ok().map(|_| "is there, and no readable directory"),
        };
        if let Some(why) = taken {
            let message = format!("{} {why}", output.display());
            let hint = "name a directory that is not there yet; one without oci-layout, which an export that was cut \
                        short left, can be removed";
            return Err(CliError::usage(message).hint(hint));
        }
        let release = fetch(target, &name, &output).await?;
        if json {
            let told = serde_json::json!({
                "name": release.name, "digest": release.digest, "directory": output,
                "blobs": release.content.len(),
            });
            text::print_json(&told)?;
        } else {
            let (digest, shown) = (&release.digest, output.display());
            text::print(&format!("{} ({digest}) is in {shown}\n", release.name))?;
        }
        Ok(Exit::Done)
    }
}

/// Brings a release into a directory.
pub async fn fetch(
    target: &Target,
    name: &ReleaseName,
    directory: &Path,
) -> Result<Release, CliError> {
    let answer = Api::new(target)?.get(&path("show", target, name)).await?;
    let release: Release = api::read(answer)?;
    let store = Arc::new(RemoteStore::on(target.connect()?, &target.instance));
    let blobs = stream::iter(release.content.iter().map(Ok::<_, CliError>));
    blobs
        .try_for_each_concurrent(AT_ONCE, |blob| {
            let store = store.clone();
            async move { bring(&store, blob, directory).await }
        })
        .await?;
    let index = export_index(&described_release(&release, name)?);
    let index = index.map_err(|error| CliError::machine(causes::chain(&error)))?;
    write(&directory.join(INDEX_FILE), &index)?;
    write(&directory.join(LAYOUT_FILE), LAYOUT)?;
    Ok(release)
}

fn not_understood(what: &str) -> CliError {
    CliError::answered(format!("the server's answer is not understood: {what}"))
        .hint("are server and command of the same version?")
}

fn digest(text: &str) -> Result<ContentDigest, CliError> {
    text.parse().map_err(|_| not_understood(text))
}

/// The release in the words of those who write exports.
pub fn described_release(
    release: &Release,
    name: &ReleaseName,
) -> Result<kiln_deploy::releases::Release, CliError> {
    let of = |it: &&ReleaseBlob| it.digest == release.digest;
    let subject = release.content.iter().find(of).ok_or_else(|| not_understood("no manifest"))?;
    let attestation = |it: &ReleaseBlob| {
        let mut known = Descriptor::new(&it.media_type, digest(&it.digest)?, it.size);
        known.artifact_type = Some(it.artifact_type.clone()).filter(|it| !it.is_empty());
        Ok(known)
    };
    Ok(kiln_deploy::releases::Release {
        name: name.clone(),
        subject: Descriptor::new(&release.media_type, digest(&release.digest)?, subject.size),
        attestations: release
            .attestations
            .iter()
            .map(attestation)
            .collect::<Result<_, CliError>>()?,
        invocation: release.invocation.clone(),
        target: release.target.clone(),
        created: Timestamp::from_unix(0),
    })
}

/// Everything that a release is made of.
pub fn sizes(release: &Release) -> Result<Vec<(ContentDigest, u64)>, CliError> {
    release.content.iter().map(|it| Ok((digest(&it.digest)?, it.size))).collect()
}

async fn bring(store: &RemoteStore, blob: &ReleaseBlob, directory: &Path) -> Result<(), CliError> {
    let content = digest(&blob.digest)?;
    let stored = Digest::from_hex(content.hex().as_bytes(), blob.size, DigestFunction::Sha256)
        .map_err(|_| not_understood(&blob.digest))?;
    let failed = |error: &dyn std::error::Error| {
        CliError::answered(format!("{content} cannot be fetched: {error}"))
            .hint("what was fetched is no release yet: remove the directory, and try again")
    };
    let path = directory.join(blob_path(&content));
    let parent = path.parent().unwrap_or(directory);
    let unwritable = |error: std::io::Error| {
        CliError::machine(format!("cannot write {}: {error}", path.display()))
    };
    std::fs::create_dir_all(parent).map_err(unwritable)?;
    let mut file = named_file(parent).map_err(unwritable)?;
    let mut hasher = DigestFunction::Sha256.hasher();
    let mut chunks = store.read(&stored, 0, None).await.map_err(|it| failed(&it))?.into_stream();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|it| failed(&it))?;
        hasher.update(&chunk);
        file.write_all(&chunk).map_err(unwritable)?;
    }
    let found = hasher.finish();
    if found != stored {
        return Err(CliError::answered(format!("{content} came as other bytes: {found}")));
    }
    file.persist(&path).map_err(|error| unwritable(error.error))?;
    Ok(())
}

fn named_file(parent: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    tempfile::Builder::new()
        .prefix(".kiln-")
        .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
        .tempfile_in(parent)
}

fn write(path: &Path, data: &[u8]) -> Result<(), CliError> {
    let failed = |error: std::io::Error| {
        CliError::machine(format!("cannot write {}: {error}", path.display()))
    };
    let mut file = named_file(path.parent().unwrap_or(path)).map_err(failed)?;
    file.write_all(data).map_err(failed)?;
    file.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}
