//! Promotes a release, from what was asked to what was done.

use kiln_cas::records::{Expect, Write};
use serde::{Deserialize, Serialize};

use super::store::{delete, must_be_absent, put};
use super::{
    Done, Keeper, Loaded, MAX_ATTEMPTS, PromotionError, asked, environment, keys, lasting,
};
use crate::promotion::acts;
use crate::promotion::decision::{Checked, Decision, Question, Record, Standing, decide};
use crate::promotion::facts::{Facts, Known};
use crate::promotion::pipeline::{Environment, Pipeline};
use crate::promotion::summary::Summary;
use crate::promotion::world::{Actor, Placed, Waiting, World};
use crate::releases::ReleaseName;
use crate::timestamp::Timestamp;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    pub environment: String,
    pub release: ReleaseName,
    pub by: Actor,
    pub reason: String,
    /// Whether the release may be promoted although it was rolled back there.
    pub again: bool,
    /// Seconds that the promotion may wait, if it cannot be done at once; `None`: it does not wait.
    pub wait: Option<i64>,
}

/// What became of the wish to promote a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum Outcome {
    Promoted {
        placed: Placed,
        decision: Decision,
    },
    /// The release stands there already.
    Already {
        placed: Placed,
    },
    /// The release is promoted as soon as it may be.
    Waits {
        decision: Decision,
        until: Timestamp,
    },
    /// The release cannot be promoted now.
    NotNow {
        decision: Decision,
    },
    Refused {
        decision: Decision,
    },
}

/// What was looked at for one decision.
struct Looked {
    loaded: Loaded,
    facts: Facts,
    record: Record,
    now: Timestamp,
}

impl Keeper {
    /// What a promotion would meet, as of now. Checks are not run, and nothing is changed.
    pub async fn judge(&self, ask: &Ask) -> Result<Outcome, PromotionError> {
        let pipeline = self.pipeline();
        let environment = environment(&pipeline, &ask.environment)?;
        let release = self.release(&ask.release).await?;
        let looked = self.look(environment, release).await?;
        if let Some(placed) = already(&looked, &ask.environment) {
            return Ok(Outcome::Already { placed });
        }
        let decision = decision(&pipeline, environment, &looked, None, ask);
        Ok(match decision.standing() {
            Standing::Refused => Outcome::Refused { decision },
            Standing::Met | Standing::Waits => Outcome::NotNow { decision },
        })
    }

    /// Promotes a release, or says everything that stands in the way.
    pub async fn promote(&self, ask: &Ask) -> Result<Outcome, PromotionError> {
        self.carry_out(ask, None).await
    }

    /// Does what [`Self::promote`] does; with a promotion that waited, only for as long as nobody drops it.
    pub(super) async fn carry_out(
        &self,
        ask: &Ask,
        waited: Option<&Waiting>,
    ) -> Result<Outcome, PromotionError> {
        let pipeline = self.pipeline();
        let environment = environment(&pipeline, &ask.environment)?;
        let mut checked: Option<Vec<Checked>> = None;
        let mut digest = None;
        for _ in 0..MAX_ATTEMPTS {
            let release = self.release(&ask.release).await?;
            // What a name means is looked up each time; what was checked is one content.
            if digest.as_ref().is_some_and(|it| *it != release.digest) {
                checked = None;
            }
            digest = Some(release.digest.clone());
            let looked = self.look(environment, release).await?;
            if let Some(placed) = already(&looked, &ask.environment) {
                return Ok(Outcome::Already { placed });
            }
            let decision = decision(&pipeline, environment, &looked, checked.as_deref(), ask);
            if waited.is_some_and(|it| !goes_on(it, &looked)) {
                return Ok(Outcome::NotNow { decision });
            }
            match decision.standing() {
                Standing::Refused => return Ok(Outcome::Refused { decision }),
                Standing::Waits if checked.is_none() && decision.is_met_but_for_checks() => {
                    checked = Some(self.run_checks(environment, &looked.facts.release).await);
                }
                Standing::Waits => {
                    if let Some(outcome) = self.let_wait(&looked, ask, decision).await? {
                        return Ok(outcome);
                    }
                }
                Standing::Met => {
                    let decided = (&*pipeline, environment, &decision);
                    if let Some(placed) = self.place(&looked, decided, ask).await? {
                        return Ok(Outcome::Promoted { placed, decision });
                    }
                }
            }
        }
        Err(PromotionError::Restless)
    }

    async fn look(
        &self,
        environment: &Environment,
        release: Known,
    ) -> Result<Looked, PromotionError> {
        // The world is read first: what changes after that is noticed when it is written.
        let loaded = self.store.load().await?;
        let names = environment.after.iter().chain([&environment.name]);
        let record = self.record(&release.digest, names).await?;
        let now = self.now();
        let facts = self.facts(release, environment, now).await?;
        Ok(Looked { loaded, facts, record, now })
    }

    async fn run_checks(&self, environment: &Environment, release: &Known) -> Vec<Checked> {
        let mut checked = Vec::with_capacity(environment.checks.len());
        for check in &environment.checks {
            checked.push(self.parts.checks.run(check, release, &environment.name).await);
        }
        checked
    }

