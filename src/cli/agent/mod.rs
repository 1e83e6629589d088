//! `kiln agent`: runs the releases of a service on this host, and shows those that do elsewhere.

mod change;
mod options;
mod peers;
mod remote;
mod run;
mod sharing;
mod show;

use clap::{Args, Subcommand};

use crate::cli::error::{CliError, Exit};
use crate::cli::process::block_on;
use crate::cli::target::Target;

/// Run the releases of a service on this host, or look at the hosts that do.
///
/// The agent asks its server what to run (nothing connects to the agent), fetches it by its digest, verifies signatures,
/// provenance and policy before anything of it is unpacked, and switches at once. What is not well is taken back. The
/// version before stays on disk: the way back takes less than a second, and no download.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  kiln agent --server https://kiln.example --token-file /etc/kiln/agent.token --service api --environment prod \\
             --dir /var/lib/kiln-agent --key /etc/kiln/release.pub --run './bin/api --port 8080' \\
             --health http://127.0.0.1:8080/healthz --address web-1.example:8080 --label zone=a
  kiln agent --service api --dir agent --key release.pub --after 'systemctl --user restart api' --health 'api-check'
  kiln agent --service api --dir agent --key release.pub --run ./bin/api --peers-listen 10.0.3.7:8990 --label zone=a
  kiln agent list --service api --condition drifted
  kiln agent show api prod web-1
  kiln agent tell api prod web-1 team/app:1.4.2 --reason 'before there is a rollout'
  kiln agent remove api prod web-1

--run, --before, --after and a --health that is no address are run by `sh -c`. Hooks and probes get the directory of the
version as $1; what --run starts begins there, with KILN_VERSION. docs/agents.md has more."
)]
pub struct AgentCommand {
    #[command(subcommand)]
    what: Option<What>,
    #[command(flatten)]
    run: options::Options,
}

#[derive(Debug, Subcommand)]
enum What {
    List(show::List),
    Show(show::Show),
    Tell(change::Tell),
    Remove(change::Remove),
}

impl AgentCommand {
    pub fn run(self, target: Target) -> Result<Exit, CliError> {
        match self.what {
            None => run::run(&self.run, &target),
            Some(What::List(command)) => block_on(command.run(&target)),
            Some(What::Show(command)) => block_on(command.run(&target)),
            Some(What::Tell(command)) => block_on(command.run(&target)),
            Some(What::Remove(command)) => block_on(command.run(&target)),
        }
    }
}
