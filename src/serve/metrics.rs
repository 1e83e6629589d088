//! Starts metrics and traces of the server's parts. Metrics begin before the parts that they are
//! about.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use kiln_ci::CiServices;
use kiln_ci::ephemeral::PreviewFigures;
use kiln_ci::verdicts::{VerdictError, Verdicts};
use kiln_deploy::DeployServices;
use kiln_deploy::executions::{ExecutionFigures, Executions};
use kiln_deploy::promotion::Keeper;
use kiln_deploy::rollouts::control::Control;
use kiln_net::causes::chain;

use super::admission::Admission;
use super::base::Base;
use super::builds::Builds;
use super::worker::Prepared;
use super::{fleet, promotion, rollouts};
use crate::telemetry::requests::Requests;
use crate::telemetry::{
    EndpointError, InQuarantine, Looking, Observed, OtlpOptions, QuarantineOf, RecordingsOf,
    Telemetry,
};

/// Cells for the sources of metrics whose parts start after the metrics.
#[derive(Default)]
pub struct Later {
    promoted: Arc<OnceLock<Arc<Keeper>>>,
    rolled: Arc<OnceLock<Arc<Control>>>,
    /// Counts of the environments that runs of pipelines have brought up.
    pub previews: Arc<PreviewFigures>,
}

impl Later {
    /// Promotions and rollouts are counted from now on.
    pub fn count(&self, deploy: &DeployServices) {
        if let Some(keeper) = &deploy.keeper {
            self.promoted.get_or_init(|| keeper.clone());
        }
        self.rolled.get_or_init(|| deploy.control.clone());
    }
}

/// The parts of the server that metrics and traces read.
pub struct Below<'a> {
    pub base: &'a Base,
    pub builds: &'a Builds,
    pub fleet: &'a fleet::Started,
    pub admission: &'a Admission,
    pub requests: &'a Requests,
    pub later: &'a Later,
}

/// Starts metrics, and traces if `otlp` says where they go. Must be called within a Tokio runtime.
pub fn start(otlp: Option<&OtlpOptions>, below: &Below<'_>) -> Result<Telemetry, EndpointError> {
    let Below { base, builds, fleet, admission, requests, later } = *below;
    let (services, ci) = (&builds.services, &builds.ci);
    let worker = base.worker.as_ref().map(Prepared::status).unwrap_or_default();
    let observed = Observed {
        inputs: worker.inputs,
        tools: worker.tools,
        images: worker.images,
        events: &base.common.events,
        storage: base.storage.stats.clone(),
        scheduler: services.scheduler.clone(),
        journal: services.journal.clone(),
        hermeticity: services.hermeticity.clone(),
        recordings: recordings(&ci.tests),
        executions: executions(builds.executions.clone()),
        rollouts: rollouts::figures(later.rolled.clone()),
        promotions: promotion::figures(later.promoted.clone()),
        previews: later.previews.clone(),
        agents: fleet.figures.clone(),
        merge_queues: ci.merging.figures(),
        forges: ci.forges.figures(),
        requests: requests.clone(),
        security: admission.security(),
        names_properties: admission.metrics_may_name_properties(),
        redis: base.redis.clone(),
        history: ci.tests.history.clone(),
        quarantine: quarantine(&ci.verdicts, &ci.tests),
    };
    Telemetry::start(observed, otlp, &base.common.base_url)
}

fn quarantine(verdicts: &Verdicts, tests: &CiServices) -> QuarantineOf {
    let (book, answers, clock) =
        (verdicts.book.clone(), verdicts.answers.clone(), tests.clock.clone());
    Arc::new(move || -> Looking {
        let (book, answers, now) = (book.clone(), answers.clone(), clock.now());
        Box::pin(async move {
            let read =
                async { Ok::<_, VerdictError>((book.open().await?, answers.census().await?)) };
            let (page, census) = read
                .await
                .inspect_err(|error| {
                    tracing::warn!(error = chain(error), "no figures of the quarantine");
                })
                .ok()?;
            let quarantine = page.quarantine;
            let instances = quarantine.entries(now).map(|(it, _)| it.test.instance.as_str());
            let instances: Vec<&str> = instances.collect();
            let tests = instances.len() as u64;
            let all: BTreeSet<&str> = instances.into_iter().collect();
            let over = all.iter().filter(|it| quarantine.over_cap(it, census.of(it), now));
            Some(InQuarantine { tests, over_cap: over.count() as u64 })
        })
    })
}

fn executions(recorded: Option<Executions>) -> Arc<dyn Fn() -> ExecutionFigures + Send + Sync> {
    Arc::new(move || recorded.as_ref().map(Executions::figures).unwrap_or_default())
}

fn recordings(tests: &CiServices) -> RecordingsOf {
    let recorder = tests.recorder.clone();
    Arc::new(move || recorder.figures())
}
