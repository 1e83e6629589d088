//! The life of one environment, without I/O: what follows is decided from what was noted before and after each deed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Time;

/// How long an environment that is gone is remembered: one that comes up late is known by it.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Characters of a reason.
const MAX_WHY: usize = 500;
/// Failed tries in a row to take an environment down after which somebody is told, and again whenever there are twice
/// as many.
const TOLD_AFTER: u32 = 3;

/// The phase of an environment's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The environment is being brought up. Whether any of it is there is not known.
    Coming,
    Up,
    /// The environment is to be taken down. Whether anything of it is left is not known.
    Going,
    Gone,
}

/// Whoever has begun to work on an environment last: nobody else notes what came of it. Whether he still works on it is not
/// said here, but by a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub holder: String,
    /// For so long earlier versions leave it to him.
    pub until: Time,
    /// Whether he has a lease. Earlier versions have none: theirs hold until then.
    #[serde(default)]
    pub leased: bool,
}

/// An environment as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// The name of the environment, which is never given to another one.
    pub name: String,
    /// The kind of the environment, by its name in the operator's list.
    pub kind: String,
    pub instance: String,
    pub pipeline: String,
    /// The id of the run that the environment is for; empty: it was found, and nobody knows.
    pub run: String,
    pub by: String,
    pub made: Time,
    /// The time from which on the environment is taken down.
    pub expires: Time,
    pub phase: Phase,
    #[serde(default)]
    pub address: Option<String>,
    #[serde(default)]
    pub claim: Option<Claim>,
    /// Tries in a row that did not take it down.
    #[serde(default)]
    pub failures: u32,
    /// The time before which it is not tried again to take it down.
    #[serde(default)]
    pub not_before: Time,
    /// Why the environment goes, or what failed last.
    #[serde(default)]
    pub why: String,
    /// When the phase of the environment changed.
    pub changed: Time,
}

/// What is to be done about one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing is to be done before this time.
    Later(Time),
    TakeDown,
    /// The environment has been gone for so long that its record may go.
    Forget,
}

/// Why a step changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("{0} works on it until then")]
    Claimed(String),
    #[error("it is not to be taken down")]
    Stays,
    #[error("it is gone")]
    Gone,
    #[error("whoever brought it up took too long, or it is to be taken down meanwhile")]
    Late,
}

fn cut(why: &str) -> String {
    why.chars().take(MAX_WHY).collect()
}

impl Preview {
    /// A claim that no lease says anything of, while it holds.
    fn unleased(&self, now: Time) -> Option<&Claim> {
        self.claim.as_ref().filter(|it| !it.leased && now < it.until)
    }

    fn is_mine(&self, holder: &str) -> bool {
        self.claim.as_ref().is_some_and(|it| it.holder == holder)
    }

    fn enter(&mut self, phase: Phase, now: Time) {
        if self.phase != phase {
            self.changed = now;
        }
        self.phase = phase;
    }

    /// The environment came up, and answers at `address`. Errors: it is to be taken down all the same.
    pub fn came(&mut self, holder: &str, address: &str, now: Time) -> Result<(), Refused> {
        if self.phase != Phase::Coming || !self.is_mine(holder) {
            return Err(Refused::Late);
        }
        self.claim = None;
        self.address = Some(address.to_owned());
        self.enter(Phase::Up, now);
        Ok(())
    }

    /// From now on the environment is to be taken down, whatever it was. Whoever brings it up now is not interrupted by
    /// that: it is taken down behind him.
    pub fn let_go(&mut self, why: &str, now: Time) {
        if matches!(self.phase, Phase::Coming | Phase::Up) {
            self.why = cut(why);
            self.enter(Phase::Going, now);
        }
    }

    /// Notes that `holder` works on the environment no more.
    pub fn release(&mut self, holder: &str) {
        if self.is_mine(holder) {
            self.claim = None;
        }
    }

    /// The environment was seen although it should be gone: it came up late, and is taken down again.
    pub fn came_back(&mut self, now: Time) {
        if self.phase == Phase::Gone {
            self.why = "it was there although it had been taken down".to_owned();
            (self.failures, self.not_before) = (0, Time(0));
            self.enter(Phase::Going, now);
        }
    }

