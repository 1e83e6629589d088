//! Promotion on the stores of a server: who is asked, what happens by itself, and who is told.

mod checks;
mod gates;
mod options;
mod told;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use kiln_cas::records::SharedRecords;
use kiln_cas::records::lease::{LeaseRecord, RecordTurn};
use kiln_deploy::audit::{Checkpoints, Kept};
use kiln_deploy::catalog::Catalog;
use kiln_deploy::deployments::Fours;
use kiln_deploy::promotion::{Change, Keeper, Pipeline};
use kiln_net::Backoff;
use kiln_net::causes::chain;
use kiln_net::panics::resumed;
use tokio::time::MissedTickBehavior;

pub use self::checks::Programs;
pub use self::gates::Gates;
pub use self::options::{PromotionOptions, read_keys, read_pipeline};
use self::told::tell;
use super::webhook::{Webhook, WebhookError, heard};

/// How often environments are looked at for what may happen by itself, and files for whether they
/// were changed.
const SWEEP: Duration = Duration::from_secs(10);
/// The most looks at environments at once: each is at another environment, and a policy has no more
/// of them.
const LOOKS: usize = 32;
/// How long to wait before an audit log that does not hold is looked at again.
const BROKEN: Duration = Duration::from_secs(600);
/// The record of which server tells changes.
const TELLING: &str = "promotion/telling";
/// How long the server that tells changes may be silent until another one tells them.
const TELLS: Duration = Duration::from_secs(60);
/// Changes that are told one after the other in one look.
const TOLD_AT_ONCE: usize = 50;
/// How often one change is told at most, and how long is waited after it could not be.
const TRIES: u32 = 10;
const PAUSES: Backoff = Backoff::new(Duration::from_secs(10), Duration::from_secs(300));

/// Environments, and what goes on in them by itself.
pub struct Promotion {
    keeper: Arc<Keeper>,
    /// The files of the policy, and of the keys that count.
    policy: Option<PathBuf>,
    keys: Option<PathBuf>,
    webhook: Option<Webhook>,
    /// The turn by which only one of a fleet's servers tells changes.
    turn: RecordTurn,
}

/// Who is told of changes. `None`: nobody, or there are no environments.
pub fn teller(options: &PromotionOptions, base_url: &str) -> Result<Option<Webhook>, WebhookError> {
    let webhook = options.webhook.as_ref().filter(|_| options.pipeline.is_some());
    webhook.map(|it| Webhook::new(it, base_url)).transpose()
}

/// Returns counts of promotions, all zero until `keeper` is set.
pub fn figures(keeper: Arc<OnceLock<Arc<Keeper>>>) -> Arc<dyn Fn() -> Fours + Send + Sync> {
    Arc::new(move || keeper.get().map(|it| it.deployments()).unwrap_or_default())
}

fn changed_at(path: &Path) -> Option<SystemTime> {
    std::fs::metadata(path).and_then(|it| it.modified()).ok()
}

/// Signs checkpoints of the audit log for ever, where there is a key, at the time of `catalog`. Drop it to end it.
pub async fn keep_checkpoints(checkpoints: Checkpoints, catalog: Catalog) {
    loop {
        match checkpoints.keep(catalog.now()).await {
            Ok(Kept::Nothing | Kept::Signed) => tokio::time::sleep(SWEEP).await,
            Ok(Kept::Broken(broken)) => {
                tracing::error!(%broken, "the audit log does not hold: it gets no checkpoint");
                tokio::time::sleep(BROKEN).await;
            }
            Ok(Kept::Rewritten(entry)) => {
                tracing::error!(
                    entry,
                    "the audit log is not the one that was signed up to this entry: it gets no checkpoint"
                );
                tokio::time::sleep(BROKEN).await;
            }
            Err(error) => {
                tracing::warn!(error = %chain(&error), "the audit log gets no checkpoint for now");
                tokio::time::sleep(SWEEP).await;
            }
        }
    }
}

impl Promotion {
    /// Starts promotion; `name` is what this server calls itself among all others, now and before.
    pub fn new(
        options: &PromotionOptions,
        keeper: Arc<Keeper>,
        webhook: Option<Webhook>,
        (records, name): (&SharedRecords, &str),
    ) -> Self {
        let turn = LeaseRecord::new(records.clone(), TELLING).turn(name, TELLS);
        let (policy, keys) = (options.policy.clone(), options.keys_file.clone());
        Self { keeper, policy, keys, webhook, turn }
    }

    /// Does what happens by itself in environments, and tells changes. Never returns; drop it to
    /// end it. Nobody who is told holds up what happens by itself.
    pub async fn run(self) {
        let Self { keeper, policy, keys, webhook, turn } = self;
        let files = (policy.as_deref(), keys.as_deref());
        let reading = resumed("reading promotion's files again", || keep_read(&keeper, files));
        let sweeping = resumed("promoting what waits", || keep_swept(&keeper));
        let telling = async {
            if let Some(webhook) = &webhook {
                let telling = || keep_told(&keeper, webhook, &turn);
                resumed("telling of promotions", telling).await;
            }
        };
        tokio::join!(reading, sweeping, telling);
    }
}

