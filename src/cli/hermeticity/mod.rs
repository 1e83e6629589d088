//! `kiln hermeticity`.

mod report;

use std::io::{IsTerminal, Write};

use clap::Args;
use kiln_protos::events::Digest;
use kiln_protos::hermeticity::hermeticity_client::HermeticityClient;
use kiln_protos::hermeticity::{CheckRequest, update::Kind};
use tonic::Status;

use crate::cli::digest::DigestArgument;
use crate::cli::error::{CliError, Exit};
use crate::cli::say::say;
use crate::cli::target::Target;
use crate::cli::text;
use kiln_web::format::counted;
use kiln_web::json::{Checked, Checks};
use report::report;

/// Run actions again under changed conditions; exit code 1 when something differs
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln hermeticity --invocation 5f3c1e1a-7a7e-4c0e-a8fd-0b1a6a0d94b2
  kiln hermeticity --target //app/... --rate 0.1
  kiln hermeticity 7f3a...e1/142 --json")]
pub struct HermeticityCommand {
    /// All actions of this build
    #[arg(long, value_name = "ID", conflicts_with_all = ["target", "actions"])]
    invocation: Option<String>,
    /// All known actions of a label, PACKAGE:all or PACKAGE/...
    #[arg(long, value_name = "PATTERN", conflicts_with = "actions")]
    target: Option<String>,
    /// These actions, with one digest function
    #[arg(value_name = "ACTION_DIGEST", required_unless_present_any = ["invocation", "target"])]
    actions: Vec<DigestArgument>,
    /// Only this part of them, above 0 and up to 1
    #[arg(long, default_value_t = 1.0)]
    rate: f64,
    /// Only so many of them
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    max: Option<u32>,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl HermeticityCommand {
    fn request(&self, instance: &str) -> Result<CheckRequest, CliError> {
        if !(self.rate > 0.0 && self.rate <= 1.0) {
            let message = format!("--rate {} is not above 0 and up to 1", self.rate);
            return Err(CliError::usage(message).hint("0.1 runs a tenth of the actions again"));
        }
        let function = self.actions.first().map(|first| first.0.function);
        if self.actions.iter().any(|action| Some(action.0.function) != function) {
            return Err(CliError::usage("the actions are of different digest functions")
                .hint("check them one function after the other"));
        }
        let digest = |DigestArgument(digest): &DigestArgument| Digest {
            hash: digest.hex(),
            size_bytes: digest.size.cast_signed(),
        };
        Ok(CheckRequest {
            instance_name: instance.to_owned(),
            invocation_id: self.invocation.clone().unwrap_or_default(),
            target: self.target.clone().unwrap_or_default(),
            actions: self.actions.iter().map(digest).collect(),
            digest_function: function.map_or(0, |function| function.to_wire() as i32),
            rate: self.rate,
            max: self.max.unwrap_or(0),
        })
    }

    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let request = self.request(&target.instance)?;
        let server = target.connect()?;
        let failed = |status: Status| {
            CliError::from_status(&target.url, &status)
                .or_hint("`kiln build list` and `kiln action list` show what the journal knows")
        };
        let mut client = HermeticityClient::new(server.channel());
        let mut updates = client.check(request).await.map_err(failed)?.into_inner();
        let mut checks: Vec<Checked> = Vec::new();
        let mut planned = 0;
        while let Some(update) = updates.message().await.map_err(failed)? {
            match update.kind {
                Some(Kind::Planned(plan)) => {
                    planned = plan.actions;
                    say(&format!("running {} of {} actions again", plan.actions, plan.known));
                }
                Some(Kind::Checked(checked)) => {
                    checks.push(Checked::from(&checked));
                    progress(checks.len(), planned);
                }
                None => {}
            }
        }
        checks.sort_by(|a, b| (&a.target, &a.mnemonic).cmp(&(&b.target, &b.mnemonic)));
        let differs = checks.iter().any(Checked::differs);
        let failed = checks.iter().filter(|one| one.verdict == "not_checked").count();
        match self.json {
            true => text::print_json(&Checks { checks })?,
            false => text::print(&report(&checks))?,
        }
        if !differs && failed > 0 {
            let failed = counted(failed as u64, "action");
            return Err(CliError::answered(format!("{failed} could not be run again"))
                .hint("the report says why; inputs that were evicted come back with a build"));
        }
        Ok(if differs { Exit::Negative } else { Exit::Done })
    }
}

/// Says on a terminal how many actions were checked, over and over on one line.
fn progress(done: usize, planned: u32) {
    let mut stderr = std::io::stderr();
    if stderr.is_terminal() {
        let end = if done as u64 == u64::from(planned) { "\n" } else { "" };
        // Progress that cannot be shown is no error.
        let _ = write!(stderr, "\r{done}/{planned} checked{end}");
        let _ = stderr.flush();
    }
}
