//! `kiln health`.

use clap::Args;

use super::api::Api;
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use crate::cli::text;

/// Say whether a server or worker takes work: for health checks in containers and scripts.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln health
  kiln health --live          # whether it answers at all; also true while it drains
  kiln health --server https://localhost:8980 --tls-ca ca.pem
  kiln health --server http://localhost:8981    # of kiln worker --listen

Exit codes: 0 ready, 1 not ready (it says why), 3 it cannot be reached.")]
pub struct HealthCommand {
    /// Whether it answers at all
    #[arg(long)]
    live: bool,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl HealthCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let path = if self.live { "/healthz" } else { "/readyz" };
        let (ready, said) = Api::new(target)?.health(path).await?;
        match self.json {
            true => {
                text::print_json(&serde_json::json!({"ready": ready, "said": said.trim_end()}))?
            }
            false => text::print(&said)?,
        }
        Ok(if ready { Exit::Done } else { Exit::Negative })
    }
}
