//! `kiln queue`: the merge queue of a repository, on this machine or at a server.

mod at_server;
mod remote;
mod requests;
mod run;
mod show;
mod state;

use clap::{Args, Subcommand};

use crate::cli::error::{CliError, Exit};
use crate::cli::target::TargetOptions;

/// Land branches on a target that stays green: only what was tested lands.
///
/// `kiln queue run` is the queue itself: it looks after one target branch of one repository, merges waiting
/// branches in a clone of its own, runs the check there, and moves the target to exactly the commit that passed.
/// With --server a server keeps the queue, shows it on pages and takes requests: `run` is the queue's runner then,
/// and the other commands ask the server. Without, with --state, they leave requests in the state directory and
/// print what is there, whether it runs or not.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln queue run --state queue --repo git@git.example:app.git --check 'bazel test //...'
  kiln queue add --state queue --branch feature/login --priority 7
  kiln queue explain --state queue --branch feature/login

  kiln queue run --server https://kiln.example:8980 --token-file runner.token --queue app --state queue \\
      --repo git@git.example:app.git --check 'bazel test //...'
  kiln queue add --server https://kiln.example:8980 --queue app --branch feature/login
  kiln queue list --server https://kiln.example:8980 --queue app

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
    Forget(requests::Forget),
    List(show::List),
    Show(show::Show),
    Explain(show::Explain),
}

impl QueueCommand {
    /// `named`: the command line says which server is meant. `options`: that one, or the usual one.
    pub async fn run(self, named: bool, options: TargetOptions) -> Result<Exit, CliError> {
        match self.what {
            What::Run(it) => {
                let server = named.then(|| options.targets()).transpose()?;
                Box::pin(it.run(server)).await
            }
            What::Add(it) => it.run(named, || options.target()).await,
            What::Remove(it) => it.run(named, || options.target()).await,
            What::Pause(it) => it.run(named, || options.target()).await,
            What::Resume(it) => it.run(named, || options.target()).await,
            What::Forget(it) => it.run(&options.target()?).await,
            What::List(it) => it.run(named, || options.target()).await,
            What::Show(it) => it.run(named, || options.target()).await,
            What::Explain(it) => it.run(named, || options.target()).await,
        }
    }
}
