//! Asks a gate until its answer does not change any more.

use std::collections::BTreeSet;
use std::time::Duration;

use kiln_ci::verdicts::Account;
use tokio::time::Instant;

use super::changed::Changed;
use crate::cli::api::{self, Api};
use crate::cli::error::CliError;
use crate::web::json::{Gate, GateQuestion};

/// How often.
const EVERY: Duration = Duration::from_secs(1);
/// How long at most, whatever the user says.
const MOST: Duration = Duration::from_secs(24 * 3600);

/// What is asked about.
pub struct Asking<'a> {
    pub api: &'a Api,
    pub instance: &'a str,
    pub invocation: &'a str,
    /// What is known of the invocation here.
    pub account: Option<Account>,
    pub changed: &'a Changed,
}

/// The answer, as soon as it stays, or after this time.
pub async fn waited(asking: &Asking<'_>, wait: Duration) -> Result<Gate, CliError> {
    let until = Instant::now() + wait.min(MOST);
    let mut edited = Vec::new();
    let mut looked_up = BTreeSet::new();
    loop {
        let gate = ask(asking, &edited).await?;
        // Which of them are edited is asked only for tests that have failed since.
        let labels = gate.failures.iter().map(|it| it.test.label.clone());
        let fresh: Vec<_> = labels.filter(|it| looked_up.insert(it.clone())).collect();
        if asking.changed.any() && !fresh.is_empty() {
            edited.extend(asking.changed.edited(&fresh).await);
            continue;
        }
        if !gate.pending || Instant::now() >= until {
            return Ok(gate);
        }
        tokio::time::sleep(EVERY).await;
    }
}

async fn ask(asking: &Asking<'_>, edited: &[String]) -> Result<Gate, CliError> {
    let question = GateQuestion {
        instance: asking.instance.to_owned(),
        invocation: asking.invocation.to_owned(),
        edited: edited.to_owned(),
        account: asking.account.clone(),
    };
    api::read(asking.api.post("/tests/gate", &question).await?)
}
