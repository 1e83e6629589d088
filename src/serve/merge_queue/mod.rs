//! Merge queues on the records of a server: who is told, and what is counted.

mod told;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kiln_cas::stores::Storage;
use kiln_ci::CiServices;
use kiln_ci::queue::hosted::{Feed, HostedError, QueueGauge, Queues};
use kiln_net::causes::chain;
use kiln_net::panics::resumed;
use tokio::task::JoinHandle;

use self::told::tell;
use super::history::StoredRecords;
use super::telling::Tries;
use super::webhook::{Webhook, WebhookError, WebhookOptions, heard};
use crate::telemetry::MergeQueuesOf;

/// How often queues are looked at for metrics.
const COUNT_EVERY: Duration = Duration::from_secs(30);
/// How often it is looked whether something is to be told, and how much of it in one look.
const LOOK: Duration = Duration::from_secs(3);
const TOLD_AT_ONCE: usize = 20;
/// How long is waited at first after something could not be told.
const AGAIN: Duration = Duration::from_secs(5);
/// The name of the webhook among all who are told news of a queue.
const WEBHOOK: &str = "webhook";

#[derive(Debug, Clone, Default)]
pub struct MergeQueueOptions {
    pub webhook: Option<WebhookOptions>,
}

pub struct Started {
    pub queues: Queues,
    gauges: Arc<Mutex<Vec<QueueGauge>>>,
    /// The task that works on queues; it never ends by itself.
    pub working: JoinHandle<()>,
}

impl Started {
    /// Returns the counts and gauges of merge queues, for metrics.
    pub fn figures(&self) -> MergeQueuesOf {
        let (queues, gauges) = (self.queues.clone(), self.gauges.clone());
        let latest = move || gauges.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Arc::new(move || (queues.figures(), latest()))
    }
}

/// Starts merge queues. Must be called within a Tokio runtime.
pub fn start(
    options: &MergeQueueOptions,
    storage: &Storage,
    tests: &CiServices,
    base_url: &str,
) -> Result<Started, WebhookError> {
    let webhook = Webhook::named(options.webhook.as_ref(), base_url)?;
    let records = Arc::new(StoredRecords(storage.records.clone()));
    let queues = Queues::new(records, tests.clock.clone());
    let gauges = Arc::<Mutex<Vec<QueueGauge>>>::default();
    let (counted, into) = (queues.clone(), gauges.clone());
    let feed = queues.feed(WEBHOOK);
    let working = tokio::spawn(async move {
        let count = || keep_counted(counted.clone(), into.clone());
        let counting = resumed("counting merge queues", count);
        let telling = async {
            if let Some(webhook) = &webhook {
                resumed("telling news of merge queues", || keep_told(&feed, webhook)).await;
            }
        };
        tokio::join!(counting, telling);
    });
    Ok(Started { queues, gauges, working })
}

async fn keep_counted(queues: Queues, gauges: Arc<Mutex<Vec<QueueGauge>>>) {
    loop {
        match queues.gauges().await {
            Ok(counted) => *gauges.lock().unwrap_or_else(PoisonError::into_inner) = counted,
            Err(error) => {
                tracing::warn!(error = %chain(&error), "merge queues cannot be counted for now");
            }
        }
        tokio::time::sleep(COUNT_EVERY).await;
    }
}

/// Tells the webhook all news, again and again; never returns.
async fn keep_told(feed: &Feed, webhook: &Webhook) {
    let mut tries = Tries::new("a merge queue's news", AGAIN);
    loop {
        let pause = tell_all(feed, webhook, &mut tries).await.unwrap_or_else(|error| {
            tracing::warn!(error = %chain(&error), "it is not known what is to be told of merge queues");
            LOOK
        });
        tokio::time::sleep(pause).await;
    }
}

/// Tells news, each step until all of it was heard or given up; says how long to wait for the next look.
async fn tell_all(
    feed: &Feed,
    webhook: &Webhook,
    tries: &mut Tries,
) -> Result<Duration, HostedError> {
    for told in feed.take(TOLD_AT_ONCE).await? {
        // Another process tells by now.
        let telling = feed.telling(heard(tell(webhook, &told)));
        let Some(heard) = telling.await else { return Ok(LOOK) };
        if let Some(pause) = tries.after(heard, told.queue.as_str()) {
            return Ok(pause);
        }
        feed.done(&told).await?;
    }
    Ok(LOOK)
}
