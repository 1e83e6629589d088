//! `kiln env`.

use clap::{Args, Subcommand, ValueHint};

use super::promote::line;
use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use crate::cli::text::{self, Table};
use kiln_web::format::{encode, short};
use kiln_web::json::{EnvironmentShown, EnvironmentState, Environments, Frozen, PromotionSummary};

/// Characters of a column that people read.
const SHOWN: usize = 60;

/// Look at environments: what stands where, and what waits
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln env list
  kiln env show prod
  kiln env show prod --json | jq -r .current.digest
  kiln env summary prod > vsa.json
  slsa-verifier verify-vsa --attestation-path vsa.json --public-key-path server.pub ...")]
pub struct EnvironmentCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// All environments, each behind those that it follows
    List(List),
    /// One environment, with what stood there before
    Show(Show),
    /// What was signed of a promotion, for verifiers: a summary (SLSA VSA) in a DSSE envelope
    Summary(Summary),
}

#[derive(Debug, Args)]
struct List {
    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Show {
    #[arg(value_name = "ENVIRONMENT", value_hint = ValueHint::Other)]
    name: String,
    /// Most former promotions
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=500))]
    limit: u32,
    /// Only those before this generation
    #[arg(long, value_name = "GENERATION")]
    before: Option<u64>,
    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Summary {
    #[arg(value_name = "ENVIRONMENT", value_hint = ValueHint::Other)]
    name: String,
    /// Of the promotion that made this generation [default: of what stands there]
    #[arg(long, value_name = "N")]
    generation: Option<u64>,
}

impl EnvironmentCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let server = Api::new(target)?;
        match self.what {
            What::List(List { json }) => {
                api::print(server.get("/environments").await?, json, table)?;
            }
            What::Show(it) => {
                let name = encode(&it.name, false);
                let before = it.before.map(|it| format!("&before={it}")).unwrap_or_default();
                let path = format!("/environments/{name}?limit={}{before}", it.limit);
                api::print(server.get(&path).await?, it.json, shown)?;
            }
            What::Summary(it) => summary(&server, &it).await?,
        }
        Ok(Exit::Done)
    }
}

async fn summary(server: &Api, it: &Summary) -> Result<(), CliError> {
    let generation = it.generation.map(|it| format!("?generation={it}")).unwrap_or_default();
    let path = format!("/environments/{}/summary{generation}", encode(&it.name, false));
    let found: PromotionSummary = api::read(server.get(&path).await?)?;
    text::print_json(&found.envelope)
}

fn table(all: &Environments) -> String {
    let columns = ["environment", "release", "generation", "since", "waits", "frozen"];
    let mut table = Table::new(&columns, &[2]);
    for it in &all.environments {
        let current = it.current.as_ref();
        table.row([
            it.name.clone(),
            current.map_or("-".to_owned(), |it| short(&it.release, SHOWN)),
            it.generation.to_string(),
            current.map_or(String::new(), |it| it.since.clone()),
            it.waiting.as_ref().map_or(String::new(), |it| short(&it.release, SHOWN)),
            it.frozen.first().map_or(String::new(), |it| short(&it.reason, SHOWN)),
        ]);
    }
    table.text("")
}

fn frozen(it: &Frozen) -> String {
    let by = it.window.as_ref().or(it.by.as_ref()).cloned().unwrap_or_default();
    let until = it.until.as_ref().map(|it| format!(" until {it}")).unwrap_or_default();
    format!("  frozen      by {by}{until}: {}\n", it.reason)
}

fn state(it: &EnvironmentState) -> String {
    let mut text = format!("{}\n", it.name);
    if !it.after.is_empty() {
        text += &format!("  after       {}\n", it.after.join(", "));
    }
    if let Some(current) = &it.current {
        let how = if current.rolled_back { ", rolled back to" } else { "" };
        text += &format!(
            "  release     {}\n  content     {}\n  generation  {}{how}\n  since       {} by {}\n",
            current.release, current.digest, current.generation, current.since, current.by
        );
    }
    it.frozen.iter().for_each(|it| text += &frozen(it));
    for broken in &it.overrides {
        let second = broken.confirmed_by.as_deref().unwrap_or("nobody yet");
        text += &format!(
            "  override    of {} by {} and {second} until {}: {}\n",
            broken.digest, broken.by, broken.until, broken.reason
        );
    }
    if let Some(waiting) = &it.waiting {
        text += &format!("  waits       {} until {}\n", waiting.release, waiting.until);
        waiting.reasons.iter().for_each(|it| text += &line(it));
    }
    text
}

fn shown(it: &EnvironmentShown) -> String {
    let mut text = state(&it.state);
    if it.past.is_empty() {
        return text;
    }
    let mut table = Table::new(&["generation", "release", "when", "by", "", "reason"], &[0]);
    for past in &it.past {
        let placed = &past.placed;
        table.row([
            placed.generation.to_string(),
            short(&placed.release, SHOWN),
            placed.since.clone(),
            short(&placed.by, SHOWN),
            if placed.rolled_back { "rollback" } else { "" }.to_owned(),
            short(&past.reason, SHOWN),
        ]);
    }
    text += &table.text("");
    let more = it.next_before.map(|it| format!("more with --before {it}\n"));
    text + &more.unwrap_or_default()
}
