//! `kiln pipeline watch`: what stages print and how they end, until the run does.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use clap::{Args, ValueHint};

use super::show::{exit, is_end, stands, summary};
use crate::cli::api::{self, Api, plain};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use crate::cli::text::{self, Look, look, one_line};
use kiln_web::format::counted;
use kiln_web::json::{PipelineLog, PipelineShown, PipelineStage};

const PACE: Duration = Duration::from_millis(700);
/// How often a server that does not answer is asked again, one after the other.
const MAX_SILENT: u32 = 300;
/// Logs that are asked for in one look.
const MAX_LOGS: usize = 20;
/// Parts of one log that are read in one look.
const MAX_PARTS: usize = 4;
/// Characters of a line without an end that is printed all the same.
const MAX_LINE: usize = 4_000;

/// Watch a run: what its stages print, line by line, until it ends
///
/// It goes on when the server is away for a moment, as when another frontend takes over.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln pipeline watch mdx2kq41c7ab
  kiln pipeline watch mdx2kq41c7ab --json    # the run as JSON when it has ended

Exit codes:
  0  it passed
  1  it failed, was cancelled, or another run took its place")]
pub struct WatchCommand {
    /// The run
    #[arg(value_name = "ID", value_hint = ValueHint::Other)]
    id: String,
    /// For programs: nothing until it has ended
    #[arg(long)]
    json: bool,
}

/// The state of a run at which a command stops watching it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    End,
    /// The run has ended, or waits for people.
    Person,
}

impl WatchCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        until(&Api::new(target)?, &self.id, Until::End, self.json).await
    }
}

