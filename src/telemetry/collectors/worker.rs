//! Metrics that only a worker in a process of its own can give.

use std::fmt::{Debug, Error, Formatter};

use kiln_cas::stores::TransferFigures;
use kiln_executor::WorkerStatus;
use kiln_scheduler::journal::{STAGES, Stage};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::families::Families;
use super::{images, inputs, process, requests, security, storage, tools};
use crate::telemetry::observed::ObservedWorker;
use crate::telemetry::process::ProcessStats;
use crate::telemetry::stages::{OUTCOMES, Stages};

impl Debug for ObservedWorker {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str("ObservedWorker")
    }
}

impl Collector for ObservedWorker {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut families = Families(encoder);
        condition(&mut families, &self.worker)?;
        actions(&mut families, &self.stages)?;
        transfers(&mut families, self.transfers.figures())?;
        inputs::encode(&mut families, &self.worker.inputs)?;
        images::encode(&mut families, &self.worker.images)?;
        tools::encode(&mut families, &self.worker.tools)?;
        storage::encode(&mut families, &self.storage.snapshot())?;
        requests::encode(&mut families, &self.requests)?;
        security::encode(&mut families, &self.security)?;
        process::encode(&mut families, &ProcessStats::read())
    }
}

fn condition(families: &mut Families<'_>, worker: &WorkerStatus) -> Result<(), Error> {
    let condition = worker.condition();
    families.gauges(
        "kiln_worker_info",
        "1, with the name of the worker, as results have it, as its label.",
        [([("worker", worker.worker_id.as_str())], 1_u64)],
    )?;
    families.gauge(
        "kiln_worker_connected",
        "1 while the worker has a session with a scheduler.",
        u64::from(condition.in_session()),
    )?;
    families.gauge(
        "kiln_worker_draining",
        "1 while the worker takes no new actions because it is ending.",
        u64::from(condition.draining()),
    )?;
    families.gauge(
        "kiln_worker_paused",
        "1 while the worker takes no actions: faults in a row, or no room on its disk.",
        u64::from(condition.paused().is_some()),
    )?;
    families.counter(
        "kiln_worker_sessions",
        "Sessions in which a scheduler answered: after the first, the worker has connected again.",
        condition.sessions(),
    )?;
    families.counter(
        "kiln_worker_session_failures",
        "Sessions that were lost, and attempts that came to none.",
        condition.failures(),
    )?;
    families.gauge("kiln_worker_slots", "Actions that run at a time.", u64::from(worker.slots))?;
    families.gauge(
        "kiln_worker_slots_occupied",
        "Slots in which an action is.",
        condition.running(),
    )?;
    families.gauges(
        "kiln_worker_not_enforced",
        "1 for each thing that the sandbox does not enforce on this machine.",
        worker.not_enforced.iter().map(|lacking| ([("lacking", lacking.as_str())], 1_u64)),
    )
}

fn actions(families: &mut Families<'_>, stages: &Stages) -> Result<(), Error> {
    families.counters(
        "kiln_worker_actions",
        "Actions that ended at this worker, by outcome.",
        OUTCOMES.map(|(outcome, name)| ([("outcome", name)], stages.outcome(outcome))),
    )?;
    let own = STAGES.into_iter().filter(|stage| *stage != Stage::Queue);
    families.histograms(
        "kiln_worker_stage_duration_seconds",
        "Time of actions that this worker ran in each stage.",
        own.map(|stage| ([("stage", stage.label())], stages.stage(stage))),
    )
}

fn transfers(families: &mut Families<'_>, figures: TransferFigures) -> Result<(), Error> {
    for (name, help, value) in [
        ("kiln_worker_fetched_blobs", "Blobs fetched from the server.", figures.fetched_blobs),
        (
            "kiln_worker_fetched_bytes",
            "Bytes of blobs fetched from the server.",
            figures.fetched_bytes,
        ),
        ("kiln_worker_uploaded_blobs", "Blobs that the server has taken.", figures.uploaded_blobs),
        (
            "kiln_worker_uploaded_bytes",
            "Bytes of blobs that the server has taken.",
            figures.uploaded_bytes,
        ),
    ] {
        families.counter(name, help, value)?;
    }
    Ok(())
}
