//! `kiln action list`.

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueHint};
use kiln_scheduler::snapshot::OperationView;
use serde_json::Value;

use super::rows::{MAX_TARGET, row};
use crate::cli::api::{self, Api};
use crate::cli::builds::last;
use crate::cli::digest::{invocation, label};
use crate::cli::error::CliError;
use crate::cli::text::{self, Look, Table, look};
use kiln_web::format::{ago, duration, encode, now, short};
use kiln_web::json::{Build, Execution, Executions, Found};

/// Most runs that one request of the API answers.
const PAGE: usize = 1000;
/// Most requests for one list: the server does not search by mnemonics alone.
const MAX_PAGES: usize = 20;

#[derive(Debug, Args)]
pub struct List {
    /// Runs of this target, and what of it runs or waits
    #[arg(long, value_name = "LABEL", value_hint = ValueHint::Other,
        value_parser = NonEmptyStringValueParser::new())]
    target: Option<String>,
    /// Runs of this mnemonic
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Other,
        value_parser = NonEmptyStringValueParser::new())]
    mnemonic: Option<String>,
    /// Runs of this build, by its invocation id, the beginning of that, or `last`
    #[arg(long, conflicts_with = "target", value_name = "ID", value_hint = ValueHint::Other,
        value_parser = NonEmptyStringValueParser::new())]
    invocation: Option<String>,
    /// Runs to list
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// Runs as the server says them, and as they are read.
#[derive(Default)]
struct Listed {
    values: Vec<Value>,
    next_before: Value,
    /// Operations of the target that run or wait.
    operations: Vec<OperationView>,
}

impl List {
    pub async fn run(mut self, api: &Api) -> Result<(), CliError> {
        self.invocation = match self.invocation.take() {
            Some(given) if given == "last" => Some(last(api).await?),
            Some(given) => Some(whole_id(api, &given).await?),
            None => None,
        };
        let given = self.target.take();
        self.target = given.as_deref().map(label);
        let mut listed = self.search(api).await?;
        if let Some(target) = &self.target {
            let found = api.get(&format!("/find?name={}", encode(target, false))).await?;
            listed.operations = api::read::<Found>(found)?.operations;
            if let Some(given) = given.filter(|given| listed.is_empty() && !given.contains("//")) {
                return Err(no_label(&given));
            }
        }
        match self.json {
            true => text::print_json(&listed.json()),
            false => text::print(&shown(&listed)?),
        }
    }

    /// Reads the list page by page, as long as there are too few executions of the mnemonic.
    async fn search(&self, api: &Api) -> Result<Listed, CliError> {
        let wanted = usize::from(self.limit);
        let by_hand = self.target.is_none() && self.mnemonic.is_some();
        let limit = if by_hand { PAGE } else { wanted };
        let mut listed = Listed::default();
        for _ in 0..MAX_PAGES {
            let mut answer = api.get(&self.path(limit, listed.next_before.as_str())).await?;
            listed.next_before = answer["next_before"].take();
            let Value::Array(page) = answer["executions"].take() else { break };
            listed
                .values
                .extend(page.into_iter().filter(|run| !by_hand || self.is_of_mnemonic(run)));
            if listed.values.len() >= wanted || listed.next_before.is_null() {
                break;
            }
        }
        if let Some(beyond) = listed.values.get(wanted.saturating_sub(1)) {
            listed.next_before = beyond["cursor"].clone();
        }
        listed.values.truncate(wanted);
        Ok(listed)
    }

    fn is_of_mnemonic(&self, run: &Value) -> bool {
        run["mnemonic"].as_str() == self.mnemonic.as_deref()
    }

    fn path(&self, limit: usize, before: Option<&str>) -> String {
        let mnemonic = self.mnemonic.as_deref().filter(|_| self.target.is_some());
        let filters = [
            ("target", self.target.as_deref()),
            ("mnemonic", mnemonic),
            ("invocation", self.invocation.as_deref()),
            ("before", before),
        ];
        let mut path = format!("/executions?limit={limit}");
        for (name, value) in filters {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", encode(value, false)));
            }
        }
        path
    }
}

/// The whole id of the build whose id begins as given.
async fn whole_id(api: &Api, given: &str) -> Result<String, CliError> {
    let path = format!("/builds/{}", encode(&invocation(given), true));
    Ok(api::read::<Build>(api.get(&path).await?)?.invocation_id)
}

fn no_label(given: &str) -> CliError {
    CliError::usage(format!("{given:?} is no label, and no client has called a target so"))
        .hint(format!("labels are written with their package: //:{given}, //app:{given}"))
}

impl Listed {
    fn is_empty(&self) -> bool {
        self.values.is_empty() && self.operations.is_empty()
    }

    fn json(&self) -> Value {
        serde_json::json!({
            "executions": self.values,
            "next_before": self.next_before,
            "operations": self.operations,
        })
    }
}

fn shown(listed: &Listed) -> Result<String, CliError> {
    if listed.is_empty() {
        return Ok("no runs\n".to_owned());
    }
    let Executions { executions, .. } = api::read(listed.json())?;
    Ok(open(&listed.operations) + &runs(&executions))
}

/// Lines about operations that run or wait, one for each.
fn open(operations: &[OperationView]) -> String {
    let line = |operation: &OperationView| {
        let time = duration(operation.for_ms.saturating_mul(1_000_000));
        let how = match operation.worker.as_str() {
            "" => look(Look::Dim, &format!("waits for {time}")),
            worker => look(Look::Busy, &format!("runs for {time} on {worker}")),
        };
        let what = format!("{} {}", short(&operation.target, MAX_TARGET), operation.mnemonic);
        format!("{} {how}  kiln action show {}\n", what.trim(), operation.name)
    };
    operations.iter().map(line).collect()
}

fn runs(executions: &[Execution]) -> String {
    if executions.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&["finished", "ran for", "ended", "what", "action"], &[1]);
    let now = now();
    for run in executions {
        table.row([ago(run.timeline.finished, now)].into_iter().chain(row(run)));
    }
    table.text("")
}
