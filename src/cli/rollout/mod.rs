//! `kiln rollout`: releases come to their targets step by step.

mod ask;
mod declared;
mod drill;
mod locks;
mod parts;
mod plan;
mod screen;
mod show;
mod signals;
mod start;
mod traffic;
mod watch;

use clap::{Args, Subcommand};

use crate::cli::error::{CliError, Exit};
use crate::cli::process::block_on;
use crate::cli::target::Target;
use kiln_web::json::RolloutSaid;

/// Roll a release out step by step, watch it, and stop it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln rollout plan rollout.toml
  kiln rollout start rollout.toml --release team/app:1.4.2 --env prod --reason 'release of June'
  kiln rollout watch m9x2kq41c7ab
  kiln rollout abort m9x2kq41c7ab --reason 'the old clients break'
  kiln rollout lock api --env prod --for 2h --reason 'a migration'")]
pub struct RolloutCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Plan(plan::PlanCommand),
    Signals(signals::SignalsCommand),
    Traffic(traffic::TrafficCommand),
    #[command(flatten)]
    Asks(Asks),
}

/// What a server is asked.
#[derive(Debug, Subcommand)]
enum Asks {
    Start(start::StartCommand),
    Drill(drill::DrillCommand),
    List(show::ListCommand),
    Show(show::ShowCommand),
    Watch(watch::WatchCommand),
    /// Stop what goes forward; it is still watched, and reverted on a breach
    Pause(ask::SayCommand),
    /// Let it go on
    Resume(ask::SayCommand),
    /// Let it into the step at whose gate it waits
    Promote(ask::SayCommand),
    /// Revert it: all targets that were changed return to what ran before
    Abort(ask::SayCommand),
    Abandon(ask::AbandonCommand),
    Lock(locks::LockCommand),
    Unlock(locks::UnlockCommand),
    Locks(locks::LocksCommand),
}

impl RolloutCommand {
    /// `target`: the server, which only some of them ask.
    pub fn run(self, target: impl FnOnce() -> Result<Target, CliError>) -> Result<Exit, CliError> {
        match self.what {
            What::Plan(plan) => plan.run(target),
            What::Signals(signals) => signals.run(),
            What::Traffic(traffic) => traffic.run(),
            What::Asks(asks) => block_on(asks.run(&target()?)),
        }
    }
}

impl Asks {
    async fn run(self, target: &Target) -> Result<Exit, CliError> {
        match self {
            Self::Start(it) => it.run(target).await,
            Self::Drill(it) => it.run(target).await,
            Self::List(it) => it.run(target).await,
            Self::Show(it) => it.run(target).await,
            Self::Watch(it) => it.run(target).await,
            Self::Pause(it) => it.run(target, RolloutSaid::Pause).await,
            Self::Resume(it) => it.run(target, RolloutSaid::Resume).await,
            Self::Promote(it) => it.run(target, RolloutSaid::Promote).await,
            Self::Abort(it) => it.run(target, RolloutSaid::Abort).await,
            Self::Abandon(it) => it.run(target).await,
            Self::Lock(it) => it.run(target).await,
            Self::Unlock(it) => it.run(target).await,
            Self::Locks(it) => it.run(target).await,
        }
    }
}
