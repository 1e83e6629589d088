//! Starts what runs the stages of pipelines on this server: by its store and workers, its releases,
//! environments and rollouts, and the programs that its operator lists.

mod actions;
mod builds;
mod fields;
mod kinds;
mod options;
mod promote;
mod release;
mod reports;
mod rollout;
mod told;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kiln_ci::ephemeral::{PreviewFigures, PreviewParts, Previews, TellStuck};
use kiln_ci::pipelines::{Ended, Progress, RunnerError, StageRunner, Task, Work};
use kiln_ci::stages::{Commands, Ledger, Programs, wait};
use kiln_deploy::DeployServices;
use kiln_deploy::promotion::Keeper;
use kiln_deploy::rollouts::control::Control;
use kiln_net::causes::chain;
use kiln_scheduler::OwnActions;
use kiln_web::Kept;

use self::actions::OnWorkers;
use self::builds::ToldBuilds;
pub use self::options::{StagesOptions, read_stage_parts};
use self::release::ReleaseStages;
use self::reports::History;
use self::told::ByWebhook;
use super::base::Base;
use super::builds::Builds;
use super::history::StoredRecords;
use super::options::ServeOptions;
use super::promotion::Gates;
use super::webhook::{Webhook, WebhookError};

/// How often attempts of long ago are forgotten.
const TIDY_EVERY: Duration = Duration::from_secs(6 * 3_600);

/// The parts of the server that stages use.
pub struct Below<'a> {
    pub base: &'a Base,
    pub builds: &'a Builds,
    pub deploy: &'a DeployServices,
    pub kept: &'a Kept,
    /// Counts of environments, which stages keep for metrics.
    pub figures: &'a Arc<PreviewFigures>,
}

/// Runs stages of pipelines, each kind of them by the part of the server that does such work.
pub struct Stages {
    ledger: Ledger,
    commands: Commands,
    programs: Programs,
    builds: ToldBuilds,
    releases: ReleaseStages,
    keeper: Option<Arc<Keeper>>,
    rollouts: Arc<Control>,
    pub previews: Arc<Previews>,
}

pub fn start(options: &ServeOptions, below: &Below<'_>) -> Result<Arc<Stages>, WebhookError> {
    let (ci, deploy) = (&below.builds.ci, below.deploy);
    let records = Arc::new(StoredRecords(below.base.storage.records.clone()));
    let ledger = Ledger::new(records.clone(), ci.tests.clock.clone());
    let previews = previews(&options.stages, below, records)?;
    let blobs = below.base.storage.blobs.clone();
    let (tests, answers) = (ci.tests.clone(), ci.verdicts.answers.clone());
    let reports = History { blobs, tests: tests.clone(), answers: answers.clone() };
    let gates = Gates { answers, tests: tests.clone(), kept: below.kept.clone() };
    Ok(Arc::new(Stages {
        commands: Commands {
            actions: Arc::new(on_workers(options, below)),
            ledger: ledger.clone(),
            reports: Some(Arc::new(reports)),
            allow_network: options.stages.allow_network,
        },
        ledger,
        programs: options.stages.parts.programs.clone(),
        builds: ToldBuilds { tests, gates },
        releases: ReleaseStages {
            catalog: deploy.catalog.clone(),
            executions: below.builds.executions.clone(),
            keeper: deploy.keeper.clone(),
        },
        keeper: deploy.keeper.clone(),
        rollouts: deploy.control.clone(),
        previews,
    }))
}

/// Makes the keeper of the environments that runs of pipelines bring up for a while.
fn previews(
    options: &StagesOptions,
    below: &Below<'_>,
    records: Arc<StoredRecords>,
) -> Result<Arc<Previews>, WebhookError> {
    let common = &below.base.common;
    let webhook = Webhook::named(options.webhook.as_ref(), &common.base_url)?;
    Ok(Previews::new(PreviewParts {
        records,
        clock: below.builds.ci.tests.clock.clone(),
        kinds: options.parts.previews.clone(),
        secrets: options.parts.programs.secrets.clone(),
        who: common.name.clone(),
        teller: webhook.map(|it| Arc::new(ByWebhook(it)) as Arc<dyn TellStuck>),
        figures: below.figures.clone(),
    }))
}

/// Makes the runner of stages' commands as actions on workers.
fn on_workers(options: &ServeOptions, below: &Below<'_>) -> OnWorkers {
    let (base, services) = (below.base, &below.builds.services);
    let actions = &options.scheduler.scheduler;
    OnWorkers {
        blobs: base.storage.blobs.clone(),
        actions: OwnActions::new(&services.scheduler),
        journal: services.journal.clone(),
        logs: base.common.logs.clone(),
        functions: actions.default_functions.clone(),
        longest: actions.max_timeout,
    }
}

impl Stages {
    /// The instance whose releases are rolled out.
    fn environments(&self) -> String {
        self.keeper.as_ref().map(|it| it.pipeline().instance.clone()).unwrap_or_default()
    }

    /// Forgets attempts of long ago, again and again. Never returns; drop it to end it.
    pub async fn keep_tidy(self: Arc<Self>) {
        loop {
            if let Err(error) = self.ledger.tidy().await {
                tracing::warn!(error = %chain(&error), "old stages cannot be forgotten for now");
            }
            tokio::time::sleep(TIDY_EVERY).await;
        }
    }
}

#[async_trait]
impl StageRunner for Stages {
    async fn run(&self, task: &Task, progress: &dyn Progress) -> Result<Ended, RunnerError> {
        let ledger = &self.ledger;
        match &task.work {
            Work::Command(command) | Work::Build(command) | Work::Test(command) => {
                self.commands.run(task, command, progress).await
            }
            Work::Release(release) => self.releases.run(task, release).await,
            Work::Promote(promotion) => {
                promote::run(self.keeper.as_ref(), ledger, task, promotion, progress).await
            }
            // Whoever may release elsewhere changes nothing of these environments.
            Work::Rollout(_) if task.instance != self.environments() => {
                Ok(Ended::failed("the environments of this server are those of another instance"))
            }
            Work::Rollout(rollout) => {
                rollout::run(&self.rollouts, ledger, task, rollout, progress).await
            }
            Work::Program(listed) => self.programs.run(ledger, task, listed, progress).await,
            Work::Wait(waited) => wait(&self.builds, ledger, task, waited, progress).await,
            Work::Preview(preview) => {
                Box::pin(self.previews.run_stage(ledger, task, preview, progress)).await
            }
            Work::Approve(_) => Ok(Ended::failed("nobody runs an approval: people approve")),
        }
    }

    async fn cancel(&self, task: &Task) -> Result<(), RunnerError> {
        match task.work.command() {
            Some(_) => self.commands.cancel(task).await,
            None => self.ledger.cancel(&task.key).await.map(drop),
        }
    }
}