    /// `None`: somebody was faster.
    async fn let_wait(
        &self,
        looked: &Looked,
        ask: &Ask,
        decision: Decision,
    ) -> Result<Option<Outcome>, PromotionError> {
        let Some(lasts) = ask.wait else { return Ok(Some(Outcome::NotNow { decision })) };
        let release = &looked.facts.release;
        let until = looked.now.plus(lasts.max(0));
        let waiting = Waiting {
            environment: ask.environment.clone(),
            release: release.name.clone(),
            digest: release.digest.clone(),
            by: ask.by.clone(),
            at: looked.now,
            until,
            reason: ask.reason.clone(),
            again: ask.again,
        };
        let mut world = looked.loaded.world.clone();
        let same = |it: &&Waiting| {
            it.environment == waiting.environment
                && (&it.digest, &it.by, it.again) == (&waiting.digest, &waiting.by, waiting.again)
        };
        if let Some(until) = world.waiting.iter().find(same).map(|it| it.until) {
            return Ok(Some(Outcome::Waits { decision, until }));
        }
        let change = acts::wait(&mut world, waiting, looked.now)?;
        let done = self.store.commit(&looked.loaded, &world, &[change], Vec::new()).await?;
        Ok(done.then_some(Outcome::Waits { decision, until }))
    }

    /// Writes pointer, reasons, summary, audit log and notice in one step, unless something that was looked at is not
    /// so any more. `None`: look again.
    async fn place(
        &self,
        looked: &Looked,
        (pipeline, environment, decision): (&Pipeline, &Environment, &Decision),
        ask: &Ask,
    ) -> Result<Option<Placed>, PromotionError> {
        let (release, before) = (&looked.facts.release, &looked.loaded.world);
        let mut world: World = before.clone();
        let why = (ask.reason.as_str(), looked.now);
        let (placed, change) = acts::place(&mut world, &ask.environment, release, &ask.by, why);
        let approvals = before.approvals_of(&ask.environment, &release.digest).cloned().collect();
        let done = Done {
            placed: placed.clone(),
            by: ask.by.clone(),
            reason: ask.reason.clone(),
            before: before.current(&ask.environment).cloned(),
            decision: Some(decision.clone()),
            approvals,
            policy: pipeline.digest.clone(),
        };
        let key = keys::done(&ask.environment, placed.generation);
        let mut writes = vec![put(key, Expect::Absent, &done)?];
        writes.push(must_be_absent(keys::rejected(&release.digest)));
        for before in &environment.after {
            writes.push(must_be_absent(keys::rolled_back(before, &release.digest)));
        }
        let here = keys::rolled_back(&ask.environment, &release.digest);
        writes.push(match looked.record.rolled_back.contains_key(&ask.environment) {
            true => delete(here),
            false => must_be_absent(here),
        });
        let summary = self.summarise(looked, (pipeline, environment, decision), &placed).await?;
        let stood = before.current(&ask.environment);
        writes.extend(self.shown(&ask.environment, &placed, stood, summary.as_deref()).await?);
        let key = keys::summary(&ask.environment, placed.generation);
        writes.extend(summary.map(|it| Write {
            key,
            expect: Expect::Absent,
            value: Some(it.into()),
        }));
        let done = self.store.commit(&looked.loaded, &world, &[change], writes).await?;
        if done {
            let lead = lasting(release.created, placed.at);
            self.deployments.came(&ask.environment, Some(lead));
        }
        Ok(done.then_some(placed))
    }

    async fn summarise(
        &self,
        looked: &Looked,
        (pipeline, environment, decision): (&Pipeline, &Environment, &Decision),
        placed: &Placed,
    ) -> Result<Option<Vec<u8>>, PromotionError> {
        let Some(signer) = &self.parts.summaries else { return Ok(None) };
        let summary = Summary {
            verifier: &signer.verifier(),
            pipeline,
            environment: &environment.name,
            facts: &looked.facts,
            decision,
            generation: placed.generation,
            now: looked.now,
        };
        let signed = signer.sign(summary.statement()?).await;
        Ok(Some(signed.map_err(asked("the signer of summaries"))?))
    }
}

/// Whether what waited does so still.
fn goes_on(waited: &Waiting, looked: &Looked) -> bool {
    waited.digest == looked.facts.release.digest
        && looked.loaded.world.waiting.iter().any(|it| it.is_same(waited))
}

fn already(looked: &Looked, environment: &str) -> Option<Placed> {
    let current = looked.loaded.world.current(environment)?;
    (current.digest == looked.facts.release.digest).then(|| current.clone())
}

fn decision(
    pipeline: &Pipeline,
    environment: &Environment,
    looked: &Looked,
    checked: Option<&[Checked]>,
    ask: &Ask,
) -> Decision {
    decide(&Question {
        pipeline,
        world: &looked.loaded.world,
        environment,
        facts: &looked.facts,
        record: &looked.record,
        checked,
        by: &ask.by,
        again: ask.again,
        now: looked.now,
    })
}
