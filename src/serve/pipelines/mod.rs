//! Pipelines on the records and the stages of a server.

mod directory;
mod happenings;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kiln_cas::stores::Storage;
use kiln_cas::stores::audit::AuditLog;
use kiln_ci::CiServices;
use kiln_ci::pipelines::StageRunner;
use kiln_ci::pipelines::control::{Control, ControlOptions, ControlParts};
use kiln_net::panics::spawn_resumed;
use tokio::task::JoinHandle;

use self::directory::Directory;
pub use self::directory::read_pipelines;
use self::happenings::Audit;
use super::history::StoredRecords;
use super::verdicts::Audited;

#[derive(Debug, Clone)]
pub struct PipelineOptions {
    /// Where the operator's pipelines are; `None`: there are none.
    pub directory: Option<PathBuf>,
    /// Of their runs.
    pub instance: String,
    /// How long runs stay after their end.
    pub keep: Duration,
    /// Stages of one run that run at the same time.
    pub most: usize,
}

pub struct Pipelines {
    pub control: Arc<Control>,
    /// They never end by themselves.
    pub tasks: Vec<JoinHandle<()>>,
}

/// Must be called within a Tokio runtime.
pub fn start(
    options: &PipelineOptions,
    storage: &Storage,
    tests: &CiServices,
    runner: Arc<dyn StageRunner>,
    base_url: &str,
) -> Pipelines {
    let directory = Arc::new(Directory::new(options.directory.clone(), options.instance.clone()));
    let parts = ControlParts {
        records: Arc::new(StoredRecords(storage.records.clone())),
        ledger: Arc::new(Audited(AuditLog::new(storage.records.clone()))),
        runner,
        registry: directory.clone(),
        happenings: Arc::new(Audit(AuditLog::new(storage.records.clone()))),
        clock: tests.clock.clone(),
        name: format!("{base_url}#{}", std::process::id()),
    };
    let control = Control::new(parts, ControlOptions { keep: options.keep, most: options.most });
    let reading = spawn_resumed("reading pipelines", move || directory.clone().keep_read());
    let driven = control.clone();
    let driving = spawn_resumed("driving pipelines", move || driven.clone().run());
    Pipelines { control, tasks: vec![reading, driving] }
}
