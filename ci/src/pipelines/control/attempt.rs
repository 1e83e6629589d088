//! An attempt at a stage, as long as this process drives it.

use std::sync::Arc;
use std::time::Duration;

use kiln_net::Backoff;
use kiln_net::causes::chain;
use kiln_net::panics::caught;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::Control;
use super::log::AttemptLog;
use crate::pipelines::runner::{Ended, Outcome, Task};

/// How often what is printed is kept.
const FLUSH: Duration = Duration::from_millis(500);
/// How often it is tried at the end, when the records are away.
const LAST_TRIES: u32 = 20;
/// Pauses before a runner that knows nothing is asked again.
const PAUSES: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));

/// Bounds of what is kept of an end.
const MAX_TOLD: usize = 50;
const MAX_VALUE: usize = 1_000;
const MAX_REASON: usize = 2_000;
const MAX_LINKS: usize = 20;

/// How an attempt ended, by the index of its stage and its number.
pub type Told = ((u32, u32), Ended);

/// A task that ends with this.
pub struct Tied(pub JoinHandle<()>);

impl Drop for Tied {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub struct Attempt {
    pub working: Tied,
    pub log: Arc<AttemptLog>,
    pub task: Arc<Task>,
    pub cancelling: Option<Tied>,
    pub ended: Option<Ended>,
}

impl Attempt {
    pub fn begin(
        control: Arc<Control>,
        task: Task,
        log: AttemptLog,
        told: mpsc::Sender<Told>,
    ) -> Self {
        let (task, log) = (Arc::new(task), Arc::new(log));
        let working = tokio::spawn(work(control, task.clone(), log.clone(), told));
        Self { working: Tied(working), log, task, cancelling: None, ended: None }
    }

    /// Has the attempt end, wherever it runs.
    pub fn cancel(&mut self, control: &Arc<Control>) {
        if self.cancelling.is_none() && self.ended.is_none() {
            let (control, task) = (control.clone(), self.task.clone());
            self.cancelling = Some(Tied(tokio::spawn(cancel(control, task))));
        }
    }
}

async fn work(
    control: Arc<Control>,
    task: Arc<Task>,
    log: Arc<AttemptLog>,
    told: mpsc::Sender<Told>,
) {
    let mut running = std::pin::pin!(run(&control, &task, &log));
    let ended = loop {
        tokio::select! {
            ended = &mut running => break ended,
            () = tokio::time::sleep(FLUSH) => {
                if let Err(error) = log.flush(&*control.store.records, false).await {
                    tracing::debug!(task = %task.key, %error, "a log waits");
                }
            }
        }
    };
    // What it printed is there before it has ended, unless the records stay away.
    let mut tries = 0;
    while let Err(error) = log.flush(&*control.store.records, true).await {
        tries += 1;
        if tries >= LAST_TRIES {
            tracing::warn!(task = %task.key, %error, "the end of a log is lost");
            break;
        }
        tokio::time::sleep(PAUSES.pause(tries)).await;
    }
    // Nobody hears it: whoever drives the run asks again.
    told.send(((task.key.stage, task.key.attempt), bounded(ended))).await.ok();
}

async fn run(control: &Control, task: &Task, log: &AttemptLog) -> Ended {
    let mut failures = 0;
    loop {
        match caught(control.runner.run(task, log)).await {
            Ok(Ok(ended)) => return ended,
            Err(panicked) => return Ended::infrastructure(panicked.to_string()),
            Ok(Err(error)) => {
                failures += 1;
                tracing::warn!(task = %task.key, error = %chain(&error), "a stage waits");
                tokio::time::sleep(PAUSES.pause(failures)).await;
            }
        }
    }
}

async fn cancel(control: Arc<Control>, task: Arc<Task>) {
    let mut failures = 0;
    loop {
        let why = match caught(control.runner.cancel(&task)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => chain(&error),
            Err(panicked) => panicked.to_string(),
        };
        failures += 1;
        tracing::warn!(task = %task.key, why, "a stage is not cancelled yet");
        tokio::time::sleep(PAUSES.pause(failures)).await;
    }
}

fn cut(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

/// What a runner says, within bounds.
fn bounded(ended: Ended) -> Ended {
    let Ended { outcome, links } = ended;
    let outcome = match outcome {
        Outcome::Passed { told } => {
            let pair = |(name, value): (String, String)| (cut(&name, 100), cut(&value, MAX_VALUE));
            Outcome::Passed { told: told.into_iter().take(MAX_TOLD).map(pair).collect() }
        }
        Outcome::Failed { reason } => Outcome::Failed { reason: cut(&reason, MAX_REASON) },
        Outcome::Infrastructure { reason } => {
            Outcome::Infrastructure { reason: cut(&reason, MAX_REASON) }
        }
        Outcome::Cancelled => Outcome::Cancelled,
    };
    let link = |(name, address): (String, String)| (cut(&name, 100), cut(&address, MAX_VALUE));
    Ended { outcome, links: links.into_iter().take(MAX_LINKS).map(link).collect() }
}
