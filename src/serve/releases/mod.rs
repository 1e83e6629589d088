//! Releases and records of executions on the stores of a server.

mod options;
mod told;

use std::sync::Arc;
use std::time::Duration;

use kiln_cas::stores::Storage;
use kiln_deploy::catalog::Catalog;
use kiln_deploy::executions::{ExecutionParts, Executions};
use kiln_deploy::retention::Collector;
use kiln_net::causes::chain;
use kiln_net::clock::unix_nanos;
use tokio::time::Instant;

pub use self::options::ReleaseOptions;
pub use self::told::{PACE, ReleaseNotices};
use super::common::Common;

/// Starts to record executions; `None`: the options say that nothing is recorded.
pub fn start_records(
    options: &ReleaseOptions,
    storage: &Storage,
    common: &Common,
) -> Option<Executions> {
    options.records.then(|| {
        Executions::start(ExecutionParts {
            records: storage.records.clone(),
            blobs: storage.blobs.clone(),
            executions: common.events.subscribe(),
            clock: Arc::new(unix_nanos),
            keep: options.keep_records,
        })
    })
}

/// How often releases are looked for that were begun and never ended.
const SETTLE_EVERY: Duration = Duration::from_secs(1800);

/// The name in the audit log of the server itself, when it removes releases without being asked.
const AUTOMATION: &str = "kiln";

async fn collect(collector: &Collector) {
    match collector.collect_all(AUTOMATION, collector.now()).await {
        Ok(0) => {}
        Ok(releases) => tracing::info!(releases, "releases that nothing keeps are removed"),
        Err(error) => {
            tracing::warn!(error = %chain(&error), "old releases cannot be removed for now");
        }
    }
}

/// Releases that are looked at together for whether the registry shows them, and how long it is waited before the next.
const PAGE: usize = 20;
const BETWEEN: Duration = Duration::from_millis(500);

/// Shows releases in the registry that were made before it did. Once that is done it is one look.
async fn catch_up(catalog: &Catalog) {
    loop {
        match catalog.catch_up(PAGE).await {
            Ok(caught) => {
                for (release, why) in &caught.refused {
                    tracing::warn!(%release, why, "the registry cannot show a release");
                }
                if caught.shown > 0 {
                    tracing::info!(releases = caught.shown, "the registry shows older releases");
                }
                if caught.done {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "older releases cannot be shown for now");
                return;
            }
        }
        tokio::time::sleep(BETWEEN).await;
    }
}

/// Shows earlier releases in the registry, has `collector` remove those that nothing keeps, and
/// removes what was begun and never ended, again and again. `None`: releases are not removed
/// without being asked. Never returns; drop it to end it.
pub async fn keep_settled(catalog: Catalog, collector: Option<Collector>) {
    let began = Instant::now();
    loop {
        catch_up(&catalog).await;
        if let Some(collector) = &collector {
            collect(collector).await;
        }
        match catalog.sweep(began.elapsed()).await {
            Ok(0) => {}
            Ok(pins) => {
                tracing::info!(pins, "pins of releases that were never finished are removed")
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "unfinished releases cannot be removed for now");
            }
        }
        tokio::time::sleep(SETTLE_EVERY).await;
    }
}
