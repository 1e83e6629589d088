//! `kiln worker`: runs actions for a server elsewhere, and `kiln worker drain` has a worker end.

mod drain;
mod run;

use clap::{Args, Subcommand};

use crate::cli::error::{CliError, Exit};
use crate::cli::process::block_on;
use crate::cli::target::Target;
#[cfg(test)]
pub use run::OfWorker;

/// Run actions for a server on another machine, or have a worker end.
///
/// The server is named with --server, several frontends of one fleet with one each: when one is
/// not heard, the next is tried, and what runs goes on. Blobs are fetched once and kept in the data
/// directory.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  kiln worker --server http://build.example:8980
  kiln worker --server http://one.example:8980 --server http://two.example:8980
  kiln worker --server http://build.example:8980 --slots 16 --property OSFamily=linux --property pool=big
  kiln worker --server http://build.example:8980 --listen 0.0.0.0:8981    # /healthz, /readyz, /metrics
  kiln worker --server http://build.example:8980 --allow-image registry.example/team
  kiln worker --server https://build.example:8980 --tls-ca ca.pem --token-file /run/secrets/kiln-worker
  kiln worker --server https://build.example:8980 --tls-ca ca.pem --tls-client-cert worker.pem --tls-client-key worker.key
  kiln worker drain build-7-1f3a                                          # told to one that runs elsewhere

Actions that name a container image run in it where --allow-image (images.allow) allows it; the other
keys of the section images say from where and how much: `kiln config default` shows them.

Told to end (SIGTERM, or kiln worker drain), it takes nothing more and finishes what runs, for at most
workers.drain (1 h); what still runs then is given back and runs elsewhere. A second signal ends it at once.

Credentials are read again while the worker runs: certificates for every connection, a token every 10 s."
)]
pub struct WorkerCommand {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    run: run::Run,
}

#[derive(Debug, Subcommand)]
enum What {
    Drain(drain::Drain),
}

impl WorkerCommand {
    pub fn run(self, target: &Target) -> Result<Exit, CliError> {
        match self.what {
            None => self.run.run(target),
            Some(What::Drain(command)) => block_on(command.run(target)),
        }
    }
}