    /// What is to be done by whoever has its lease.
    pub fn due(&self, now: Time) -> Due {
        match (self.phase, self.unleased(now)) {
            (Phase::Gone, _) if now.since(self.changed) >= REMEMBERED => Due::Forget,
            (Phase::Gone, _) => Due::Later(self.changed.plus(REMEMBERED)),
            (_, Some(claim)) => Due::Later(claim.until),
            // Nobody brings it up any more: he who did is gone.
            (Phase::Coming, _) => Due::TakeDown,
            (Phase::Up, _) if now < self.expires => Due::Later(self.expires),
            (Phase::Up, _) => Due::TakeDown,
            (Phase::Going, _) if now < self.not_before => Due::Later(self.not_before),
            (Phase::Going, _) => Due::TakeDown,
        }
    }

    /// Begins to take the environment down: from now on it goes, and `holder`, who has its lease, works on it.
    pub fn begin_down(&mut self, holder: &str, until: Time, now: Time) -> Result<(), Refused> {
        if self.phase == Phase::Gone {
            return Err(Refused::Gone);
        }
        if let Some(other) = self.unleased(now) {
            return Err(Refused::Claimed(other.holder.clone()));
        }
        match self.phase {
            Phase::Coming => self.let_go("whoever brought it up is gone", now),
            Phase::Up if now >= self.expires => self.let_go("its time is over", now),
            Phase::Up => return Err(Refused::Stays),
            Phase::Going | Phase::Gone => {}
        }
        self.claim = Some(Claim { holder: holder.to_owned(), until, leased: true });
        Ok(())
    }

    /// Notes that nothing of the environment is left. Errors: `holder` is too late.
    pub fn went(&mut self, holder: &str, now: Time) -> Result<(), Refused> {
        if self.phase != Phase::Going || !self.is_mine(holder) {
            return Err(Refused::Late);
        }
        self.claim = None;
        self.failures = 0;
        self.enter(Phase::Gone, now);
        Ok(())
    }

