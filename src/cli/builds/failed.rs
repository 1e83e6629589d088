//! Actions that failed, each with the end of its log.

use crate::cli::actions::rows::{ended, has_failed, named, what};
use crate::cli::api::{self, Api};
use crate::cli::error::CliError;
use crate::cli::text::{Look, look, one_line};
use kiln_web::format::encode;
use kiln_web::json::{Action, Execution, Log};

/// Failed actions that are shown with their logs; of more, the first.
const MAX_FAILED: usize = 20;
/// Lines shown of the end of a log.
const LOG_LINES: usize = 20;

/// Each failed action with what it is, how it ended and the end of its log.
pub async fn failed(api: &Api, newest_first: &[Execution]) -> Result<String, CliError> {
    let failed: Vec<_> = newest_first.iter().rev().filter(|run| has_failed(run)).collect();
    if failed.is_empty() {
        return Ok("  no action failed\n".to_owned());
    }
    let mut text = String::new();
    for run in failed.iter().take(MAX_FAILED) {
        let title = format!("{}: {}", one_line(&what(run)), ended(run));
        text += &format!("\n{}\n", look(Look::Bad, &title));
        let named = named(run.action.as_ref(), &run.digest_function);
        text += &format!("  kiln action show {named} --operation {}\n", run.id);
        if !run.status_message.is_empty() {
            text += &indented(&run.status_message, LOG_LINES, "    ");
        }
        for (name, log) in logs(api, run).await? {
            text +=
                &format!("  {}\n{}", look(Look::Dim, name), indented(&log.text, LOG_LINES, "    "));
        }
    }
    if failed.len() > MAX_FAILED {
        text += &format!("\n  and {} more\n", failed.len() - MAX_FAILED);
    }
    Ok(text)
}

/// The kept output of one run: stdout and stderr, each with its name.
async fn logs(api: &Api, run: &Execution) -> Result<Vec<(&'static str, Log)>, CliError> {
    let Some(action) = &run.action else { return Ok(Vec::new()) };
    let path = format!(
        "/actions/{}/{}/{}?operation={}",
        run.digest_function,
        action.hash,
        action.size_bytes,
        encode(&run.id, false)
    );
    let action: Action = api::read(api.get(&path).await?)?;
    let logs = [("stdout", action.stdout), ("stderr", action.stderr)];
    let logs = logs.into_iter().filter_map(|(name, log)| Some((name, log?)));
    Ok(logs.filter(|(_, log)| !log.text.trim().is_empty()).collect())
}

/// The last `lines` lines of the text, each behind `margin`.
pub fn indented(text: &str, lines: usize, margin: &str) -> String {
    let all: Vec<_> = text.trim_end().lines().collect();
    let last = &all[all.len().saturating_sub(lines)..];
    last.iter().map(|line| format!("{margin}{line}\n")).collect()
}
