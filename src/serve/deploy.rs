//! What a server runs of `kiln_deploy`: releases, the environments that they stand in, and rollouts.

use std::sync::Arc;

use kiln_deploy::audit::Checkpoints;
use kiln_deploy::catalog::Catalog;
use kiln_deploy::promotion::Keeper;
use kiln_deploy::retention::Collector;
use kiln_deploy::rollouts::control::Control;
use kiln_deploy::rollouts::parts::Targets;
use kiln_net::panics::spawn_resumed;
use kiln_web::Kept;
use tokio::task::JoinHandle;

use super::base::Base;
use super::ci::Ci;
use super::options::ServeOptions;
use super::promotion::{self, Promotion};
use super::releases;
use super::rollouts::{self, Rollouts};
use super::webhook::WebhookError;

/// Releases and what becomes of them, before anything goes on by itself.
pub struct Deploy {
    pub catalog: Catalog,
    pub collector: Collector,
    /// The checkpoints of the audit log.
    pub checkpoints: Checkpoints,
    /// `None`: there are no environments.
    pub keeper: Option<Arc<Keeper>>,
    pub control: Arc<Control>,
    /// What removes releases without being asked; `None`: nothing does.
    by_itself: Option<Collector>,
    promotion: Option<Promotion>,
    rollouts: Rollouts,
}

/// `agents`: the server's own.
pub fn start(
    options: &ServeOptions,
    base: &Base,
    ci: &Ci,
    kept: &Kept,
    agents: Arc<dyn Targets>,
) -> Result<Deploy, WebhookError> {
    let (storage, common) = (&base.storage, &base.common);
    let key = &options.releases.key;
    let catalog = releases::catalog(&options.releases, storage, common);
    let collector = releases::collector(&options.releases, storage, &catalog);
    let checkpoints = promotion::checkpoints(storage, key.clone(), &common.base_url);
    let promotion = promotion::start(
        &options.promotion,
        &promotion::Below {
            storage,
            releases: &catalog,
            tests: &ci.tests,
            verdicts: &ci.verdicts,
            kept,
            key: key.clone(),
            base_url: &common.base_url,
            name: &common.name,
        },
    )?;
    let keeper = promotion.as_ref().map(|it| it.keeper.clone());
    let rollouts = rollouts::start(
        &options.rollouts,
        &rollouts::Below {
            storage,
            releases: &catalog,
            promotion: keeper.as_ref(),
            keys: options.promotion.keys.clone(),
            key: key.as_ref(),
            agents: Some(agents),
            base_url: &common.base_url,
        },
    )?;
    let by_itself = options.releases.gc.then(|| collector.clone());
    let control = rollouts.control.clone();
    Ok(Deploy { catalog, collector, checkpoints, keeper, control, by_itself, promotion, rollouts })
}

impl Deploy {
    /// Removes what was begun of releases and never ended, promotes what waits, drives rollouts and signs
    /// checkpoints. None of these tasks ends by itself.
    pub fn run(self) -> Vec<JoinHandle<()>> {
        let Self { catalog, checkpoints, by_itself, promotion, rollouts, .. } = self;
        let settling = spawn_resumed("settling releases", move || {
            releases::keep_settled(catalog.clone(), by_itself.clone())
        });
        let signing = spawn_resumed("signing the audit log", move || {
            promotion::keep_checkpoints(checkpoints.clone())
        });
        let rolling = tokio::spawn(rollouts.run());
        let promoting = promotion.map(|it| tokio::spawn(it.run()));
        promoting.into_iter().chain([settling, signing, rolling]).collect()
    }
}