pub async fn until(api: &Api, id: &str, until: Until, json: bool) -> Result<Exit, CliError> {
    let path = format!("/pipelines/{}", plain(id));
    let mut screen = Screen::default();
    let mut silent = 0;
    loop {
        let looked = look_once(api, &path, &mut screen, json).await;
        let (answer, shown) = match looked {
            Ok(looked) => looked,
            Err(error) if silent < MAX_SILENT && error.passing => {
                silent += 1;
                tokio::time::sleep(PACE).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        silent = 0;
        let asks = until == Until::Person && shown.run.stands == "asking";
        if asks || (shown.run.ended && (json || screen.is_done(&shown))) {
            match json {
                true => text::print(&format!("{answer:#}\n"))?,
                false => text::print(&summary(&shown))?,
            }
            return Ok(exit(&shown));
        }
        // What is left to be printed of a run that has ended is there already.
        if !shown.run.ended {
            tokio::time::sleep(PACE).await;
        }
    }
}

async fn look_once(
    api: &Api,
    path: &str,
    screen: &mut Screen,
    json: bool,
) -> Result<(serde_json::Value, PipelineShown), CliError> {
    let answer = api.get(path).await?;
    let shown: PipelineShown = api::read(answer.clone())?;
    if !json {
        screen.begun(&shown)?;
        screen.logs(api, path, &shown).await?;
        screen.changed(&shown)?;
    }
    Ok((answer, shown))
}

/// How far the log of a stage was printed.
#[derive(Default)]
struct Printed {
    attempt: u32,
    offset: u64,
    /// A line that has not ended.
    rest: String,
    is_done: bool,
}

/// What has been printed of a run so far, so that only changes are printed next.
#[derive(Default)]
struct Screen {
    is_begun: bool,
    standing: String,
    logs: HashMap<usize, Printed>,
    stages: BTreeMap<usize, String>,
}

impl Screen {
    fn begun(&mut self, shown: &PipelineShown) -> Result<(), CliError> {
        if !self.is_begun {
            self.is_begun = true;
            let (run, all) = (&shown.run, counted(shown.run.stages as u64, "stage"));
            text::print(&look(
                Look::Bold,
                &format!("{} {}: {all}\n", one_line(&run.pipeline), run.id),
            ))?;
        }
        if self.standing != shown.run.stands {
            self.standing.clone_from(&shown.run.stands);
            let group = shown.run.group.as_deref().unwrap_or_default();
            if self.standing == "queued" && !group.is_empty() {
                text::print(&format!("waits for its turn in {:?}\n", one_line(group)))?;
            }
        }
        Ok(())
    }

    /// Whether everything that stages have printed is printed here.
    fn is_done(&self, shown: &PipelineShown) -> bool {
        let done = |(at, stage): (usize, &PipelineStage)| {
            !prints(stage) || self.logs.get(&at).is_some_and(|it| it.is_done)
        };
        shown.stages.iter().enumerate().all(done)
    }

    async fn logs(&mut self, api: &Api, path: &str, shown: &PipelineShown) -> Result<(), CliError> {
        let mut asked = 0;
        for (at, stage) in shown.stages.iter().enumerate() {
            let printed = self.logs.entry(at).or_default();
            if !prints(stage) || (printed.is_done && printed.attempt >= stage.attempts) {
                continue;
            }
            asked += 1;
            if asked > MAX_LOGS {
                return Ok(());
            }
            printed.attempt = printed.attempt.max(1);
            let attempt = printed.attempt;
            let part = printed.next(api, path, at).await?;
            let is_last = attempt >= stage.attempts;
            // An attempt that is followed by another one, and one of a stage that has ended, prints nothing more.
            let is_over = part.text.is_empty() && (!is_last || is_end(stage));
            printed.print(&stage.name, is_over)?;
            if is_over && is_last {
                printed.is_done = true;
            } else if is_over {
                *printed = Printed { attempt: attempt + 1, ..Printed::default() };
            }
        }
        Ok(())
    }

    /// Prints the state of each stage whose state has changed.
    fn changed(&mut self, shown: &PipelineShown) -> Result<(), CliError> {
        for (at, stage) in shown.stages.iter().enumerate() {
            let is_read = self.logs.get(&at).is_some_and(|it| it.is_done);
            let is_quiet = is_end(stage) && prints(stage) && !is_read;
            let known = self.stages.entry(at).or_insert_with(|| "waiting".to_owned());
            let line = format!("{} {}", stage.stands, stage.reason.as_deref().unwrap_or_default());
            if is_quiet || *known == line || *known == stage.stands {
                continue;
            }
            *known = line;
            let reason = stage.reason.as_ref().map(|it| format!(": {}", one_line(it)));
            let reason = reason.unwrap_or_default();
            let name = look(Look::Bold, &one_line(&stage.name));
            let took = if is_end(stage) && stage.attempts > 0 {
                format!(" after {:.1} s", stage.took_s)
            } else {
                String::new()
            };
            text::print(&format!("{name} {}{took}{reason}\n", stands(stage)))?;
        }
        Ok(())
    }
}

/// Whether a stage may have a log.
fn prints(stage: &PipelineStage) -> bool {
    stage.attempts > 0 && stage.kind != "approve"
}

impl Printed {
    /// Reads the next part of a stage's log; an answer without a text says that all that is there
    /// was read.
    async fn next(&mut self, api: &Api, path: &str, at: usize) -> Result<PipelineLog, CliError> {
        for read in 1.. {
            let (attempt, offset) = (self.attempt, self.offset);
            let query = format!("{path}/log?stage={at}&attempt={attempt}&offset={offset}");
            let part: PipelineLog = api::read(api.get(&query).await?)?;
            self.offset = part.next;
            self.rest.push_str(&part.text);
            if part.text.is_empty() || read >= MAX_PARTS {
                return Ok(part);
            }
        }
        Err(CliError::answered("a log has no end"))
    }

    /// Prints the whole lines that were read, each with the name of its stage before it; the rest
    /// too where the stage is over.
    fn print(&mut self, name: &str, is_over: bool) -> Result<(), CliError> {
        let end = match self.rest.rfind('\n') {
            _ if is_over || self.rest.len() > MAX_LINE => self.rest.len(),
            Some(at) => at + 1,
            None => 0,
        };
        let rest = self.rest.split_off(end);
        let lines = std::mem::replace(&mut self.rest, rest);
        let name = look(Look::Dim, &format!("{} |", one_line(name)));
        for line in lines.lines() {
            text::print(&format!("{name} {line}\n"))?;
        }
        Ok(())
    }
}
