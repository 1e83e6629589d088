//! `kiln cas`.

mod get;
mod progress;
mod put;
mod tree;

use clap::{Args, Subcommand};
use kiln_cas::stores::RemoteStore;
use kiln_cas::{BlobStore, Digest, DigestFunction, StoreError};

use super::digest::DigestArgument;
use super::{CliError, Exit, Target, text};

/// Fetch, store and look at blobs.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln cas get 7f3a...e1/142 > action.bin
  kiln cas get 7f3a...e1/5000000 --output app.tar
  kiln cas put app.tar                  # prints its digest
  kiln cas put third_party/zlib         # a directory: prints the digest of its Directory
  kiln cas stat 7f3a...e1/142 09bc...77/142
  kiln cas tree 09bc...77/142

A blob is named HASH/SIZE or HASH:SIZE, with blake3/ in front where it applies.")]
pub struct CasCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Get(get::Get),
    Put(put::Put),
    /// Ask which blobs the server has; exit code 1 when one is missing
    Stat {
        #[arg(value_name = "DIGEST", required = true)]
        digests: Vec<DigestArgument>,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    Tree(tree::Tree),
}

impl CasCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let store = RemoteStore::on(target.connect()?, &target.instance);
        let remote = Remote { store, server: &target.url };
        match self.what {
            What::Get(get) => get.run(&remote).await,
            What::Put(put) => put.run(&remote).await,
            What::Stat { digests, json } => stat(&remote, &digests, json).await,
            What::Tree(tree) => tree.run(&remote).await,
        }
    }
}

/// The store on the server, with errors as users read them.
struct Remote<'a> {
    store: RemoteStore,
    server: &'a str,
}

impl Remote<'_> {
    fn error(&self, error: StoreError) -> CliError {
        match error {
            StoreError::NotFound(digest) => CliError::not_found(format!(
                "the server has no blob {digest}"
            ))
            .hint("it was never uploaded, or removed after its lease; a build uploads it again"),
            StoreError::Unavailable(cause) => CliError::unreachable(self.server, cause),
            StoreError::Denied(said) => CliError::answered(said),
            StoreError::Io { .. } => CliError::machine(error.to_string()),
            error => CliError::answered(error.to_string()),
        }
    }
}

async fn stat(
    remote: &Remote<'_>,
    digests: &[DigestArgument],
    json: bool,
) -> Result<Exit, CliError> {
    let asked: Vec<Digest> = digests.iter().map(|DigestArgument(digest)| *digest).collect();
    let missing = remote.store.find_missing(&asked).await.map_err(|error| remote.error(error))?;
    let is_missing = |digest: &Digest| missing.contains(digest);
    if json {
        let blobs = asked.iter().map(|digest| {
            let mut blob = named(digest);
            blob["is_present"] = (!is_missing(digest)).into();
            blob
        });
        let blobs: Vec<_> = blobs.collect();
        text::print(&format!("{:#}\n", serde_json::json!({ "blobs": blobs })))?;
    } else {
        let lines = asked.iter().map(|digest| {
            let state = if is_missing(digest) { "missing" } else { "present" };
            format!("{state}  {digest}")
        });
        text::print(&text::lines(&lines.collect::<Vec<_>>()))?;
    }
    Ok(if missing.is_empty() { Exit::Done } else { Exit::Negative })
}

/// A digest as `--json` prints it.
fn named(digest: &Digest) -> serde_json::Value {
    serde_json::json!({
        "digest_function": digest.function.to_string(),
        "hash": digest.hex(),
        "size_bytes": digest.size,
    })
}

fn parse_function(name: &str) -> Result<DigestFunction, String> {
    DigestFunction::ALL
        .into_iter()
        .find(|function| function.to_string() == name)
        .ok_or_else(|| "choose sha256 or blake3".to_owned())
}