/// Looks for ever whether something may happen by itself, also while checks of an earlier look take long.
async fn keep_swept(keeper: &Keeper) {
    let mut looks = tokio::time::interval(SWEEP);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut open = FuturesUnordered::new();
    loop {
        tokio::select! {
            _ = looks.tick(), if open.len() < LOOKS => open.push(keeper.sweep()),
            Some(swept) = open.next() => {
                if let Err(error) = swept {
                    tracing::warn!(error = %chain(&error), "what waits to be promoted cannot be looked at for now");
                }
            }
        }
    }
}

/// Looks for ever whether the policy or the keys were changed.
async fn keep_read(keeper: &Keeper, (policy, keys): (Option<&Path>, Option<&Path>)) {
    let (mut policy_read, mut keys_read) = (None, None);
    loop {
        if let Some(pipeline) = read_again(policy, read_pipeline, &mut policy_read).await {
            match pipeline {
                Ok(pipeline) => take(keeper, pipeline),
                Err(error) => tracing::error!(
                    error,
                    "promotion.policy was changed and cannot be used: the former one holds"
                ),
            }
        }
        if let Some(ring) = read_again(keys, read_keys, &mut keys_read).await {
            match ring {
                Ok(ring) => keeper.set_keys(ring),
                Err(error) => tracing::error!(
                    error,
                    "promotion.keys was changed and cannot be used: the former keys count"
                ),
            }
        }
        tokio::time::sleep(SWEEP).await;
    }
}

/// Reads a file where it was changed since the time in `read`, which becomes the time of this
/// change; `None`: there is no file to read, or it was not changed.
async fn read_again<T: Send + 'static>(
    path: Option<&Path>,
    reading: fn(&Path) -> Result<T, String>,
    read: &mut Option<SystemTime>,
) -> Option<Result<T, String>> {
    let (path, before) = (path?.to_owned(), *read);
    let looking = tokio::task::spawn_blocking(move || {
        let changed = changed_at(&path);
        (changed, (changed != before).then(|| reading(&path)))
    });
    let (changed, found) = looking.await.ok()?;
    *read = changed;
    found
}

fn take(keeper: &Keeper, pipeline: Pipeline) {
    let held = keeper.pipeline();
    if pipeline.digest == held.digest {
        return;
    }
    if pipeline.instance != held.instance {
        tracing::error!("promotion.policy names another instance now: that takes a restart");
        return;
    }
    tracing::info!(policy = %pipeline.digest, "promotion.policy was read again");
    keeper.set_pipeline(pipeline);
}

/// Tells the webhook all changes, again and again; never returns.
async fn keep_told(keeper: &Keeper, webhook: &Webhook, turn: &RecordTurn) {
    let mut tries = 0;
    loop {
        let pause = tell_all(keeper, webhook, turn, &mut tries).await;
        tokio::time::sleep(pause).await;
    }
}

/// Tells changes, oldest first, each until it was heard or given up; says how long to wait for the next look.
async fn tell_all(
    keeper: &Keeper,
    webhook: &Webhook,
    turn: &RecordTurn,
    tries: &mut u32,
) -> Duration {
    // What was there before it was this server's turn may have been told by another one.
    if waiting(keeper, 1).await.is_empty() || !is_mine(turn).await {
        return SWEEP;
    }
    for change in waiting(keeper, TOLD_AT_ONCE).await {
        if !is_mine(turn).await {
            return SWEEP;
        }
        if let Err(reason) = heard(tell(webhook, &change)).await {
            *tries += 1;
            if *tries < TRIES {
                tracing::info!(reason, change = change.number, "a change could not be told");
                return PAUSES.pause(*tries);
            }
            tracing::warn!(reason, change = change.number, "a change is told to nobody");
        }
        *tries = 0;
        if let Err(error) = keeper.told(change.number).await {
            tracing::warn!(error = %chain(&error), "a change may be told twice");
            return SWEEP;
        }
    }
    if let Err(error) = turn.give_up().await {
        tracing::info!(error = %chain(&error), "other servers tell no changes for a minute");
    }
    SWEEP
}

/// The changes that are still to be told, `most` at most; none where they cannot be read.
async fn waiting(keeper: &Keeper, most: usize) -> Vec<Change> {
    keeper.notices(most).await.unwrap_or_else(|error| {
        tracing::warn!(error = %chain(&error), "it is not known what is to be told");
        Vec::new()
    })
}

/// Whether it is this server's turn to tell changes, and no other's.
async fn is_mine(turn: &RecordTurn) -> bool {
    turn.is_mine().await.unwrap_or_else(|error| {
        tracing::warn!(error = %chain(&error), "it is not known who tells changes");
        false
    })
}