    /// The environment could not be taken down, and is tried again after `pause`. Answers whether somebody is to be told.
    /// Nothing changes where another one works on it by now.
    pub fn did_not_go(&mut self, holder: &str, why: &str, pause: Duration, now: Time) -> bool {
        if self.phase != Phase::Going || !self.is_mine(holder) {
            return false;
        }
        self.claim = None;
        self.failures = self.failures.saturating_add(1);
        self.not_before = now.plus(pause);
        self.why = cut(why);
        self.failures >= TOLD_AFTER
            && (self.failures / TOLD_AFTER).is_power_of_two()
            && self.failures.is_multiple_of(TOLD_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const LEASE: Duration = Duration::from_secs(100);
    const KEEP: Duration = Duration::from_secs(1_000);

    fn claim(holder: &str, until: Time) -> Claim {
        Claim { holder: holder.to_owned(), until, leased: true }
    }

    fn coming(name: &str, holder: &str, now: Time) -> Preview {
        Preview {
            name: name.to_owned(),
            kind: "web".to_owned(),
            instance: String::new(),
            pipeline: "p".to_owned(),
            run: "r".to_owned(),
            by: "ana".to_owned(),
            made: now,
            expires: now.plus(KEEP),
            phase: Phase::Coming,
            address: None,
            claim: Some(claim(holder, now.plus(LEASE))),
            failures: 0,
            not_before: Time(0),
            why: String::new(),
            changed: now,
        }
    }

    /// The world as it is, and what was noted of it.
    struct World {
        now: Time,
        kept: Preview,
        there: BTreeSet<String>,
        downs_while_it_should_stay: usize,
    }

    /// The moment of a step at which a process ends.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Crash {
        Never,
        BeforeIt,
        /// The process ends after the step was done and before that was noted.
        AfterIt,
    }

    impl World {
        /// Brings the environment up, or tries to.
        fn up(&mut self, crash: Crash, works: bool) {
            if crash == Crash::BeforeIt {
                return;
            }
            self.there.insert(self.kept.name.clone());
            if crash == Crash::AfterIt {
                return;
            }
            match works {
                true => drop(self.kept.came("upper", "http://a", self.now)),
                false => {
                    self.kept.let_go("up failed", self.now);
                    self.kept.release("upper");
                }
            }
        }

        fn sweep(&mut self, holder: &str, crash: Crash, works: bool) {
            if self.kept.due(self.now) != Due::TakeDown {
                return;
            }
            let (phase, expires) = (self.kept.phase, self.kept.expires);
            let until = self.now.plus(LEASE);
            if self.kept.begin_down(holder, until, self.now).is_err() || crash == Crash::BeforeIt {
                return;
            }
            let stays = phase == Phase::Up && self.now < expires;
            self.downs_while_it_should_stay += usize::from(stays);
            if works {
                self.there.remove(&self.kept.name);
            }
            if crash == Crash::AfterIt {
                return;
            }
            match works {
                true => self.kept.went(holder, self.now).unwrap(),
                false => {
                    self.kept.did_not_go(holder, "it hangs", Duration::from_secs(30), self.now);
                }
            }
        }
    }

    fn crash() -> impl Strategy<Value = Crash> {
        prop_oneof![Just(Crash::Never), Just(Crash::BeforeIt), Just(Crash::AfterIt)]
    }

    proptest! {
        #[test]
        fn wherever_processes_end_nothing_stays_up_for_ever(
            up in crash(), comes: bool, asked: Option<u8>,
            steps in proptest::collection::vec((crash(), any::<bool>(), 1_u64..400), 0..12)
        ) {
            let mut world = World {
                now: Time(0), kept: coming("a", "upper", Time(0)), there: BTreeSet::new(),
                downs_while_it_should_stay: 0,
            };
            world.up(up, comes);
            for (at, (crash, works, pass)) in steps.iter().enumerate() {
                world.now = world.now.plus(Duration::from_secs(*pass));
                if asked.map(usize::from) == Some(at) {
                    world.kept.let_go("somebody wants it", world.now);
                }
                world.sweep(&format!("s{at}"), *crash, *works);
                // What is noted as gone is gone.
                prop_assert!(world.kept.phase != Phase::Gone || world.there.is_empty());
            }
            // From here on somebody lives.
            for _ in 0..5 {
                world.now = world.now.plus(KEEP);
                world.sweep("last", Crash::Never, true);
            }
            prop_assert!(world.there.is_empty());
            prop_assert_eq!(world.kept.phase, Phase::Gone);
            prop_assert_eq!(world.downs_while_it_should_stay, 0);
            world.now = world.now.plus(REMEMBERED);
            prop_assert_eq!(world.kept.due(world.now), Due::Forget);
        }
    }

    #[test]
    fn who_is_late_notes_nothing_whatever_clocks_say() {
        for now in [Time(0), Time(1_000), Time(0).plus(KEEP)] {
            let mut it = coming("a", "upper", Time(1_000));
            it.begin_down("s", now.plus(LEASE), now).unwrap();
            assert_eq!(it.came("upper", "http://a", now), Err(Refused::Late));
            it.begin_down("t", now.plus(LEASE), now).unwrap();
            assert_eq!(it.went("s", now), Err(Refused::Late));
            let before = it.clone();
            assert!(!it.did_not_go("s", "it hangs", LEASE, now));
            assert_eq!(it, before, "another one works on it");
            it.went("t", now).unwrap();
            assert_eq!(it.begin_down("u", now.plus(LEASE), now), Err(Refused::Gone));
            it.came_back(now);
            assert_eq!(it.due(now), Due::TakeDown);
        }
    }

    #[test]
    fn a_claim_of_an_earlier_version_holds_until_its_time_is_over() {
        let mut kept = serde_json::to_value(coming("a", "upper", Time(0))).unwrap();
        kept["claim"].as_object_mut().unwrap().remove("leased").unwrap();
        let mut it: Preview = serde_json::from_value(kept).unwrap();
        let (soon, late) = (Time(0).plus(Duration::from_secs(10)), Time(0).plus(LEASE));
        let refused = it.begin_down("s", soon.plus(LEASE), soon);
        assert_eq!(refused, Err(Refused::Claimed("upper".to_owned())));
        it.let_go("cancelled", soon);
        assert_eq!(it.due(soon), Due::Later(late), "he who brings it up ends first");
        it.begin_down("s", late.plus(LEASE), late).unwrap();
    }

    #[test]
    fn somebody_is_told_of_what_does_not_go_and_not_every_time() {
        let mut it = coming("a", "upper", Time(0));
        it.let_go("cancelled", Time(0));
        let told: Vec<_> = (1..=30)
            .filter(|_| {
                it.begin_down("s", Time(9), Time(0)).unwrap();
                it.did_not_go("s", "hangs", Duration::from_secs(1), Time(0))
            })
            .collect();
        assert_eq!(told, [3, 6, 12, 24]);
    }

    #[test]
    fn what_is_up_stays_until_its_time_is_over() {
        let mut it = coming("a", "upper", Time(0));
        it.came("upper", "http://a", Time(1)).unwrap();
        assert_eq!(it.due(Time(2)), Due::Later(it.expires));
        assert_eq!(it.begin_down("s", Time(9), Time(2)), Err(Refused::Stays));
        assert_eq!(it.due(it.expires), Due::TakeDown);
    }
}
