//! `kiln preview`: environments that are brought up for a while.

use std::time::Duration;

use clap::{Args, Subcommand, ValueHint};
use kiln_web::format::encode;
use kiln_web::json::{PreviewParity, PreviewRemoval, PreviewShown, Previews};
use tokio::time::Instant;

use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use crate::cli::text::{self, Table};

/// How often it is looked whether one is gone, and for how long.
const LOOK: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(900);

/// Look at environments that pipelines bring up for a while, and take them down
///
/// A stage of a pipeline brings one up, hands its address to tests and takes it down. Whatever happens, the server takes it down
/// when its time is over, and what is left over of a crash as well (docs/stages.md).
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln preview list
  kiln preview list --all --json | jq -r '.previews[].address'
  kiln preview parity kiln-5f3c1e1a-web-0a1b2c3d4e
  kiln preview down kiln-5f3c1e1a-web-0a1b2c3d4e --reason 'looked at it'")]
pub struct PreviewCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The environments that are up
    List(List),
    /// What differs from what one stands for: versions, configuration, names of secrets
    Parity(Parity),
    /// Take one down, and wait until it is gone
    Down(Down),
}

#[derive(Debug, Args)]
struct List {
    /// Environments that were taken down lately as well
    #[arg(long)]
    all: bool,
    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Parity {
    #[arg(value_name = "NAME", value_hint = ValueHint::Other)]
    name: String,
    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Down {
    #[arg(value_name = "NAME", value_hint = ValueHint::Other)]
    name: String,
    /// Why: it is in the audit log
    #[arg(long, value_name = "TEXT", default_value = "", value_hint = ValueHint::Other)]
    reason: String,
    /// Do not wait: the server goes on by itself
    #[arg(long)]
    no_wait: bool,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl PreviewCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let server = Api::new(target)?;
        match self.what {
            What::List(List { all, json }) => {
                let mut found: Previews = api::read(server.get("/previews").await?)?;
                found.previews.retain(|it| all || it.phase != "gone");
                match json {
                    true => text::print_json(&found)?,
                    false => text::print(&table(&found))?,
                }
            }
            What::Parity(it) => {
                let path = format!("/previews/{}/parity", encode(&it.name, false));
                api::print(server.get(&path).await?, it.json, parity)?;
            }
            What::Down(it) => down(&server, it).await?,
        }
        Ok(Exit::Done)
    }
}

async fn down(server: &Api, it: Down) -> Result<(), CliError> {
    let removal = PreviewRemoval { name: it.name, reason: it.reason };
    let mut shown: PreviewShown = api::read(server.post("/previews/down", &removal).await?)?;
    let end = Instant::now() + PATIENCE;
    while !it.no_wait && shown.phase != "gone" {
        if shown.failures > 0 || Instant::now() >= end {
            let message = format!("{} is still there: {}", shown.name, shown.why);
            return Err(CliError::busy(message).hint("The server tries again by itself."));
        }
        tokio::time::sleep(LOOK).await;
        let found: Previews = api::read(server.get("/previews").await?)?;
        let Some(now) = found.previews.into_iter().find(|it| it.name == removal.name) else {
            break;
        };
        shown = now;
    }
    match it.json {
        true => text::print_json(&shown),
        false => text::print(&format!("{} is {}\n", text::one_line(&shown.name), shown.phase)),
    }
}

fn table(all: &Previews) -> String {
    if all.previews.is_empty() {
        return "no environment is up\n".to_owned();
    }
    let columns = ["name", "phase", "pipeline", "run", "until", "address or why"];
    let mut table = Table::new(&columns, &[]);
    for it in &all.previews {
        let said = match it.phase.as_str() {
            "up" => it.address.clone().unwrap_or_default(),
            _ => it.why.clone(),
        };
        table.row([
            it.name.clone(),
            it.phase.clone(),
            it.pipeline.clone(),
            it.run.clone(),
            it.expires.clone(),
            said,
        ]);
    }
    table.text("")
}

fn parity(it: &PreviewParity) -> String {
    match it.differences.as_deref() {
        None => {
            "nothing describes environments of this kind (describe, docs/stages.md)\n".to_owned()
        }
        Some([]) => "nothing differs\n".to_owned(),
        Some(all) => all.iter().map(|it| text::one_line(&it.text) + "\n").collect(),
    }
}
