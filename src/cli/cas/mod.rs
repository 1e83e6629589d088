//! `kiln cas`.

mod get;
mod progress;
mod put;
mod remote;
mod stat;
mod tree;

use std::path::Path;

use clap::{Args, Subcommand};
use kiln_cas::Digest;
use kiln_cas::stores::RemoteStore;

use crate::cli::digest::DigestArgument;
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use remote::Remote;

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
            What::Stat { digests, json } => stat::stat(&remote, &digests, json).await,
            What::Tree(tree) => tree.run(&remote).await,
        }
    }
}

/// Stores a directory, and answers with the digest of its root.
pub async fn put_directory(target: &Target, path: &Path) -> Result<Digest, CliError> {
    let store = RemoteStore::on(target.connect()?, &target.instance);
    put::path(&Remote { store, server: &target.url }, path).await
}
