//! What a server runs of this crate: its releases, the environments that they stand in, and rollouts.

mod catalogued;
mod clock;
mod listed;
mod summaries;

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_cas::SharedBlobStore;
use kiln_cas::pins::Pins;
use kiln_cas::records::SharedRecords;

use self::catalogued::Catalogued;
use self::clock::ServerClock;
use self::listed::Listed;
use self::summaries::Summaries;
use crate::audit::Checkpoints;
use crate::catalog::{Catalog, CatalogParts};
use crate::executions::Clock;
use crate::promotion::{self, Keeper, Pipeline, RunCheck, SignSummary, TestGate};
use crate::retention::{Collector, Rules};
use crate::rollouts::control::{self, Control};
use crate::rollouts::parts::{Signals, Targets, Traffic};
use crate::rollouts::plan::AGENTS;
use crate::signing::{KeyRing, Signer};

/// Settings of everything that a server runs of this crate.
pub struct DeployOptions {
    /// What the server signs with; `None`: whoever makes a release signs it.
    pub key: Option<Arc<dyn Signer>>,
    /// Which releases stay.
    pub rules: Rules,
    /// `None`: there are no environments.
    pub pipeline: Option<Pipeline>,
    /// Whose signatures count; `None`: the server's own.
    pub keys: Option<KeyRing>,
    /// By environments, how many targets of each service stay up.
    pub stay_up: BTreeMap<String, usize>,
    /// Whether somebody is to be told of promotions, and of rollouts: then each notice is kept until he was.
    pub tells_promotions: bool,
    pub tells_rollouts: bool,
    /// URI of this server.
    pub base_url: String,
    pub version: String,
    /// What this process is called, for people who look at a lease.
    pub who: String,
}

/// What the services of this crate stand on.
pub struct DeployParts {
    pub records: SharedRecords,
    pub blobs: SharedBlobStore,
    pub pins: Pins,
    pub clock: Clock,
    /// Whether the tests of a release's build passed.
    pub tests: Arc<dyn TestGate>,
    /// Programs that policies name.
    pub checks: Arc<dyn RunCheck>,
    /// The server's own agents.
    pub agents: Arc<dyn Targets>,
    /// What else rollouts may name.
    pub targets: BTreeMap<String, Arc<dyn Targets>>,
    pub traffic: BTreeMap<String, Arc<dyn Traffic>>,
    pub signals: BTreeMap<String, Arc<dyn Signals>>,
}

/// The services of this crate. Nothing of them goes on by itself.
pub struct DeployServices {
    pub catalog: Catalog,
    /// Removes releases that nothing keeps.
    pub collector: Collector,
    /// The checkpoints of the audit log.
    pub checkpoints: Checkpoints,
    /// `None`: there are no environments.
    pub keeper: Option<Arc<Keeper>>,
    pub control: Arc<Control>,
}

impl DeployServices {
    pub fn start(options: DeployOptions, parts: DeployParts) -> Self {
        let records = &parts.records;
        let catalog = Catalog::new(CatalogParts {
            records: records.clone(),
            blobs: parts.blobs.clone(),
            pins: parts.pins.clone(),
            clock: parts.clock.clone(),
            key: options.key.clone(),
            builder: options.base_url.clone(),
            version: options.version.clone(),
        });
        let collector =
            Collector { catalog: catalog.clone(), records: records.clone(), rules: options.rules };
        let checkpoints = Checkpoints::new(records.clone(), &options.base_url, options.key.clone());
        let keeper = keeper(&options, &parts, &catalog);
        let control = control(options, parts, &catalog, keeper.as_ref());
        Self { catalog, collector, checkpoints, keeper, control }
    }
}

impl DeployOptions {
    /// Whose signatures count.
    fn keys(&self) -> Option<KeyRing> {
        let own = || Some(KeyRing::single("server", self.key.as_ref()?.public_key().clone()));
        self.keys.clone().or_else(own)
    }
}

/// The environments, where there is a policy for them.
fn keeper(options: &DeployOptions, parts: &DeployParts, catalog: &Catalog) -> Option<Arc<Keeper>> {
    let pipeline = options.pipeline.clone()?;
    let catalogued =
        Arc::new(Catalogued { catalog: catalog.clone(), instance: pipeline.instance.clone() });
    let summaries = options.key.clone().map(|key| {
        let summaries = Summaries { key, verifier: options.base_url.clone() };
        Arc::new(summaries) as Arc<dyn SignSummary>
    });
    let stands_on = promotion::Parts {
        releases: catalogued.clone(),
        places: Some(catalogued),
        tests: parts.tests.clone(),
        checks: parts.checks.clone(),
        summaries,
        clock: Arc::new(ServerClock(parts.clock.clone())),
        keys: options.keys(),
        tells: options.tells_promotions,
    };
    Some(Arc::new(Keeper::new(parts.records.clone(), pipeline, stands_on)))
}

/// Rollouts of releases, as environments allow them.
fn control(
    options: DeployOptions,
    parts: DeployParts,
    catalog: &Catalog,
    keeper: Option<&Arc<Keeper>>,
) -> Arc<Control> {
    let keys = options.keys();
    let DeployParts { records, clock, agents, mut targets, traffic, signals, .. } = parts;
    targets.insert(AGENTS.to_owned(), agents);
    let stands_on = control::Parts {
        targets,
        traffic,
        signals,
        releases: Arc::new(Listed { catalog: catalog.clone(), keeper: keeper.cloned(), keys }),
        clock: Arc::new(ServerClock(clock)),
        stay_up: options.stay_up,
        tells: options.tells_rollouts,
    };
    Control::new(records, stands_on, &options.who)
}
