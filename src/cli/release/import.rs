//! `kiln release import`.

use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use kiln_cas::stores::RemoteStore;
use kiln_cas::{BlobStore as _, Digest, DigestFunction};
use kiln_deploy::oci::{DirectoryLayout, Layout as _, LayoutLimits, MAX_INDEX_BYTES, check_layout};
use kiln_deploy::releases::{self, Expected, Failure, INDEX_FILE};
use kiln_net::causes;

use super::show::shown;
use super::{keys, verify};
use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use kiln_web::json::{Release, ReleaseImport};

/// Bytes that are sent at once.
const CHUNK: usize = 1 << 20;

/// Bring an export of another server to this one
///
/// It is verified here first, and by the server once more: everything that is signed must be signed with this key, or with one of
/// a policy. It keeps its name, its digest and its signatures.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln release import app-1.4 --key release.pub
  kiln release import app-1.4 --key keys.json

A policy of keys says when each is valid; docs/releases.md has the format.")]
pub struct Import {
    /// Where it was exported to: an OCI image layout
    #[arg(value_name = "DIR")]
    directory: PathBuf,
    /// Whom to trust: a public key in PEM, or a policy of keys in JSON
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl Import {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let (keys, public_key) = keys::given(&self.key)?;
        let layout = DirectoryLayout::new(&self.directory);
        let verified = releases::verify(&layout, &keys, &Expected::default(), verify::now());
        verified.map_err(|Failure { broken, .. }| {
            CliError::not_found(format!(
                "{} is not verified: {}",
                self.directory.display(),
                causes::chain(&broken)
            ))
            .hint("--key is the key that signed it; docs/releases.md says what is verified")
        })?;
        let store = RemoteStore::on(target.connect()?, &target.instance);
        self.send(&layout, &store).await?;
        let index = layout.file(INDEX_FILE, MAX_INDEX_BYTES).map_err(|it| self.unreadable(&it))?;
        let import = ReleaseImport {
            instance: target.instance.clone(),
            index: STANDARD.encode(index),
            public_key,
        };
        let answer = Api::new(target)?.patient().post("/releases/import", &import).await?;
        api::print(answer, self.json, |it: &Release| format!("imported {}", shown(it)))?;
        Ok(Exit::Done)
    }

    fn unreadable(&self, error: &dyn std::error::Error) -> CliError {
        CliError::usage(format!("{} cannot be read: {error}", self.directory.display()))
    }

    async fn send(&self, layout: &DirectoryLayout, store: &RemoteStore) -> Result<(), CliError> {
        let checked = check_layout(layout, LayoutLimits::default())
            .map_err(|error| CliError::usage(causes::chain(&error)))?;
        for content in checked.documents.keys().chain(&checked.blobs) {
            let path = layout.blob_path(content);
            let size = std::fs::metadata(&path).map_err(|it| self.unreadable(&it))?.len();
            let digest = Digest::from_hex(content.hex().as_bytes(), size, DigestFunction::Sha256)
                .map_err(|error| CliError::usage(format!("{content}: {error}")))?;
            self.put(store, &digest, &path).await?;
        }
        Ok(())
    }

    async fn put(&self, store: &RemoteStore, digest: &Digest, path: &Path) -> Result<(), CliError> {
        use std::io::Read as _;
        let failed = |error: kiln_cas::StoreError| CliError::answered(causes::chain(&error));
        if store.find_missing(&[*digest]).await.map_err(failed)?.is_empty() {
            return Ok(());
        }
        let mut file = std::fs::File::open(path).map_err(|it| self.unreadable(&it))?;
        let mut writer = store.writer(digest).await.map_err(failed)?;
        loop {
            let mut chunk = Vec::new();
            let read = file.by_ref().take(CHUNK as u64).read_to_end(&mut chunk);
            if read.map_err(|it| self.unreadable(&it))? == 0 {
                return writer.commit().await.map_err(failed);
            }
            writer.write(chunk.into()).await.map_err(failed)?;
        }
    }
}
