//! `kiln action`.

mod find;
mod list;
pub mod rows;
mod show;

use clap::{Args, Subcommand, ValueHint};

use crate::cli::api::{self, Api};
use crate::cli::digest::ActionName;
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use find::{Chosen, find};
use kiln_web::format::{encode, path_of};
use kiln_web::json::Explanation;
use show::{comparison, show};

/// See actions: command, inputs, result, timeline, and why they were not cached.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln action show 7f3a...e1/142
  kiln action show 'http://127.0.0.1:8980/actions/sha256/7f3a...e1/142?operation=...'
  kiln action show //app:app_test                 # its last failure, else its last run
  kiln action show 7f3ac0de                       # where one action's hash begins so
  kiln action diff 7f3a...e1/142                  # with the last run of the same target
  kiln action diff 7f3a...e1/142 09bc...77/142
  kiln action list --target //app:app --mnemonic CppLink

An action is named as Bazel and Buck2 print it: HASH/SIZE or HASH:SIZE, with blake3/ in front
where it applies; by the address of its page, the beginning of its hash, a target's label, or
the name of an operation.")]
pub struct ActionCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Command, inputs, result and timeline of one action
    Show {
        #[arg(value_name = "ACTION", value_hint = ValueHint::Other)]
        action: ActionName,
        /// A run of it by its operation name; without, the last
        #[arg(long, default_value = "", value_name = "NAME", value_hint = ValueHint::Other)]
        operation: String,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// What differs between two actions; exit code 1 when something does
    ///
    /// Given one action, compares it with the last run of the same target and mnemonic: why it
    /// was not answered from the cache.
    Diff {
        #[arg(value_name = "ACTION", value_hint = ValueHint::Other)]
        action: ActionName,
        /// The later one
        #[arg(value_name = "ACTION", value_hint = ValueHint::Other)]
        other: Option<ActionName>,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Runs of actions, newest first
    List(list::List),
}

impl ActionCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let (api, instance) = (Api::new(target)?, target.instance.as_str());
        match self.what {
            What::Show { action, operation, json } => {
                let found = find(&api, action, instance).await?;
                let operation = if operation.is_empty() { found.operation } else { operation };
                let path = format!(
                    "/actions/{}?instance={}&operation={}",
                    path_of(&found.action),
                    encode(&found.instance, false),
                    encode(&operation, false)
                );
                api::print(api.get(&path).await?, json, show)?;
                Ok(Exit::Done)
            }
            What::Diff { action, other, json } => {
                let first = find(&api, action, instance).await?;
                let second = match other {
                    Some(other) => Some(find(&api, other, instance).await?),
                    None => None,
                };
                diff(&api, &first, second.as_ref(), json).await
            }
            What::List(command) => {
                command.run(&api).await?;
                Ok(Exit::Done)
            }
        }
    }
}

async fn diff(
    api: &Api,
    first: &Chosen,
    second: Option<&Chosen>,
    json: bool,
) -> Result<Exit, CliError> {
    let (after, before) = match second {
        Some(second) => (second, format!("&before={}", path_of(&first.action))),
        None => (first, String::new()),
    };
    let path = format!(
        "/actions/{}/difference?instance={}&operation={}{before}",
        path_of(&after.action),
        encode(&after.instance, false),
        encode(&after.operation, false)
    );
    let answer = api.get(&path).await?;
    let explanation: Explanation = api::read(answer.clone())?;
    api::print(answer, json, |explanation| comparison(explanation, second.is_none()))?;
    let differs = !explanation.differences.is_empty() || explanation.is_cut;
    Ok(if differs { Exit::Negative } else { Exit::Done })
}
