//! Pipelines on the records of a server, and what their stages do on it.

mod directory;
mod happenings;
mod options;

use std::sync::Arc;

use kiln_cas::stores::audit::AuditLog;
use kiln_ci::ephemeral::Previews;
use kiln_ci::pipelines::StageRunner;
use kiln_ci::pipelines::control::{Control, ControlOptions, ControlParts};
use kiln_net::panics::spawn_resumed;
use tokio::task::JoinHandle;

pub use self::directory::{Directory, read_pipelines};
use self::happenings::Audit;
pub use self::options::PipelineOptions;
use super::history::StoredRecords;
use super::options::ServeOptions;
use super::stages::{self, Below};
use super::verdicts::Audited;
use super::webhook::WebhookError;

pub struct Pipelines {
    pub control: Arc<Control>,
    pub previews: Arc<Previews>,
    /// Tasks that never end by themselves.
    pub tasks: Vec<JoinHandle<()>>,
}

/// Starts pipelines; `below` are the parts that their stages stand on. Must be called within a
/// Tokio runtime.
pub fn start(options: &ServeOptions, below: &Below<'_>) -> Result<Pipelines, WebhookError> {
    let stages = stages::start(options, below)?;
    let (tidied, swept) = (stages.clone(), stages.previews.clone());
    let forgetting = spawn_resumed("forgetting old stages", move || tidied.clone().keep_tidy());
    let sweeping = spawn_resumed("taking down environments", move || swept.clone().keep_swept());
    let options = &options.pipelines;
    let directory = below.builds.ci.declared.clone();
    let previews = stages.previews.clone();
    let control = control(options, below, directory.clone(), stages);
    let reading = spawn_resumed("reading pipelines", move || directory.clone().keep_read());
    let driven = control.clone();
    let driving = spawn_resumed("driving pipelines", move || driven.clone().run());
    Ok(Pipelines { control, previews, tasks: vec![forgetting, sweeping, reading, driving] })
}

fn control(
    options: &PipelineOptions,
    below: &Below<'_>,
    registry: Arc<Directory>,
    runner: Arc<dyn StageRunner>,
) -> Arc<Control> {
    let records = &below.base.storage.records;
    let parts = ControlParts {
        records: Arc::new(StoredRecords(records.clone())),
        ledger: Arc::new(Audited(AuditLog::new(records.clone()))),
        runner,
        registry,
        happenings: Arc::new(Audit(AuditLog::new(records.clone()))),
        clock: below.builds.ci.tests.clock.clone(),
        name: format!("{}#{}", below.base.common.base_url, std::process::id()),
    };
    Control::new(parts, ControlOptions { keep: options.keep, most: options.most })
}
