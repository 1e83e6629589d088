//! What a runner is given.

use std::collections::BTreeMap;

use super::kept::Run;
use crate::model::Time;
use crate::pipelines::file::{Reference, fill};
use crate::pipelines::fill::filled;
use crate::pipelines::machine::{RunState, Running, Standing};
use crate::pipelines::runner::{Task, TaskKey};
use crate::pipelines::stage::Stage;

/// Stages whose tellings a task gets.
const MAX_TOLD: usize = 1_000;

/// The task of an attempt. Errors: in words; the stage has failed.
pub fn task(
    run: &Run,
    state: &RunState,
    (at, running): (usize, Running),
    now: Time,
) -> Result<Task, String> {
    let stage = state.spec.stages.get(at).ok_or("there is no such stage")?;
    let told = told(state, stage);
    let mut put = |text: &str| {
        fill(text, false, |reference| match reference {
            Reference::Told(name, key) => told.get(*name)?.get(*key).cloned(),
            _ => None,
        })
    };
    let work = filled(&stage.work, &mut put).map_err(|error| error.to_string())?;
    let key = TaskKey {
        run: run.id.clone(),
        stage: u32::try_from(at).unwrap_or(u32::MAX),
        attempt: running.attempt,
    };
    Ok(Task {
        variables: variables(run, stage, running.attempt),
        key,
        pipeline: run.pipeline.clone(),
        stage: stage.name.clone(),
        instance: run.instance.clone(),
        by: run.by.clone(),
        source: run.source.clone(),
        work,
        told,
        timeout: stage.timeout.saturating_sub(now.since(running.since)),
    })
}

/// What stages before this one told, each that is a stage by itself. Nobody may ask the cells of a matrix.
fn told(state: &RunState, stage: &Stage) -> BTreeMap<String, BTreeMap<String, String>> {
    let one = |need: &u32| {
        let at = usize::try_from(*need).ok()?;
        let (plan, is) = (state.spec.stages.get(at)?, state.stages.get(at)?);
        let passed = is.standing == Standing::Passed && plan.matrix.is_empty();
        passed.then(|| (plan.name.clone(), is.told.clone()))
    };
    stage.needs.iter().filter_map(one).take(MAX_TOLD).collect()
}

fn variables(run: &Run, stage: &Stage, attempt: u32) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::from(
        [
            ("KILN_RUN", run.id.as_str()),
            ("KILN_PIPELINE", run.pipeline.as_str()),
            ("KILN_STAGE", stage.name.as_str()),
            ("KILN_TRIGGER", run.trigger.as_str()),
            ("KILN_BRANCH", run.branch.as_str()),
            ("KILN_COMMIT", run.commit.as_str()),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned())),
    );
    variables.insert("KILN_ATTEMPT".to_owned(), attempt.to_string());
    for (kind, values) in [("INPUT", &run.inputs), ("MATRIX", &stage.matrix)] {
        for (name, value) in values {
            let name = format!("KILN_{kind}_{}", name.to_ascii_uppercase());
            variables.insert(name, value.clone());
        }
    }
    variables
}
