//! What people say of rollouts, and what they are shown.

use std::sync::Arc;

use super::append::{Appended, More, Open};
use super::drill::Drill;
use super::error::ControlError;
use super::kept::{Head, Looked, Rollout};
use super::locks::check_reason;
use super::{Control, keys, notice};
use crate::rollouts::machine::{Input, Logged, Millis, Phase, RolloutState};
use crate::rollouts::parts::{Standing, Target};
use crate::rollouts::plan::is_name;

const TRIES: usize = 32;
/// Events that are shown: the last ones.
const MAX_SHOWN: usize = 2_000;
/// Answers of the judge that are shown: the last ones.
pub const MAX_LOOKS: usize = 50;

/// Who says something, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct By {
    pub name: String,
    pub reason: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Pause,
    Resume,
    /// Lets it into the step at whose gate it waits.
    Promote,
    Abort,
}

/// A rollout in a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    pub rollout: Rollout,
    pub head: Head,
}

/// All that is shown of a rollout.
pub struct Shown {
    /// The server's clock, by which all times here are.
    pub now: Millis,
    pub rollout: Rollout,
    pub state: RolloutState,
    /// Who has the deploy lock that the rollout waits for, in words.
    pub waits_for: Option<String>,
    /// The last events, and the number of the first of them.
    pub log: Vec<Logged>,
    pub first: u64,
    pub judgements: Vec<Looked>,
    pub latest: Option<Looked>,
    /// How the drill went, where the rollout is one that has ended, and no other has since.
    pub drill: Option<Drill>,
    pub targets: Arc<Vec<Target>>,
}

impl Command {
    fn action(self) -> &'static str {
        match self {
            Self::Pause => "rollout.say.pause",
            Self::Resume => "rollout.say.resume",
            Self::Promote => "rollout.say.promote",
            Self::Abort => "rollout.say.abort",
        }
    }

    /// What the command means to a rollout as it is. Errors: why it means nothing, in words.
    fn input(self, state: &RolloutState, by: &By) -> Result<Input, String> {
        let said = format!("{}: {}", by.name, by.reason);
        if !state.is_forward() {
            return Err("it is reverted or over already".to_owned());
        }
        match (self, state.phase) {
            (Self::Abort, _) => Ok(Input::Abort(said)),
            (Self::Pause, _) if state.paused.is_some() && !state.frozen => {
                Err("it is paused already".to_owned())
            }
            (Self::Pause, _) => Ok(Input::Pause(said)),
            (Self::Resume, _) if state.frozen => Err(
                "a freeze stops it: it goes on when that ends, or with an override (`kiln freeze override`); \
                 or nobody can say that its release is trusted: it goes on when somebody can"
                    .to_owned(),
            ),
            (Self::Resume, _) if state.paused.is_none() => Err("it is not paused".to_owned()),
            (Self::Resume, _) => Ok(Input::Resume),
            (Self::Promote, Phase::Gate(_)) if state.paused.is_some() => {
                Err("it is paused: resume it first".to_owned())
            }
            (Self::Promote, Phase::Gate(step)) => Ok(Input::Approve { step }),
            (Self::Promote, _) => Err("it does not wait at a gate".to_owned()),
        }
    }
}

impl Control {
    /// Tells a rollout something. It is in the log, with the audit log, when this returns.
    pub async fn say(&self, id: &str, command: Command, by: &By) -> Result<Head, ControlError> {
        check_reason(&by.reason)?;
        for _ in 0..TRIES {
            let mut open = self.open(id).await?;
            let now = self.now();
            let input = command.input(&open.state, by).map_err(ControlError::NotNow)?;
            if matches!(command, Command::Resume | Command::Promote) {
                self.check_freeze(&open.rollout).await?;
            }
            let line = notice::line(&open.rollout, command.action(), &by.name, &by.reason, now);
            let more = More { audit: vec![line], ..More::default() };
            match self.append(&mut open, &[input], (&by.name, now), more).await? {
                Appended::Events(_) => {
                    self.wake.notify_waiters();
                    return Ok(Head::of(&open.state, now));
                }
                Appended::Nothing => {
                    return Err(ControlError::NotNow("it means nothing to it now".to_owned()));
                }
                Appended::Conflict => {}
            }
        }
        Err(ControlError::Restless)
    }

