//! Starts the server's part of `kiln_deploy`: releases, the environments that they stand in, and
//! rollouts.

use std::sync::Arc;

use kiln_deploy::rollouts::parts::Targets;
use kiln_deploy::{DeployOptions, DeployParts, DeployServices};
use kiln_net::clock::unix_nanos;
use kiln_net::panics::{resumed, spawn_resumed};
use kiln_web::Kept;
use tokio::task::JoinHandle;

use super::base::Base;
use super::ci::Ci;
use super::options::ServeOptions;
use super::promotion::{self, Gates, Programs, Promotion};
use super::releases::{self, ReleaseNotices};
use super::rollouts::{self, Rollouts};
use super::telling::Telling;
use super::webhook::{Webhook, WebhookError};

/// Releases and what becomes of them, before anything goes on by itself.
pub struct Deploy {
    pub services: DeployServices,
    /// Whether releases that nothing keeps are removed without being asked.
    removes: bool,
    /// Tells changes of releases; `None`: nobody is told.
    telling: Option<Telling<ReleaseNotices>>,
    /// Environments and their upkeep; `None`: there are no environments.
    promotion: Option<Promotion>,
    rollouts: Rollouts,
}

/// Starts the services for releases, environments and rollouts; `agents` are the targets that the
/// server's own agents are.
pub fn start(
    options: &ServeOptions,
    base: &Base,
    ci: &Ci,
    kept: &Kept,
    agents: Arc<dyn Targets>,
) -> Result<Deploy, WebhookError> {
    let (storage, common) = (&base.storage, &base.common);
    let of_releases = Webhook::named(options.releases.webhook.as_ref(), &common.base_url)?;
    let of_promotions = promotion::teller(&options.promotion, &common.base_url)?;
    let of_rollouts = rollouts::teller(&options.rollouts, &common.base_url)?;
    let tells = (of_promotions.is_some(), of_rollouts.is_some());
    let gates =
        Gates { answers: ci.verdicts.answers.clone(), tests: ci.tests.clone(), kept: kept.clone() };
    let named = options.rollouts.parts.clone();
    let parts = DeployParts {
        records: storage.records.clone(),
        blobs: storage.blobs.clone(),
        pins: storage.pins.clone(),
        clock: Arc::new(unix_nanos),
        tests: Arc::new(gates),
        checks: Arc::new(Programs),
        agents,
        targets: named.targets,
        traffic: named.traffic,
        signals: named.signals,
    };
    let services = DeployServices::start(settings(options, &common.base_url, tells), parts);
    let told_by = (&storage.records, common.name.as_str());
    let telling = of_releases.map(|webhook| {
        let notices = ReleaseNotices::new(&storage.records, webhook, unix_nanos);
        Telling::new(notices, releases::PACE, told_by)
    });
    let promotion = services
        .keeper
        .clone()
        .map(|keeper| Promotion::new(&options.promotion, keeper, of_promotions, told_by));
    let rollouts = Rollouts::new(services.control.clone(), of_rollouts, told_by);
    Ok(Deploy { services, removes: options.releases.gc, telling, promotion, rollouts })
}

/// `tells`: whether somebody is told of promotions, and of rollouts.
fn settings(options: &ServeOptions, base_url: &str, tells: (bool, bool)) -> DeployOptions {
    DeployOptions {
        key: options.releases.key.clone(),
        rules: options.releases.rules,
        pipeline: options.promotion.pipeline.clone(),
        keys: options.promotion.keys.clone(),
        stay_up: options.rollouts.parts.stay_up.clone(),
        tells_promotions: tells.0,
        tells_rollouts: tells.1,
        base_url: base_url.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        who: format!("{base_url}#{}", std::process::id()),
    }
}

impl Deploy {
    /// Removes what was begun of releases and never ended, tells changes of releases, promotes what waits, drives rollouts
    /// and signs checkpoints. None of these tasks ends by itself.
    pub fn run(self) -> Vec<JoinHandle<()>> {
        let Self { services, removes, telling, promotion, rollouts } = self;
        let DeployServices { catalog, collector, checkpoints, .. } = services;
        let by_itself = removes.then_some(collector);
        let clock = catalog.clone();
        let settling = spawn_resumed("settling releases", move || {
            releases::keep_settled(catalog.clone(), by_itself.clone())
        });
        let signing = spawn_resumed("signing the audit log", move || {
            promotion::keep_checkpoints(checkpoints.clone(), clock.clone())
        });
        let rolling = tokio::spawn(rollouts.run());
        let promoting = promotion.map(|it| tokio::spawn(it.run()));
        let telling = telling.map(|it| {
            tokio::spawn(async move { resumed("telling of releases", || it.keep_told()).await })
        });
        promoting.into_iter().chain(telling).chain([settling, signing, rolling]).collect()
    }
}
