//! `kiln queue`: the merge queue of a repository, on this machine. No server is asked.

mod requests;
mod run;
mod show;
mod state;

use clap::{Args, Subcommand};

use crate::cli::error::{CliError, Exit};

/// Land branches on a target that stays green: only what was tested lands.
///
/// `kiln queue run` is the queue itself: it looks after one target branch of one repository, merges waiting
/// branches in a clone of its own, runs the check there, and moves the target to exactly the commit that passed.
/// The other commands leave requests in its state directory and print what is there, whether it runs or not.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln queue run --state queue --repo git@git.example:app.git --check 'bazel test //...'
  kiln queue add --state queue --branch feature/login --priority 7
  kiln queue list --state queue
  kiln queue explain --state queue --branch feature/login

The check is a command of yours and is run with code of the branches, as you and not in a sandbox: queue only
branches of those whom you would let run programs here (docs/merge-queue.md).")]
pub struct QueueCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Run(Box<run::Run>),
    Add(requests::Add),
    Remove(requests::Remove),
    Pause(requests::Pause),
    Resume(requests::Resume),
    List(show::List),
    Show(show::Show),
    Explain(show::Explain),
}

impl QueueCommand {
    pub async fn run(self) -> Result<Exit, CliError> {
        match self.what {
            What::Run(it) => Box::pin(it.run()).await,
            What::Add(it) => it.run().await,
            What::Remove(it) => it.run().await,
            What::Pause(it) => it.run().await,
            What::Resume(it) => it.run().await,
            What::List(it) => it.run().await,
            What::Show(it) => it.run().await,
            What::Explain(it) => it.run().await,
        }
    }
}
