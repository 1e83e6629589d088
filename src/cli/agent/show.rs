//! `kiln agent list` and `show`.

use clap::{Args, ValueHint};

use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use crate::cli::text::{Look, Table, look};
use kiln_web::format::{bytes, encode, short};
use kiln_web::json::{FleetAgent, FleetAgents};

/// Characters of a column that people read.
const SHOWN: usize = 60;

/// Agents of a server, with versions and drift
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln agent list
  kiln agent list --service api --environment prod --condition drifted
  kiln agent list --json | jq -r '.agents[] | [.name, .condition] | @tsv'

Conditions: well, behind (it has not carried out its order yet), unassigned (it was told nothing), unwell, flapping, failed (it gave
its order up), drifted (it runs something else), untruthful (it claims what it was not told), silent.")]
pub struct List {
    /// Only those of a service
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Other)]
    service: Option<String>,
    /// Only those of an environment
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Other)]
    environment: Option<String>,
    /// Only those that are so
    #[arg(long, value_name = "CONDITION", value_hint = ValueHint::Other)]
    condition: Option<String>,
    /// Most agents
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// Where the page before ended
    #[arg(long, value_name = "AGENT")]
    after: Option<String>,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// One agent with all that is known of it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln agent show api prod web-1
  kiln agent show api prod web-1 --json | jq -r .running")]
pub struct Show {
    #[command(flatten)]
    agent: Named,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// Which agent is meant.
#[derive(Debug, Args)]
pub struct Named {
    #[arg(value_hint = ValueHint::Other)]
    pub service: String,
    #[arg(value_hint = ValueHint::Other)]
    pub environment: String,
    /// The name of the host
    #[arg(value_hint = ValueHint::Hostname)]
    pub name: String,
}

impl List {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let mut path = format!("/fleet?limit={}", self.limit);
        for (name, value) in [
            ("service", &self.service),
            ("environment", &self.environment),
            ("condition", &self.condition),
            ("after", &self.after),
        ] {
            if let Some(value) = value {
                path += &format!("&{name}={}", encode(value, false));
            }
        }
        api::print(Api::new(target)?.get(&path).await?, self.json, table)?;
        Ok(Exit::Done)
    }
}

impl Show {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let Named { service, environment, name } = &self.agent;
        let [service, environment, name] = [service, environment, name].map(|it| encode(it, false));
        let path = format!("/fleet/show?service={service}&environment={environment}&name={name}");
        api::print(Api::new(target)?.get(&path).await?, self.json, shown)?;
        Ok(Exit::Done)
    }
}

/// A release by its name, else a version by its digest.
fn called(names: &[String], digest: Option<&String>) -> String {
    match (names.first(), digest) {
        (Some(name), _) => short(name, SHOWN),
        (None, Some(digest)) => short(digest, 19),
        (None, None) => "-".to_owned(),
    }
}

fn condition(it: &FleetAgent) -> String {
    let how = match it.condition.as_str() {
        "well" => Look::Good,
        "behind" | "unassigned" => Look::Busy,
        _ => Look::Bad,
    };
    look(how, &it.condition)
}

fn table(all: &FleetAgents) -> String {
    if all.agents.is_empty() {
        return "there is no such agent\n".to_owned();
    }
    let columns = ["service", "environment", "host", "runs", "was told", "heard", "is"];
    let mut table = Table::new(&columns, &[]);
    for it in &all.agents {
        let told = it.told.as_ref();
        table.row([
            short(&it.service, SHOWN),
            short(&it.environment, SHOWN),
            short(&it.name, SHOWN),
            called(&it.releases, it.running.as_ref()),
            told.map_or("-".to_owned(), |told| called(&told.releases, Some(&told.version))),
            it.heard.clone().unwrap_or_default(),
            condition(it),
        ]);
    }
    let more = all.next_after.as_ref().map(|it| format!("more with --after {it}\n"));
    table.text("") + &more.unwrap_or_default()
}

fn shown(it: &FleetAgent) -> String {
    let mut text = format!("{} of {} in {}\n", it.name, it.service, it.environment);
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            text += &format!("  {name:11} {value}\n");
        }
    };
    line("is", &condition(it));
    if it.condition == "flapping" {
        line("", "a rollout counts it as unwell until its turns are ten minutes old");
        line("", "`kiln agent remove` lets it begin anew");
    }
    line("runs", &called(&it.releases, it.running.as_ref()));
    line("version", it.running.as_deref().unwrap_or_default());
    line("since", it.since.as_deref().unwrap_or_default());
    if let Some(told) = &it.told {
        let generation = format!("{}.{}", told.generation.fence, told.generation.change);
        line("was told", &called(&told.releases, Some(&told.version)));
        line("", &format!("by {}, generation {generation}", told.by));
    }
    line("failed", it.failed.as_deref().unwrap_or_default());
    line("health", &it.health.state);
    line("", it.health.why.as_deref().unwrap_or_default());
    line("before", it.previous.as_deref().unwrap_or_default());
    line("address", it.address.as_deref().unwrap_or_default());
    let labels: Vec<_> = it.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    line("labels", &labels.join(" "));
    line("crashes", &it.crashes.to_string());
    line("free", &bytes(it.free_bytes));
    line("heard", it.heard.as_deref().unwrap_or_default());
    line("registered", it.registered.as_deref().unwrap_or_default());
    line("by", &it.account);
    line("agent", &it.software);
    text
}
