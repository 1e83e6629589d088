//! `kiln rollout watch`: on a terminal a screen (`screen/`), else what happens, line by line, until it ends.

use clap::{Args, ValueHint};

use super::screen::{self, MAX_SILENT, PACE};
use super::show::{exit, phase, said};
use crate::cli::api::{self, Api, plain};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use crate::cli::text;
use kiln_web::json::RolloutShown;

/// Watch a rollout until it ends
///
/// On a terminal: one screen with its steps, what is measured, what the judge says and what happens, and keys to pause,
/// resume and abort it. Elsewhere: a line for each change. It goes on when the server is away for a moment, as when another
/// frontend takes over.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln rollout watch m9x2kq41c7ab
  kiln rollout watch m9x2kq41c7ab --plain   # lines, also on a terminal
  kiln rollout watch m9x2kq41c7ab --json    # the rollout as JSON when it has ended

Keys of the screen:
  q  leave it; the rollout goes on
  p  pause, r: resume, g: let it into the step at whose gate it waits; each asks why
  a  abort: asks why, and whether it is really meant

NO_COLOR turns colours off.

Exit codes:
  0  all targets have it
  1  it was reverted or rejected, or is being reverted
  6  it goes on: the screen was left")]
pub struct WatchCommand {
    /// The rollout
    #[arg(value_name = "ID", value_hint = ValueHint::Other)]
    id: String,
    /// A line for each change, also on a terminal
    #[arg(long, conflicts_with = "json")]
    plain: bool,
    /// For programs: nothing until it has ended
    #[arg(long)]
    json: bool,
}

/// The state of a rollout at which a command stops watching it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    End,
    /// The rollout has ended, or waits for a person.
    Person,
}

impl WatchCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let api = Api::new(target)?;
        if !self.plain && !self.json && screen::is_possible() {
            return screen::watch(&api, &self.id).await;
        }
        until(&api, &self.id, Until::End, self.json).await
    }
}

pub async fn until(api: &Api, id: &str, until: Until, json: bool) -> Result<Exit, CliError> {
    // One answer of the judge is shown, of the many that there may be.
    let looks = if json { "" } else { "?looks=1" };
    let path = format!("/rollouts/{}{looks}", plain(id));
    let (mut printed, mut looked, mut silent) = (String::new(), String::new(), 0);
    loop {
        let answer = match api.get(&path).await {
            Ok(answer) => answer,
            Err(error) if silent < MAX_SILENT && error.passing => {
                silent += 1;
                tokio::time::sleep(PACE).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        silent = 0;
        let shown: RolloutShown = api::read(answer.clone())?;
        if !json {
            let line = progress(&shown);
            if line != printed {
                text::print(&line)?;
                printed = line;
            }
            let judged = shown.judgements.first().map(said).unwrap_or_default();
            if judged != looked {
                text::print(&judged)?;
                looked = judged;
            }
        }
        let person = shown.rollout.paused || shown.rollout.phase == "gate";
        if shown.rollout.ended || (until == Until::Person && person) {
            if json {
                text::print(&format!("{answer:#}\n"))?;
            }
            return Ok(exit(&shown));
        }
        tokio::time::sleep(PACE).await;
    }
}

/// The progress of a rollout on one line.
fn progress(it: &RolloutShown) -> String {
    let one = &it.rollout;
    let settled = it.told.iter().filter(|it| it.standing == "settled").count();
    let step = it.steps.iter().find(|step| step.standing == "now");
    let step = step.map(|step| format!(" {}", step.name)).unwrap_or_default();
    let why = it.paused_why.as_ref().or(it.why.as_ref());
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    let next = it.next.as_ref().map(|next| format!(", decides at {next}")).unwrap_or_default();
    let took = it.reverted_s.map(|took| format!(", within {took:.1} s")).unwrap_or_default();
    let (phase, told, all) = (phase(one), one.changed, one.targets);
    format!(
        "{phase}{step}: {settled} of {told} targets settled, of {all} in all{next}{took}{why}\n"
    )
}
