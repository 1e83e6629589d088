//! Environments as stages of pipelines bring them up, check them and take them down.

use std::collections::BTreeMap;
use std::time::Duration;

use kiln_net::causes::chain;
use kiln_net::counts::counted;

use super::machine::{Phase, Preview as Kept};
use super::previews::{Ask, PreviewError, Previews, Unlocked};
use crate::pipelines::{Ended, Preview, PreviewAct, Progress, RunnerError, RunnerFault, Task};
use crate::stages::{Ledger, StageLog};

/// How often it is looked whether somebody else has taken an environment down.
const LOOK: Duration = Duration::from_secs(1);

fn unavailable(error: impl Into<RunnerFault>) -> RunnerError {
    RunnerError { what: "what is known of environments".to_owned(), source: Some(error.into()) }
}

/// What an error means for the attempt at a stage. Errors that say nothing of the environment end it so that another
/// may follow.
fn failed(error: PreviewError) -> Result<Ended, RunnerError> {
    match error {
        PreviewError::Storage(error) => Err(unavailable(error)),
        error @ (PreviewError::Secret(_) | PreviewError::Elsewhere(_)) => {
            Ok(Ended::infrastructure(chain(&error)))
        }
        error => Ok(Ended::failed(chain(&error))),
    }
}

impl Previews {
    pub async fn run_stage(
        &self,
        ledger: &Ledger,
        task: &Task,
        preview: &Preview,
        progress: &dyn Progress,
    ) -> Result<Ended, RunnerError> {
        if ledger.read(&task.key).await?.cancelled {
            self.let_go(&task.key.run, Some(&preview.environment), "its stage was cancelled")
                .await
                .map_err(unavailable)?;
            return Ok(Ended::cancelled());
        }
        if preview.act == PreviewAct::Down {
            return self.stage_down(ledger, task, preview, progress).await;
        }
        let unlocked = match self.unlocked(&preview.environment).await {
            Ok(unlocked) => unlocked,
            Err(error) => return failed(error),
        };
        let log = StageLog::new(progress, &unlocked.forms);
        let ended = match preview.act {
            PreviewAct::Up => self.stage_up(ledger, task, preview, (&unlocked, &log)).await,
            PreviewAct::Check | PreviewAct::Down => {
                self.stage_check(task, preview, (&unlocked, &log)).await
            }
        };
        log.end();
        ended
    }

    async fn stage_up(
        &self,
        ledger: &Ledger,
        task: &Task,
        preview: &Preview,
        (unlocked, log): (&Unlocked, &StageLog<'_>),
    ) -> Result<Ended, RunnerError> {
        let ask = Ask {
            key: &task.key,
            kind: &preview.environment,
            instance: &task.instance,
            pipeline: &task.pipeline,
            by: &task.by,
            keep: preview.keep,
        };
        log.standing("is brought up");
        let told = |stderr: bool, data: &[u8]| log.append(stderr, data);
        let came = tokio::select! {
            came = self.up(&ask, unlocked, &told) => came,
            () = ledger.cancelled(&task.key) => {
                self.give_up_of(task, preview).await.map_err(unavailable)?;
                return Ok(Ended::cancelled());
            }
        };
        let up = match came {
            Ok(up) => up,
            Err(error) => return failed(error),
        };
        self.tell_parity(&up, unlocked, log).await;
        let address = up.address.clone().unwrap_or_default();
        let told = [("preview".to_owned(), up.name.clone()), ("address".to_owned(), address)];
        Ok(Ended::passed(BTreeMap::from(told)))
    }

    /// What was begun by this process is not brought up any more.
    async fn give_up_of(
        &self,
        task: &Task,
        preview: &Preview,
    ) -> Result<(), crate::storage::StorageError> {
        let (run, kind) = (&task.key.run, Some(preview.environment.as_str()));
        for name in self.let_go(run, kind, "its stage was cancelled").await? {
            self.give_up(&name, "its stage was cancelled").await?;
        }
        Ok(())
    }

    async fn tell_parity(&self, up: &Kept, unlocked: &Unlocked, log: &StageLog<'_>) {
        match self.parity(up, unlocked).await {
            Ok(None) => {}
            Ok(Some(differences)) if differences.is_empty() => {
                log.say("nothing differs from what it stands for");
            }
            Ok(Some(differences)) => {
                let count = counted(differences.len(), "difference");
                log.say(&format!("{count} from what it stands for:"));
                for difference in differences {
                    log.append(false, format!("{}\n", difference.in_words()).as_bytes());
                }
            }
            Err(error) => log.say(&format!("what differs is not known: {}", chain(&error))),
        }
    }

    async fn stage_check(
        &self,
        task: &Task,
        preview: &Preview,
        (unlocked, log): (&Unlocked, &StageLog<'_>),
    ) -> Result<Ended, RunnerError> {
        let all = self.list().await.map_err(unavailable)?;
        let is_it = |it: &&Kept| {
            it.run == task.key.run && it.kind == preview.environment && it.phase == Phase::Up
        };
        let Some(up) = all.iter().find(is_it) else {
            let why = format!("this run has no environment {:?} that is up", preview.environment);
            return Ok(Ended::failed(why));
        };
        let told = |stderr: bool, data: &[u8]| log.append(stderr, data);
        match self.check(up, unlocked, &told).await {
            Ok(()) => Ok(Ended::passed(BTreeMap::new())),
            Err(error) => failed(error),
        }
    }

    /// Passes when nothing of it is left. What does not go is tried again by itself, whatever becomes of the stage.
    async fn stage_down(
        &self,
        ledger: &Ledger,
        task: &Task,
        preview: &Preview,
        progress: &dyn Progress,
    ) -> Result<Ended, RunnerError> {
        let (run, kind) = (&task.key.run, Some(preview.environment.as_str()));
        let names = self.let_go(run, kind, "its run takes it down").await.map_err(unavailable)?;
        for name in names {
            progress.standing(&format!("takes {name} down"));
            loop {
                let taken = match self.take_down(&name).await {
                    Ok(taken) => taken,
                    Err(error) => return failed(error),
                };
                match taken {
                    None => break,
                    Some(it) if it.phase == Phase::Gone => break,
                    Some(it) if it.claim.is_none() && it.failures > 0 => {
                        let why = format!("{name} is still there, and is tried again: {}", it.why);
                        return Ok(Ended::failed(why));
                    }
                    // Somebody else works on it.
                    Some(_) => {
                        if ledger.read(&task.key).await?.cancelled {
                            return Ok(Ended::cancelled());
                        }
                        tokio::time::sleep(LOOK).await;
                    }
                }
            }
        }
        Ok(Ended::passed(BTreeMap::new()))
    }
}
