//! Rollouts that are started and followed to their end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kiln_ci::pipelines::{Ended, Outcome, Progress, Rollout, RunnerError, Task};
use kiln_ci::stages::Ledger;
use kiln_deploy::releases::ReleaseName;
use kiln_deploy::rollouts::control::{By, Command, Control, ControlError, Head, Start};
use kiln_net::causes::chain;
use kiln_net::counts::counted;

use super::release::unavailable;

/// How often it is looked how far the rollout is.
const LOOK: Duration = Duration::from_secs(2);
/// How long is waited before another try to start a rollout: each try reads many records.
const AGAIN: Duration = Duration::from_secs(10);
/// The number of latest rollouts among which that of an attempt is looked for, when a crash left it
/// unnoted.
const RECENT: usize = 100;
/// Characters of the stage's reason that are kept.
const MAX_REASON: usize = 1_500;

/// The word by which a rollout of an attempt is known again.
fn mark(task: &Task) -> String {
    format!("(pipeline {}, {})", task.pipeline, task.key)
}

fn failed(error: ControlError) -> RunnerError {
    unavailable("the control of rollouts", error)
}

/// Starts a rollout, or goes on with the one that was started, and follows it. One that is cancelled, or takes too long, is
/// reverted.
pub async fn run(
    control: &Arc<Control>,
    ledger: &Ledger,
    task: &Task,
    rollout: &Rollout,
    progress: &dyn Progress,
) -> Result<Ended, RunnerError> {
    let id = match begun(control, ledger, task, rollout, progress).await? {
        Ok(id) => id,
        Err(ended) => return Ok(ended),
    };
    let mut told_off = false;
    loop {
        let head = control.head(&id).await.map_err(failed)?;
        let Some(head) = head else {
            return Ok(Ended::failed(format!("rollout {id} is not known any more")));
        };
        let cancelled = ledger.read(&task.key).await?.cancelled;
        if head.ended {
            return Ok(ended(&id, &head, cancelled));
        }
        if cancelled && !told_off {
            abort(control, task, &id).await?;
            told_off = true;
        }
        progress.standing(&words(&head));
        tokio::time::sleep(LOOK).await;
    }
}

fn words(head: &Head) -> String {
    let paused = if head.paused { ", paused" } else { "" };
    let what = match head.phase.as_str() {
        "gate" => "waits at a gate: somebody has to let it on",
        other => other,
    };
    let changed = counted(head.changed, "target");
    format!("{}{paused}; changed: {changed}", what.replace('_', " "))
}

fn ended(id: &str, head: &Head, cancelled: bool) -> Ended {
    let outcome = match (head.phase.as_str(), cancelled) {
        ("succeeded", _) => {
            Outcome::Passed { told: BTreeMap::from([("rollout".to_owned(), id.to_owned())]) }
        }
        (_, true) => Outcome::Cancelled,
        (phase, false) => {
            let reason = format!("the rollout ended as {}: see why there", phase.replace('_', " "));
            Outcome::Failed { reason }
        }
    };
    Ended { outcome, links: vec![("rollout".to_owned(), format!("/rollouts/{id}"))] }
}

async fn abort(control: &Control, task: &Task, id: &str) -> Result<(), RunnerError> {
    let reason = format!("its stage was cancelled {}", mark(task));
    let by = By { name: task.by.clone(), reason };
    match Box::pin(control.say(id, Command::Abort, &by)).await {
        // It is reverted or over already.
        Ok(_) | Err(ControlError::NotNow(_)) => Ok(()),
        Err(error) => Err(failed(error)),
    }
}

/// The rollout of an attempt, started or found again. `Ok(Err)`: there is none, and the stage has
/// ended so.
async fn begun(
    control: &Arc<Control>,
    ledger: &Ledger,
    task: &Task,
    rollout: &Rollout,
    progress: &dyn Progress,
) -> Result<Result<String, Ended>, RunnerError> {
    let release = match rollout.release.parse::<ReleaseName>() {
        Ok(release) => release,
        Err(error) => return Ok(Err(Ended::failed(chain(&error)))),
    };
    let mark = mark(task);
    let said: String = rollout.reason.chars().take(MAX_REASON).collect();
    let start = Start {
        declared: rollout.declaration.clone(),
        release,
        environment: rollout.environment.clone(),
        by: task.by.clone(),
        reason: format!("{said} {mark}"),
        supersede: rollout.supersede,
        again: false,
        drill: false,
        without_drill: false,
        previous: None,
    };
    loop {
        let noted = ledger.read(&task.key).await?;
        if let Some(id) = noted.what {
            return Ok(Ok(id));
        }
        // Started and not noted: a crash came in between.
        let recent = control.list(None, RECENT).await.map_err(failed)?;
        let started = recent.iter().map(|it| &it.rollout).find(|it| it.reason == start.reason);
        if let Some(id) = started.map(|it| it.id.clone()) {
            return note(ledger, task, &id).await.map(Ok);
        }
        if noted.cancelled {
            return Ok(Err(Ended::cancelled()));
        }
        match Box::pin(control.start(&start)).await {
            Ok(rollout) => return note(ledger, task, &rollout.id).await.map(Ok),
            Err(
                error @ (ControlError::Frozen(_)
                | ControlError::Busy { .. }
                | ControlError::Locked(_)
                | ControlError::NotNow(_)),
            ) => progress.standing(&format!("waits: {}", chain(&error))),
            Err(
                error @ (ControlError::Records(_)
                | ControlError::Part { .. }
                | ControlError::Restless),
            ) => return Err(failed(error)),
            Err(error) => return Ok(Err(Ended::failed(chain(&error)))),
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = ledger.cancelled(&task.key) => {}
        }
    }
}

/// Notes the rollout of an attempt. One that is cancelled by now is followed all the same, until it
/// is reverted.
async fn note(ledger: &Ledger, task: &Task, id: &str) -> Result<String, RunnerError> {
    ledger.begin(&task.key, id).await?;
    Ok(id.to_owned())
}
