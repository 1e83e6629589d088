//! Forges on the records of a server: what they ask merge queues for, and what they are told.

mod error;
mod options;

use std::sync::Arc;

use kiln_cas::stores::Storage;
use kiln_ci::CiServices;
use kiln_ci::forges::{Api, Apis, Intake, IntakeParts, Secrets, Teller};
use kiln_ci::pipelines::control::Registry;
use kiln_ci::queue::hosted::Queues;
use kiln_net::reload::{self, Reload};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use self::error::ForgesError;
pub use self::options::{ForgeOptions, read_forges};
use super::common::Common;
use super::history::StoredRecords;
use crate::telemetry::ForgesOf;

#[derive(Default)]
pub struct Started {
    /// Takes in what forges send; `None`: there are no forges.
    pub intake: Option<Arc<Intake>>,
    /// Tasks that never end by themselves, and may be ended at any moment.
    pub tasks: Vec<JoinHandle<()>>,
}

impl Started {
    /// Returns counts of what forges sent, for metrics.
    pub fn figures(&self) -> ForgesOf {
        let intake = self.intake.clone();
        Arc::new(move || intake.as_ref().map(|it| it.figures()).unwrap_or_default())
    }
}

/// Starts what takes in deliveries of forges and tells them results; `pipelines` may wait for pushes.
/// Must be called within a Tokio runtime.
pub fn start(
    options: &ForgeOptions,
    storage: &Storage,
    (tests, queues): (&CiServices, &Queues),
    pipelines: Arc<dyn Registry>,
    common: &Common,
) -> Result<Started, ForgesError> {
    if options.forges.is_empty() {
        return Ok(Started::default());
    }
    let records = Arc::new(StoredRecords(storage.records.clone()));
    let secrets = Arc::new(Secrets::load(&options.forges)?);
    let with_token = options.forges.iter().filter(|it| it.token_file.is_some());
    let apis = with_token.map(|it| Api::new(Arc::new(it.clone()), secrets.clone()));
    let apis = apis.collect::<Result<Vec<_>, _>>()?;
    let stop = CancellationToken::new();
    let watched: Vec<Arc<dyn Reload>> = vec![secrets.clone()];
    let mut tasks = vec![reload::watch(watched, &common.reloads, stop.clone())];
    let parts = IntakeParts {
        records,
        secrets,
        desks: Arc::new(queues.clone()),
        look_up: Arc::new(Apis(apis.clone())),
        pipelines,
        clock: tests.clock.clone(),
    };
    let mut intake = Intake::new(options.forges.clone(), parts);
    for api in apis {
        if let Some(heard) = intake.listen(&api.forge().name) {
            let teller = Teller::new(api, queues.clone(), &common.base_url, heard);
            tasks.push(tokio::spawn(teller.run(stop.clone())));
        }
    }
    Ok(Started { intake: Some(Arc::new(intake)), tasks })
}
