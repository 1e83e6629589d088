//! Drives one rollout: looks at the world, decides, appends, and only then acts. It may be stopped between any two of
//! these, and another goes on from the log.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_net::causes::chain;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;

use super::append::{Appended, More, Open};
use super::asking::Asking;
use super::checking::{Checking, Trust};
use super::doing::Doing;
use super::error::ControlError;
use super::kept::Looked;
use super::store::{delete, put};
use super::{Control, keys};
use crate::judge::Verdict;
use crate::rollouts::machine::{Effect, EffectId, Event, Input, Millis, Outcome, Phase, TargetId};
use crate::rollouts::parts::{Observation, Standing, Target, Unverified};
use crate::rollouts::plan::{self, Declared};

/// The time between two rounds while anything is decided, while much happens or all is reverted, and after the end.
const PACE: Duration = Duration::from_secs(1);
const QUICK: Duration = Duration::from_millis(200);
const SLOW: Duration = Duration::from_secs(10);
/// How long a rollout that has ended looks after targets that come back.
const LINGER: Millis = 86_400_000;
/// How often the deploy lock is renewed, and it is asked whether the release may still be rolled out.
const RENEW: Millis = 10_000;
const ASK: Millis = 5_000;
/// How far a clock may be off from how long something took before it is not believed.
const JUMP: Millis = 5_000;

/// What was last found out about a target.
pub(super) type Known = HashMap<TargetId, Observation>;

/// Whether the driving goes on, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    In(Duration),
    /// There is nothing left to do for anybody.
    Over,
}

pub struct Driver {
    pub(super) control: Arc<Control>,
    pub(super) open: Open,
    pub(super) targets: Arc<Vec<Target>>,
    pub(super) declared: Arc<Declared>,
    /// When an effect may be tried once more, and how often it was.
    pub(super) tried: HashMap<EffectId, (Millis, u32)>,
    pub(super) doing: Doing,
    pub(super) asking: Option<Asking>,
    pub(super) known: Known,
    pub(super) looking: Option<Looking>,
    /// Wakes the driver: somebody who looked has answered.
    pub(super) looked: Arc<Notify>,
    pub(super) looked_at: Millis,
    checking: Checking,
    renewed: Millis,
    asked: Millis,
}

/// A look that goes on for as long as this is there.
pub(super) struct Looking {
    pub task: JoinHandle<()>,
    pub answer: oneshot::Receiver<Looked>,
    /// The question to the judge that the look is for; `None`: nobody had asked it when this began.
    pub judge: Option<EffectId>,
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A clock that goes on evenly while one process drives: where the machine's clock jumps, it is not followed.
struct Steady {
    wall: Millis,
    since: Instant,
}

impl Steady {
    fn new(wall: Millis) -> Self {
        Self { wall, since: Instant::now() }
    }

    fn now(&mut self, wall: Millis) -> Millis {
        let passed = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        let even = self.wall.saturating_add(passed);
        if even.abs_diff(wall) <= JUMP {
            *self = Self::new(wall);
            return wall;
        }
        even
    }
}

impl Driver {
    pub async fn load(control: Arc<Control>, id: &str) -> Result<Self, ControlError> {
        let open = control.open(id).await?;
        let targets = control.targets_of(&open.rollout).await?;
        let declared = Arc::new(plan::read(&open.rollout.declared)?);
        Ok(Self {
            control,
            open,
            targets,
            declared,
            tried: HashMap::new(),
            doing: Doing::default(),
            asking: None,
            known: HashMap::new(),
            looking: None,
            looked: Arc::default(),
            looked_at: 0,
            checking: Checking::default(),
            renewed: 0,
            asked: 0,
        })
    }

