//! Asks a gate until its answer does not change any more.

use std::collections::BTreeSet;
use std::time::Duration;

use kiln_ci::verdicts::Account;
use kiln_net::Backoff;
use tokio::time::{Instant, sleep_until};

use super::changed::Changed;
use crate::cli::api::{self, Api};
use crate::cli::error::CliError;
use crate::cli::say::say;
use kiln_web::json::{Gate, GateQuestion};

/// How often the gate is asked again.
const EVERY: Duration = Duration::from_secs(1);
/// The longest time that the gate is asked for, whatever the user says.
const MOST: Duration = Duration::from_secs(24 * 3600);
/// Pauses while the server cannot answer.
const PAUSES: Backoff = Backoff::new(EVERY, Duration::from_secs(15));
/// How long the first word of an invocation, and the first of its build events, may be on their way.
const ARRIVES: Duration = Duration::from_secs(10);
const TELLS: Duration = Duration::from_secs(60);

/// The invocation that the gate is asked about.
pub struct Asking<'a> {
    pub api: &'a Api,
    pub instance: &'a str,
    pub invocation: &'a str,
    /// The facts about the invocation that are known here; `None`: only the server knows them.
    pub account: Option<Account>,
    pub changed: &'a Changed,
}

/// The time that an answer is waited for, and since when.
struct Patience {
    began: Instant,
    until: Instant,
    /// How many questions in a row were not answered.
    failures: u32,
}

/// The gate's answer, as soon as it does not change any more, or after this time. Errors: the
/// server answers that it does not know the invocation, or has not answered within the time.
pub async fn waited(asking: &Asking<'_>, wait: Duration) -> Result<Gate, CliError> {
    let began = Instant::now();
    let mut patience = Patience { began, until: began + wait.min(MOST), failures: 0 };
    let mut edited = Vec::new();
    let mut looked_up = BTreeSet::new();
    loop {
        let gate = match ask(asking, &edited).await {
            Ok(gate) => gate,
            Err(error) => {
                patience.bears(error).await?;
                continue;
            }
        };
        patience.failures = 0;
        // Which of them are edited is asked only for tests that have failed since.
        let labels = gate.failures.iter().map(|it| it.test.label.clone());
        let fresh: Vec<_> = labels.filter(|it| looked_up.insert(it.clone())).collect();
        if asking.changed.any() && !fresh.is_empty() {
            edited.extend(asking.changed.edited(&fresh).await);
            continue;
        }
        if !gate.pending || patience.is_over() || !gate.told && patience.has_waited(TELLS) {
            return Ok(gate);
        }
        patience.rest(EVERY).await;
    }
}

impl Patience {
    fn is_over(&self) -> bool {
        Instant::now() >= self.until
    }

    fn has_waited(&self, time: Duration) -> bool {
        self.began.elapsed() >= time
    }

    async fn rest(&self, time: Duration) {
        sleep_until(self.until.min(Instant::now() + time)).await;
    }

    /// Waits after an error that may go by; other errors are returned.
    async fn bears(&mut self, error: CliError) -> Result<(), CliError> {
        let is_unknown = error.code == CliError::NOT_FOUND;
        if is_unknown && (self.is_over() || self.has_waited(ARRIVES)) {
            // 1 would say that the gate is red.
            return Err(CliError { code: CliError::USAGE, ..error });
        }
        if is_unknown {
            self.rest(EVERY).await;
            return Ok(());
        }
        if !error.passing || self.is_over() {
            return Err(error);
        }
        self.failures = self.failures.saturating_add(1);
        if self.failures == 1 {
            say(&format!("kiln: {}; trying again", error.message));
        }
        self.rest(PAUSES.pause(self.failures)).await;
        Ok(())
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
