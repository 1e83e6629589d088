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
use kiln_deploy::audit::{Checkpoints, Kept};
use kiln_deploy::catalog::Catalog;
use kiln_deploy::deployments::Fours;
use kiln_deploy::promotion::{Keeper, Pipeline};
use kiln_net::causes::chain;
use kiln_net::panics::resumed;
use tokio::time::MissedTickBehavior;

pub use self::checks::Programs;
pub use self::gates::Gates;
pub use self::options::{PromotionOptions, read_keys, read_pipeline};
use self::told::{Changes, PACE};
use super::telling::Telling;
use super::webhook::{Webhook, WebhookError};

/// How often environments are looked at for what may happen by itself, and files for whether they
/// were changed.
const SWEEP: Duration = Duration::from_secs(10);
/// The most looks at environments at once: each is at another environment, and a policy has no more
/// of them.
const LOOKS: usize = 32;
/// How long to wait before an audit log that does not hold is looked at again.
const BROKEN: Duration = Duration::from_secs(600);

/// Environments, and what goes on in them by itself.
pub struct Promotion {
    keeper: Arc<Keeper>,
    /// The files of the policy, and of the keys that count.
    policy: Option<PathBuf>,
    keys: Option<PathBuf>,
    /// `None`: nobody is told.
    telling: Option<Telling<Changes>>,
}

/// Who is told of changes. `None`: nobody, or there are no environments.
pub fn teller(options: &PromotionOptions, base_url: &str) -> Result<Option<Webhook>, WebhookError> {
    let webhook = options.webhook.as_ref().filter(|_| options.pipeline.is_some());
    Webhook::named(webhook, base_url)
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
        let telling = webhook.map(|webhook| {
            let changes = Changes { keeper: keeper.clone(), webhook };
            Telling::new(changes, PACE, (records, name))
        });
        let (policy, keys) = (options.policy.clone(), options.keys_file.clone());
        Self { keeper, policy, keys, telling }
    }

    /// Does what happens by itself in environments, and tells changes. Never returns; drop it to
    /// end it. Nobody who is told holds up what happens by itself.
    pub async fn run(self) {
        let Self { keeper, policy, keys, telling } = self;
        let files = (policy.as_deref(), keys.as_deref());
        let reading = resumed("reading promotion's files again", || keep_read(&keeper, files));
        let sweeping = resumed("promoting what waits", || keep_swept(&keeper));
        let tells = async {
            if let Some(telling) = &telling {
                resumed("telling of promotions", || telling.keep_told()).await;
            }
        };
        tokio::join!(reading, sweeping, tells);
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
