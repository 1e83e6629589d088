//! `kiln release`: releases are made, shown, brought elsewhere and verified.

mod create;
mod diff;
mod fetch;
mod gc;
mod import;
pub mod keys;
mod provenance;
mod reject;
mod show;
mod verify;

pub use fetch::{described_release, sizes};
pub use verify::now;

use clap::{Args, Subcommand};

use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;

/// Make, look at, export and verify releases.
///
/// A release is what a build left, under a name that never changes, with signed provenance that the server derives
/// from what it executed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln release create team/app:1.4 --invocation 3fa2... --target //app:image --source git+https://git.example/app@COMMIT
  kiln release list
  kiln release provenance team/app:1.4
  kiln release export team/app:1.4 --output app-1.4
  kiln release verify app-1.4 --key release.pub      # reads the directory and the key, and nothing else
  kiln release diff team/app:1.3 team/app:1.4
  kiln release reject team/app:1.4 --reason 'loses data'
  kiln release gc --dry-run                          # which releases nothing keeps any more, and why the others stay")]
pub struct ReleaseCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Create(create::Create),
    List(show::List),
    Show(show::Show),
    Provenance(provenance::Provenance),
    Diff(diff::Diff),
    Export(fetch::Export),
    Gc(gc::Gc),
    Import(import::Import),
    Reject(reject::Reject),
    Verify(verify::Verify),
}

impl ReleaseCommand {
    pub async fn run(
        self,
        target: impl FnOnce() -> Result<Target, CliError>,
    ) -> Result<Exit, CliError> {
        match self.what {
            What::Create(create) => create.run(&target()?).await,
            What::List(list) => list.run(&target()?).await,
            What::Show(show) => show.run(&target()?).await,
            What::Provenance(provenance) => provenance.run(&target()?).await,
            What::Diff(diff) => diff.run(&target()?).await,
            What::Export(export) => export.run(&target()?).await,
            What::Gc(gc) => gc.run(&target()?).await,
            What::Import(import) => import.run(&target()?).await,
            What::Reject(reject) => reject.run(&target()?).await,
            What::Verify(verify) => verify.run(target).await,
        }
    }
}
