//! Begins runs of pipelines.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kiln_net::id_at;

use super::Control;
use super::error::ControlError;
use super::kept::{Head, Run};
use super::keys;
use super::notes;
use super::store::{MAX_ACTIVE, Store, parts, put};
use crate::model::Time;
use crate::pipelines::file::{Busy, Declared, read};
use crate::pipelines::laid::{Begun, Laid, lay_out};
use crate::pipelines::machine::{RunState, Spec};
use crate::pipelines::runner::Source;
use crate::storage::{Expect, Write};

/// How often it is tried while others begin runs of the same group.
const ATTEMPTS: usize = 20;

/// How many of the runs that have not ended only those may be that release: who may only run commands takes not all of
/// them.
const FOR_RELEASES: usize = 100;

/// Who wants a run, and of what.
#[derive(Debug, Clone, Default)]
pub struct Start {
    pub instance: String,
    /// `manual`, `push`, `schedule`, `release` or `webhook`.
    pub trigger: String,
    pub branch: String,
    pub commit: String,
    pub by: String,
    pub inputs: BTreeMap<String, String>,
    pub source: Source,
}

impl Control {
    /// Reads the file of a pipeline.
    pub async fn read(text: String) -> Result<Arc<Declared>, ControlError> {
        // It may be large.
        let reading = tokio::task::spawn_blocking(move || read(&text));
        Ok(Arc::new(reading.await.map_err(stopped)??))
    }

    /// Begins a run of a pipeline, and answers with it.
    pub async fn start(&self, declared: &Arc<Declared>, ask: &Start) -> Result<Run, ControlError> {
        for _ in 0..ATTEMPTS {
            if let Some(run) = self.try_start(declared, ask, Vec::new()).await? {
                return Ok(run);
            }
        }
        Err(ControlError::Restless)
    }

    /// Begins a run in one step with other writes. `None`: somebody else changed what it depends on.
    pub(super) async fn try_start(
        &self,
        declared: &Arc<Declared>,
        ask: &Start,
        others: Vec<Write>,
    ) -> Result<Option<Run>, ControlError> {
        let most = if declared.releases() { MAX_ACTIVE } else { MAX_ACTIVE - FOR_RELEASES };
        if self.store.active().await?.len() >= most {
            return Err(ControlError::Busy(most));
        }
        let at = self.now();
        let begun = Begun {
            id: id_at(at.0),
            trigger: ask.trigger.clone(),
            branch: ask.branch.clone(),
            commit: ask.commit.clone(),
            by: ask.by.clone(),
            inputs: ask.inputs.clone(),
        };
        let (declared, laying) = (declared.clone(), begun.clone());
        let (declared, laid) = tokio::task::spawn_blocking(move || {
            let laid = lay_out(&declared, &laying);
            (declared, laid)
        })
        .await
        .map_err(stopped)?;
        let laid = laid?;
        let run = self.made(&declared, ask, &laid, (begun, at));
        let mut writes = written(&run, laid)?;
        if let Some(name) = &run.group {
            let (mut group, expect) = self.store.group(name).await?;
            group.enter(&run.id, run.busy())?;
            writes.push(Store::keep_group(&group, expect)?);
        }
        writes.extend(others);
        if !self.store.commit(vec![notes::begun(&run)], writes).await? {
            return Ok(None);
        }
        self.wake.notify_waiters();
        Ok(Some(run))
    }

    fn made(
        &self,
        declared: &Declared,
        ask: &Start,
        laid: &Laid,
        (begun, at): (Begun, Time),
    ) -> Run {
        let busy = declared.concurrency.as_ref().map(|it| it.busy);
        Run {
            id: begun.id,
            pipeline: declared.name.clone(),
            description: declared.description.clone(),
            instance: ask.instance.clone(),
            trigger: begun.trigger,
            branch: begun.branch,
            commit: begun.commit,
            by: begun.by,
            inputs: laid.inputs.clone(),
            source: ask.source.clone(),
            group: laid.group.as_ref().map(|name| turns(declared, &ask.instance, name)),
            supersedes: busy == Some(Busy::Supersede),
            timeout_ms: u64::try_from(declared.timeout.as_millis()).unwrap_or(u64::MAX),
            most: self.options.most,
            stages: laid.stages.len(),
            releases: declared.releases(),
            at,
        }
    }
}

/// The group of a run. Two instances never hold each other up, whatever they and their groups are called; and whoever may only
/// run commands neither holds up nor supersedes what takes the right to release.
fn turns(declared: &Declared, instance: &str, name: &str) -> String {
    let what = if declared.releases() { "releases" } else { "runs" };
    format!("{what} of {instance:?}: {name}")
}

fn stopped(_: tokio::task::JoinError) -> ControlError {
    ControlError::NotNow("the server is being stopped".to_owned())
}

/// All that is written of a run when it begins.
fn written(run: &Run, laid: Laid) -> Result<Vec<Write>, ControlError> {
    let mut writes = vec![
        put(keys::run(&run.id), Expect::Absent, run)?,
        put(keys::active(&run.id), Expect::Absent, &run.at)?,
    ];
    for (number, (_, value)) in parts(&laid.stages)?.into_iter().enumerate() {
        let key = keys::part(&run.id, number);
        writes.push(Write { key, expect: Expect::Absent, value: Some(value) });
    }
    let timeout = Duration::from_millis(run.timeout_ms);
    let state = RunState::new(Arc::new(Spec::new(laid.stages, &run.by, timeout, run.most)));
    writes.push(put(keys::head(&run.id), Expect::Absent, &Head::of(&state))?);
    Ok(writes)
}
