//! `kiln audit log`.

use clap::{Args, ValueHint};

use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use crate::cli::text::Table;
use kiln_web::format;
use kiln_web::json::{AuditCheck, AuditEntries};

/// Characters of a column that people read.
const SHOWN: usize = 80;

/// Print the audit log, newest first
///
/// It says who drained workers and who put which test into quarantine, and why. Each entry is bound to the one
/// before it by a hash, so that a change of what was written shows. It takes the role admin in all instances.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln audit log
  kiln audit log --action release. --subject 'in prod'
  kiln audit log --limit 500 --json | jq '.entries[] | select(.action | startswith(\"tests.\"))'
  kiln audit log --check     # exit code 1 where an entry was changed or is missing")]
pub struct Log {
    /// Most entries
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,

    /// Only entries before this number
    #[arg(long, value_name = "NUMBER")]
    before: Option<u64>,

    /// Only what was done by those whose names hold this
    #[arg(long, value_name = "TEXT", value_hint = ValueHint::Other)]
    actor: Option<String>,

    /// Only what was done in ways that begin so
    #[arg(long, value_name = "ACTION", value_hint = ValueHint::Other)]
    action: Option<String>,

    /// Only what was done to what holds this in its name
    #[arg(long, value_name = "TEXT", value_hint = ValueHint::Other)]
    subject: Option<String>,

    /// Only say whether the chain of entries holds
    #[arg(long, conflicts_with_all = ["limit", "before", "actor", "action", "subject"])]
    check: bool,

    /// For programs
    #[arg(long)]
    json: bool,
}

impl Log {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let server = Api::new(target)?;
        if self.check {
            let answer = server.get("/audit/check").await?;
            let checked: AuditCheck = api::read(answer.clone())?;
            api::print(answer, self.json, verdict)?;
            return Ok(if checked.broken.is_none() { Exit::Done } else { Exit::Negative });
        }
        let before = self.before.map(|it| format!("&before={it}")).unwrap_or_default();
        let words = [("actor", self.actor), ("action", self.action), ("subject", self.subject)];
        let words = words
            .into_iter()
            .filter_map(|(name, word)| Some(format!("&{name}={}", format::encode(&word?, false))));
        let words: String = words.collect();
        let answer = server.get(&format!("/audit?limit={}{before}{words}", self.limit)).await?;
        api::print(answer, self.json, table)?;
        Ok(Exit::Done)
    }
}

fn verdict(it: &AuditCheck) -> String {
    match &it.broken {
        None => format!("the chain of entries holds, from 1 to {}\n", it.entries),
        Some(broken) => format!("{broken}\n"),
    }
}

fn table(it: &AuditEntries) -> String {
    if it.entries.is_empty() {
        return "nothing was noted yet\n".to_owned();
    }
    let mut table = Table::new(&["", "when", "who", "what", "of", "reason"], &[0]);
    for entry in &it.entries {
        let reason = entry.details.get("reason").and_then(|it| it.as_str()).unwrap_or_default();
        table.row([
            entry.sequence.to_string(),
            format::utc(entry.at),
            format::short(&entry.actor, SHOWN),
            entry.action.clone(),
            format::short(&entry.subject, SHOWN),
            format::short(reason, SHOWN),
        ]);
    }
    let more = it.next_before.map(|it| format!("more with --before {it}\n"));
    table.text("") + &more.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_log_says_so() {
        assert_eq!(
            table(&AuditEntries { entries: vec![], next_before: None }),
            "nothing was noted yet\n"
        );
        let broken = AuditCheck { entries: 3, broken: Some("audit entry 2 is missing".to_owned()) };
        assert_eq!(verdict(&broken), "audit entry 2 is missing\n");
    }
}
