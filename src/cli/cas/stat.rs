//! `kiln cas stat`.

use kiln_cas::{BlobStore, Digest};

use super::remote::{Remote, named};
use crate::cli::digest::DigestArgument;
use crate::cli::error::{CliError, Exit};
use crate::cli::text;

pub async fn stat(
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
