//! What stages of pipelines do on this server: its store and workers, its releases, environments and rollouts, and what its
//! operator lists.

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

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kiln_cas::DigestFunction;
use kiln_cas::logs::LogStreams;
use kiln_cas::stores::Storage;
use kiln_ci::CiServices;
use kiln_ci::ephemeral::{PreviewFigures, PreviewParts, Previews, TellStuck};
use kiln_ci::pipelines::{Ended, Progress, RunnerError, StageRunner, Task, Work};
use kiln_ci::stages::{Commands, Ledger, Programs, wait};
use kiln_ci::verdicts::Verdicts;
use kiln_deploy::catalog::Catalog;
use kiln_deploy::executions::Executions;
use kiln_deploy::promotion::Keeper;
use kiln_deploy::rollouts::control::Control;
use kiln_net::causes::chain;
use kiln_scheduler::{OwnActions, SchedulerServices};
use kiln_web::Kept;

use self::actions::OnWorkers;
use self::builds::ToldBuilds;
pub use self::options::{StagesOptions, read_stage_parts};
use self::release::ReleaseStages;
use self::reports::History;
use self::told::ByWebhook;
use super::history::StoredRecords;
use super::promotion::Gates;
use super::webhook::{Webhook, WebhookError};

/// How often attempts of long ago are forgotten.
const TIDY_EVERY: Duration = Duration::from_secs(6 * 3_600);

/// What stages stand on.
pub struct Below<'a> {
    pub storage: &'a Storage,
    pub services: &'a SchedulerServices,
    pub logs: &'a LogStreams,
    pub tests: &'a CiServices,
    pub verdicts: &'a Verdicts,
    /// `None`: executions are not recorded.
    pub executions: Option<&'a Executions>,
    pub releases: &'a Catalog,
    pub promotion: Option<&'a Arc<Keeper>>,
    pub rollouts: &'a Arc<Control>,
    pub kept: &'a Kept,
    /// The digest functions of instances, and the longest time of an action.
    pub functions: BTreeMap<String, DigestFunction>,
    pub longest: Duration,
    /// What this process calls itself, and no other one.
    pub name: &'a str,
    pub base_url: &'a str,
    /// Where it is said how many environments there are.
    pub figures: Arc<PreviewFigures>,
}

/// Does what stages say.
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

pub fn start(options: &StagesOptions, below: &Below<'_>) -> Result<Arc<Stages>, WebhookError> {
    let webhook = options.webhook.as_ref();
    let webhook = webhook.map(|it| Webhook::new(it, below.base_url)).transpose()?;
    let records = Arc::new(StoredRecords(below.storage.records.clone()));
    let ledger = Ledger::new(records.clone(), below.tests.clock.clone());
    let previews = Previews::new(PreviewParts {
        records,
        clock: below.tests.clock.clone(),
        kinds: options.parts.previews.clone(),
        secrets: options.parts.programs.secrets.clone(),
        who: below.name.to_owned(),
        teller: webhook.map(|it| Arc::new(ByWebhook(it)) as Arc<dyn TellStuck>),
        figures: below.figures.clone(),
    });
    let blobs = &below.storage.blobs;
    let answers = &below.verdicts.answers;
    let actions = OnWorkers {
        blobs: blobs.clone(),
        actions: OwnActions::new(&below.services.scheduler),
        journal: below.services.journal.clone(),
        logs: below.logs.clone(),
        functions: below.functions.clone(),
        longest: below.longest,
    };
    let reports =
        History { blobs: blobs.clone(), tests: below.tests.clone(), answers: answers.clone() };
    let gates =
        Gates { answers: answers.clone(), tests: below.tests.clone(), kept: below.kept.clone() };
    Ok(Arc::new(Stages {
        commands: Commands {
            actions: Arc::new(actions),
            ledger: ledger.clone(),
            reports: Some(Arc::new(reports)),
            allow_network: options.allow_network,
        },
        ledger,
        programs: options.parts.programs.clone(),
        builds: ToldBuilds { tests: below.tests.clone(), gates },
        releases: ReleaseStages {
            catalog: below.releases.clone(),
            executions: below.executions.cloned(),
            keeper: below.promotion.cloned(),
        },
        keeper: below.promotion.cloned(),
        rollouts: below.rollouts.clone(),
        previews,
    }))
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
