//! `kiln release gc`.

use clap::Args;

use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use crate::cli::text::Table;
use kiln_web::format::{bytes, short};
use kiln_web::json::{ReleaseFate, ReleaseFates, ReleaseGc};

/// Characters of a column that people read.
const SHOWN: usize = 60;

/// Remove releases that nothing keeps, and say why each of the others stays
///
/// What stands in an environment stays, and so do its last predecessors, what waits to be promoted, the newest of each repository
/// and what is young (releases.keep_predecessors, keep_newest, keep_for). A release goes with everything that was signed about
/// it, in one step with the audit log; its name never stands for other content. Its bytes go when room is needed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln release gc --dry-run
  kiln release gc --dry-run --json | jq -r '.releases[] | select(.goes) | .name'
  kiln release gc

It takes the role release-manager or admin in the instance; on a loopback address without access files the server's own user
or root.")]
pub struct Gc {
    /// Only say what would be done
    #[arg(long)]
    dry_run: bool,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl Gc {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let asked = ReleaseGc { instance: target.instance.clone(), dry_run: self.dry_run };
        let answer = Api::new(target)?.patient().post("/releases/gc", &asked).await?;
        api::print(answer, self.json, table)?;
        Ok(Exit::Done)
    }
}

fn table(it: &ReleaseFates) -> String {
    if it.releases.is_empty() {
        return "nothing is released yet\n".to_owned();
    }
    let goes = if it.removed { "removed" } else { "would go" };
    let mut table = Table::new(&["release", "", "because"], &[]);
    for ReleaseFate { name, stays, frees, .. } in &it.releases {
        let (what, why) = match stays.is_empty() {
            true => (goes, format!("nothing keeps it ({})", bytes(*frees))),
            false => ("stays", stays.join("; ")),
        };
        table.row([short(name, SHOWN), what.to_owned(), why]);
    }
    let count = it.releases.iter().filter(|it| it.goes).count();
    let all = it.releases.len();
    table.text("")
        + &format!("{count} of {all} {goes}; {} are not needed by others\n", bytes(it.frees))
}
