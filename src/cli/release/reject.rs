//! `kiln release reject`.

use clap::{Args, ValueHint};
use kiln_deploy::releases::ReleaseName;

use super::show::shown;
use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use kiln_web::json::ReleaseRejection;

/// Say, for good, that a release is not to be used
///
/// Its content stays, with everything that was signed about it; it cannot be taken back. The audit log says who did it.
#[derive(Debug, Args)]
pub struct Reject {
    #[arg(value_name = "NAME", value_hint = ValueHint::Other)]
    name: ReleaseName,
    /// Why: it is kept with the release and in the audit log
    #[arg(long, value_name = "TEXT", value_hint = ValueHint::Other)]
    reason: String,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl Reject {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let rejection = ReleaseRejection {
            instance: target.instance.clone(),
            name: self.name.to_string(),
            reason: self.reason,
        };
        let answer = Api::new(target)?.post("/releases/reject", &rejection).await?;
        api::print(answer, self.json, shown)?;
        Ok(Exit::Done)
    }
}