    /// Drives until there is nothing left to do.
    pub(super) async fn keep(control: Arc<Control>, id: String) {
        let mut steady = Steady::new(control.now());
        let mut driver = loop {
            match Self::load(control.clone(), &id).await {
                Ok(driver) => break driver,
                Err(error) => {
                    if control.troubles.is_news(&id, &error) {
                        tracing::warn!(rollout = id, error = %chain(&error), "a rollout cannot be read");
                    }
                    tokio::time::sleep(SLOW).await;
                }
            }
        };
        let mut is_known = true;
        loop {
            let next = match is_known {
                true => {
                    let next = driver.round(steady.now(control.now())).await;
                    next.inspect(|_| control.troubles.end(&id))
                }
                false => driver.reload().await,
            };
            is_known = next.is_ok();
            match next {
                Ok(Next::In(pause)) => driver.pause(pause).await,
                Ok(Next::Over) => return,
                Err(error) => {
                    if control.troubles.is_news(&id, &error) {
                        tracing::warn!(rollout = id, error = %chain(&error), "a rollout waits");
                    }
                    // What was written is not known: it is read again. What is being done goes on: a balancer that were cut in
                    // the middle would not put its former file back.
                    tokio::time::sleep(PACE).await;
                }
            }
        }
    }

    /// Waits until the judge has answered, if it was asked.
    #[cfg(test)]
    pub async fn looked(&mut self) {
        while self.looking.as_ref().is_some_and(|it| !it.task.is_finished()) {
            tokio::task::yield_now().await;
        }
    }

    /// Waits, or until there may be something to do.
    async fn pause(&self, pause: Duration) {
        let (woken, looked) = (self.control.wake.notified(), self.looked.notified());
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = woken => {}
            () = looked => {}
        }
    }

    /// Drives the rollout for one round: what is found out is decided about and appended; then what follows is done.
    pub async fn round(&mut self, now: Millis) -> Result<Next, ControlError> {
        let now = self.open.time(now);
        let before = self.open.state.length;
        let renewed = self.renew(now).await?;
        let asked = self.ask(now).await;
        let observed = self.observe(now).await;
        // The time comes last.
        let inputs: Vec<Input> = renewed.into_iter().chain(asked).chain(observed).collect();
        if !self.tell(&inputs, now).await? || !self.take_look(now).await? {
            return self.reload().await;
        }
        if !self.act(now).await? {
            return self.reload().await;
        }
        self.begin_look(now);
        match self.open.state.length == before {
            true => self.next(now).await,
            // One thing leads to another.
            false => Ok(Next::In(QUICK)),
        }
    }

    /// Reads the rollout anew, since somebody else wrote: what this driver knows is old.
    async fn reload(&mut self) -> Result<Next, ControlError> {
        self.open = self.control.open(&self.open.rollout.id).await?;
        Ok(Next::In(Duration::ZERO))
    }

    /// Appends what follows. `false`: somebody else wrote.
    pub(super) async fn tell(
        &mut self,
        inputs: &[Input],
        now: Millis,
    ) -> Result<bool, ControlError> {
        let more = More { hindered: self.hindered(), ..More::default() };
        self.tell_with(inputs, now, more).await
    }

    pub(super) async fn tell_with(
        &mut self,
        inputs: &[Input],
        now: Millis,
        more: More,
    ) -> Result<bool, ControlError> {
        let told = self.control.append(&mut self.open, inputs, ("kiln", now), more).await?;
        if let Appended::Events(events) = &told {
            let page = |event: &&Event| matches!(event, Event::RollbackBegan(_) | Event::Ended(_));
            for event in events.iter().filter(page) {
                tracing::info!(rollout = self.open.rollout.id, ?event, "a rollout changes");
            }
        }
        Ok(told != Appended::Conflict)
    }

    async fn renew(&mut self, now: Millis) -> Result<Option<Input>, ControlError> {
        let due = now >= self.renewed.saturating_add(RENEW);
        let ended = matches!(self.open.state.phase, Phase::Ended(_));
        let Some(token) = self.open.state.lock.filter(|_| due && !ended) else { return Ok(None) };
        let renewed = self.control.renew(&self.open.rollout.place, token, now).await?;
        if renewed.is_some() {
            self.renewed = now;
        }
        Ok(matches!(renewed, Some(Err(_))).then_some(Input::LockLost))
    }

