//! `kiln tests gate`.

use std::ffi::OsString;
use std::time::Duration;

use clap::builder::ValueParser;
use clap::{Args, ValueHint};

use super::asking::{Asking, waited};
use super::changed::{Changed, ChangedOptions};
use crate::cli::api::Api;
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use crate::cli::text::{self, Look, look};
use crate::config::parse_time;
use kiln_ci::gate::GateAnswer;
use kiln_web::json::{Gate, GateFailure};

/// Say whether a change may go on in spite of the failures of an invocation.
///
/// A failure is masked where the same inputs have passed since: when the client tried the test again, or when the
/// server did, in the shadow. Never masked are broken tests, tests whose own sources the change edits, and
/// anything of an invocation that did not complete. A quarantined test that fails as it never did is for
/// somebody to look at: undecided.
///
/// The server knows the invocation from its build events (--bes_backend).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln tests gate --invocation 5f3c1e1a
  kiln tests gate --invocation \"$ID\" --wait 15m --base origin/main
  git diff --name-only HEAD~1 | kiln tests gate --invocation \"$ID\" --changed-files - --json

Exit codes:
  0  green: every failure is masked, or there is none
  1  red
  2  no invocation has this id
  6  undecided")]
pub struct GateCommand {
    /// What the build tool calls its invocation, or the beginning of it
    #[arg(long, value_name = "ID", value_hint = ValueHint::Other)]
    invocation: String,

    /// How long to wait for shadow runs
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = ValueParser::from(parse_time))]
    wait: Duration,

    #[command(flatten)]
    changed: ChangedOptions,

    /// The build tool that is asked for the sources of tests that failed
    #[arg(long, value_name = "PROGRAM", default_value = "bazel")]
    bazel: OsString,

    /// For programs
    #[arg(long)]
    json: bool,
}

impl GateCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let api = Api::new(target)?;
        let changed = Changed::read(&self.changed, std::slice::from_ref(&self.bazel)).await?;
        let asking = Asking {
            api: &api,
            instance: &target.instance,
            invocation: &self.invocation,
            account: None,
            changed: &changed,
        };
        let gate = waited(&asking, self.wait).await?;
        match self.json {
            true => text::print_json(&gate)?,
            false => text::print(&report(&gate))?,
        }
        Ok(Exit::Code(gate.exit_code))
    }
}

/// For people: the verdict, and each failure with its evidence.
pub fn report(gate: &Gate) -> String {
    let (word, how) = match gate.verdict {
        GateAnswer::Green => ("green", Look::Good),
        GateAnswer::Red => ("red", Look::Bad),
        GateAnswer::Undecided => ("undecided", Look::Busy),
    };
    let masked = gate.failures.iter().filter(|it| it.masked).count();
    let count = match gate.failures.len() {
        0 if gate.incomplete.is_some() => "it did not complete".to_owned(),
        0 => "nothing failed".to_owned(),
        all => format!("{masked} of {all} failures masked"),
    };
    let mut text = format!("{}: {count}\n", look(how, word));
    if let Some(why) = &gate.incomplete {
        text.push_str(&format!("  not complete: {why}\n"));
    }
    if !gate.told {
        text.push_str("  build events come here by --bes_backend; `kiln ci run` needs none\n");
    }
    gate.failures.iter().for_each(|it| text.push_str(&line(it)));
    if gate.pending {
        text.push_str("  it may still change: ask again, or give --wait more time\n");
    }
    text
}

fn line(failure: &GateFailure) -> String {
    let (sign, how) = match failure.finding.answer() {
        GateAnswer::Green => ("masked", Look::Good),
        GateAnswer::Red => ("red", Look::Bad),
        GateAnswer::Undecided => ("open", Look::Busy),
    };
    let owner = failure.quarantine.as_ref().and_then(|it| it.owner.as_deref());
    let owner = owner.map(|it| format!(" (owner: {it})")).unwrap_or_default();
    format!("  {:6} {}{owner}\n", look(how, sign), failure.text)
}
