//! `kiln tests flakes`.

use clap::{Args, ValueHint};

use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use crate::cli::text::{Look, Table, look};
use kiln_web::format::{ago, counted, encode, now, percent, short};
use kiln_web::json::{Flake, Flakes, SubjectName};

/// Tests that are flaky or may be, with their evidence, and failures that are judged
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln tests flakes
  kiln tests flakes --standing flaky --owner @app
  kiln tests flakes --json | jq -r '.flakes[] | select(.standing == \"flaky\").label'")]
pub struct ShowFlakes {
    /// Part of the label
    #[arg(value_name = "PART", default_value = "", value_hint = ValueHint::Other)]
    label: String,
    /// `flaky`, or `suspected`: those with less evidence [default: both]
    #[arg(long, value_name = "WHICH", value_parser = ["flaky", "suspected"])]
    standing: Option<String>,
    /// Part of the owner
    #[arg(long, value_name = "NAME", default_value = "", value_hint = ValueHint::Other)]
    owner: String,
    /// How many to list
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl ShowFlakes {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let of = |text: &str| encode(text, false);
        let path = format!(
            "/tests/flakes?q={}&standing={}&owner={}&limit={}",
            of(&self.label),
            self.standing.as_deref().unwrap_or_default(),
            of(&self.owner),
            self.limit
        );
        api::print(Api::new(target)?.get(&path).await?, self.json, shown)?;
        Ok(Exit::Done)
    }
}

fn shown(it: &Flakes) -> String {
    let mut text = flakes(it);
    let mut judged = Table::new(&["failure", "verdict", "P(broken)", "tries", "failed"], &[2]);
    let now = now();
    for case in &it.judged {
        judged.row([
            name(&case.test),
            match &*case.verdict {
                "broken" => look(Look::Bad, "broken"),
                other => other.to_owned(),
            },
            percent(case.broken),
            format!("{} failed in a row, {} passed", case.straight, case.passes),
            ago(case.failed_at, now),
        ]);
    }
    if !it.judged.is_empty() {
        text += &format!("\n{}", judged.text(""));
    }
    text
}

fn flakes(it: &Flakes) -> String {
    if it.flakes.is_empty() {
        let tests = counted(it.tests as u64, "test");
        return format!("of {tests} none is like that\n");
    }
    let head = ["test", "standing", "evidence", "rate", "failed", "owner"];
    let mut table = Table::new(&head, &[3]);
    let now = now();
    for flake in &it.flakes {
        let quarantine = if flake.is_quarantined { ", in quarantine" } else { "" };
        table.row([
            name(&flake.test),
            format!("{}{quarantine}", flake.standing),
            evidence(flake),
            percent(flake.rate),
            ago(flake.last_failure_at, now),
            short(flake.owner.as_deref().unwrap_or("nobody"), 40),
        ]);
    }
    let more = match it.next_page {
        Some(_) => format!("{} in all; --limit lists more\n", it.total),
        None => String::new(),
    };
    table.text("") + &more
}

fn evidence(it: &Flake) -> String {
    let flips = match it.flips {
        0 => String::new(),
        flips => {
            let commits = counted(it.commits as u64, "commit");
            format!(", {} in {commits}", counted(flips as u64, "time"))
        }
    };
    format!("{}{flips}", it.evidence.replace('_', " "))
}

fn name(test: &SubjectName) -> String {
    let case = test.case.as_ref().map(|it| format!(" ({} {})", it.class, it.name));
    short(&format!("{}{}", test.label, case.unwrap_or_default()), 120)
}
