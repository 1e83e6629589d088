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