    /// Whether the release may still be rolled out. It is reverted where the release itself is not trusted any more, and only
    /// held where nobody can say, as in a freeze: that may be a fault of this server.
    async fn ask(&mut self, now: Millis) -> Option<Input> {
        let forward = self.open.state.is_forward() && self.open.state.phase != Phase::Verifying;
        if !forward || now < self.asked.saturating_add(ASK) {
            return None;
        }
        self.asked = now;
        let (rollout, control) = (&self.open.rollout, &self.control);
        let signed = match self.checking.trust(control, rollout, now) {
            Trust::Lost(Unverified::Untrusted(why)) => return Some(Input::Breach(why.clone())),
            Trust::Lost(Unverified::Unconfirmed(why)) => Some(Input::Freeze(why.clone())),
            Trust::Confirmed => Some(Input::Thaw),
            // What holds it may be there yet.
            Trust::Unknown => None,
        };
        let releases = &control.parts.releases;
        let standing = releases.standing(&rollout.release, &rollout.place.environment);
        match standing.await {
            Ok(Standing::Refused(why)) => Some(Input::Breach(why)),
            Ok(Standing::Frozen(_, why) | Standing::Unlisted(why)) => Some(Input::Freeze(why)),
            Ok(Standing::Free(version)) if *version.to_string() != *rollout.spec.new => {
                // A name never changes its content in one list: this is the list of another instance.
                Some(Input::Freeze(format!("{} is other content now", rollout.release)))
            }
            Ok(Standing::Free(_)) => signed,
            Err(error) => {
                tracing::warn!(rollout = rollout.id, %error, "it is not known whether the release may go on");
                signed.filter(|it| *it != Input::Thaw)
            }
        }
    }

    /// Takes in what the judge has answered.
    async fn take_look(&mut self, now: Millis) -> Result<bool, ControlError> {
        let Some(looking) = &mut self.looking else { return Ok(true) };
        let looked = match looking.answer.try_recv() {
            Ok(looked) => looked,
            Err(oneshot::error::TryRecvError::Empty) => return Ok(true),
            Err(oneshot::error::TryRecvError::Closed) => {
                self.looking = None;
                return Ok(true);
            }
        };
        // What was begun before the judge was asked has not seen the whole bake, or saw the step before it.
        let asked = looking.judge;
        self.looking = None;
        let pending = &self.open.state.pending;
        let asked = asked.filter(|id| pending.get(id) == Some(&Effect::Judge));
        let why = looked.reasons.join("; ");
        let id = self.open.rollout.id.clone();
        let anything = kiln_cas::records::Expect::Anything;
        let latest = put(keys::latest(&id), anything, &looked)?;
        let input = match asked {
            Some(judge) => {
                let (verdict, breach) = (looked.verdict, looked.breach);
                Input::Result(judge, Outcome::Judged { verdict, breach, why })
            }
            None if looked.breach && looked.verdict == Verdict::Rollback => Input::Breach(why),
            None => {
                self.control.store.commit(Vec::new(), vec![latest]).await?;
                return Ok(true);
            }
        };
        let kept = put(keys::judgement(&id, self.open.state.length), anything, &looked)?;
        let more = More { writes: vec![latest, kept], ..More::default() };
        self.tell_with(&[input], now, more).await
    }

    async fn next(&mut self, now: Millis) -> Result<Next, ControlError> {
        let state = &self.open.state;
        if !matches!(state.phase, Phase::Ended(_)) || !state.pending.is_empty() {
            let back = state.phase == Phase::RollingBack;
            return Ok(Next::In(if back { QUICK } else { PACE }));
        }
        let standing = self.control.store.standing_of(&self.open.rollout).await?;
        let newest = standing.value.newest.as_ref() == Some(&self.open.rollout.id);
        let ended = state.since;
        if newest && now < ended.saturating_add(LINGER) {
            return Ok(Next::In(SLOW));
        }
        let active = delete(keys::active(&self.open.rollout.id));
        self.control.store.commit(Vec::new(), vec![active]).await?;
        Ok(Next::Over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_jumps_is_not_followed_and_one_that_is_corrected_is() {
        let begins: Millis = 1_000_000_000;
        let mut steady = Steady::new(begins);
        // Forward by an hour, back to the beginning, and the end of all time.
        for wall in [begins + 3_600_000, 0, Millis::MAX] {
            let passed = steady.now(wall) - begins;
            assert!(passed < 60_000, "{wall}: {passed} ms");
        }
        let mut steady = Steady::new(begins);
        assert_eq!(steady.now(begins + JUMP), begins + JUMP);
        assert_eq!(steady.now(begins + 2 * JUMP), begins + 2 * JUMP, "from there on");
    }
}