    /// Whoever drives asks every few seconds only: until then a step would begin in a freeze.
    async fn check_freeze(&self, rollout: &Rollout) -> Result<(), ControlError> {
        match self.standing(&rollout.release, &rollout.place.environment).await? {
            Standing::Frozen(_, why) => Err(ControlError::Frozen(why)),
            Standing::Free(_) | Standing::Refused(_) | Standing::Unlisted(_) => Ok(()),
        }
    }

    /// Newest first, those before an id, but those that cannot be read.
    pub async fn list(
        &self,
        before: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Listed>, ControlError> {
        if let Some(before) = before.filter(|id| !is_name(id)) {
            return Err(ControlError::NoRollout(notice::cut(before)));
        }
        let mut before = before.map(keys::run);
        let mut listed: Vec<Listed> = Vec::new();
        // Whoever asks takes a short list for the last one.
        while listed.len() < limit {
            let (rollouts, next) = self.store.rollouts(before.as_deref(), limit).await?;
            let ids: Vec<String> = rollouts.iter().map(|it| it.id.clone()).collect();
            let heads = self.store.heads(&ids).await?;
            let found = rollouts.into_iter().zip(heads);
            listed
                .extend(found.filter_map(|(rollout, head)| Some(Listed { rollout, head: head? })));
            before = next;
            if before.is_none() {
                break;
            }
        }
        listed.truncate(limit);
        Ok(listed)
    }

    pub async fn show(&self, id: &str) -> Result<Shown, ControlError> {
        self.show_with(id, MAX_LOOKS).await
    }

    /// Shows a rollout with so many of the judge's last answers, 1 to [`MAX_LOOKS`].
    pub async fn show_with(&self, id: &str, looks: usize) -> Result<Shown, ControlError> {
        let looks = looks.clamp(1, MAX_LOOKS);
        let Open { rollout, state, .. } = self.open(id).await?;
        let (first, log) = self.store.tail(id, state.length, MAX_SHOWN).await?;
        let drill = match rollout.drill {
            Some(_) => self.drills(&rollout.place).await?.0.filter(|it| it.rollout == id),
            None => None,
        };
        Ok(Shown {
            now: self.now(),
            drill,
            waits_for: self.waits_for(&rollout, &state).await?,
            rollout: (*rollout).clone(),
            state,
            log,
            first,
            judgements: self.store.judgements(id, looks).await?,
            latest: self.store.latest(id).await?,
            targets: self.targets_of(&rollout).await?,
        })
    }

    /// What a rollout that has not begun yet waits for. `None`: it waits for nobody.
    async fn waits_for(
        &self,
        rollout: &Rollout,
        state: &RolloutState,
    ) -> Result<Option<String>, ControlError> {
        if state.phase != Phase::Waiting {
            return Ok(None);
        }
        Ok(match self.written_locks(&rollout.place).await?.value {
            Some(locks) => {
                locks.held(self.now()).map(|it| ControlError::Locked(it.clone()).to_string())
            }
            None => Some(
                "nobody can read who has the deploy lock: `kiln rollout unlock` replaces it"
                    .to_owned(),
            ),
        })
    }

    /// A newer rollout takes the place of this one.
    pub(super) async fn supersede(&self, id: &str, by: &str) -> Result<(), ControlError> {
        for _ in 0..TRIES {
            let mut open = self.open(id).await?;
            let input = Input::Supersede(by.to_owned());
            match self.append(&mut open, &[input], ("kiln", self.now()), More::default()).await? {
                Appended::Conflict => {}
                _ => return Ok(()),
            }
        }
        Err(ControlError::Restless)
    }

    /// How far a rollout is. `None`: there is no such rollout.
    pub async fn head(&self, id: &str) -> Result<Option<Head>, ControlError> {
        match is_name(id) {
            true => Ok(self.store.head(id).await?.map(|(head, _)| head)),
            false => Ok(None),
        }
    }
}
