use super::super::samples::{case, heard, identity, with_cases};
use super::*;
use crate::model::Outcome::{Failed, Passed};

fn mind() -> Mind {
    Mind::new(Limits::default(), MindState::default(), Vec::new())
}

/// Takes attempts in as they come and lets them become evidence.
struct Rig {
    mind: Mind,
    tests: Tests,
    builds: Builds,
}

impl Rig {
    fn new() -> Self {
        Self { mind: mind(), tests: Tests::new(), builds: Builds::new() }
    }

    fn hear(&mut self, it: &Heard) {
        let fresh = || TestEvidence::new(it.test.clone());
        let evidence = self.tests.entry(it.test.clone()).or_insert_with(fresh);
        self.mind.hear(it, evidence, it.at);
        let key = (it.test.instance.clone(), it.invocation.clone());
        let build = || BuildRecord::new(&it.test.instance, &it.invocation);
        self.builds.entry(key).or_insert_with(build);
    }

    fn close(&mut self, heard: &[Heard]) {
        let heard: Vec<_> = heard.iter().collect();
        self.mind.close(&heard, &mut self.tests, &mut self.builds, Time(0));
    }

    fn records(&mut self) -> Vec<CaseRecord> {
        self.mind.take_changed(100).into_iter().map(|it| it.1).collect()
    }
}

const TOOK: Duration = Duration::from_secs(1);

#[test]
fn a_failure_runs_again_before_its_window_is_over_and_is_written_after_it() {
    let mut rig = Rig::new();
    let failed = heard("//a:t", 1, Failed);
    rig.hear(&failed);
    let reruns = rig.mind.next(Time(9_000), 4);
    assert_eq!(reruns.len(), 1);
    let passed = Heard { shadow: Some(Purpose::Decide), ..heard("//a:t", 2, Passed) };
    rig.mind.ended(reruns[0].id, Some(&passed), TOOK, Time(0));
    assert_eq!(rig.records(), []);
    rig.close(&[failed, passed]);
    let records = rig.records();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].judgement.verdict, Verdict::Flaky);
    assert!(records[0].settled);
    let build = rig.builds.values().next().unwrap();
    assert_eq!((build.failures.len(), build.failures[0].tries.passes), (1, 0));
}

#[test]
fn one_run_says_something_of_each_case_that_failed() {
    let mut rig = Rig::new();
    let failed = with_cases("//a:t", 1, &[("a", Failed), ("b", Failed), ("c", Passed)]);
    rig.hear(&failed);
    let reruns = rig.mind.next(Time(9_000), 8);
    assert_eq!(reruns.len(), 1, "its action is run once at a time");
    let again = with_cases("//a:t", 2, &[("a", Passed), ("b", Failed), ("c", Passed)]);
    let again = Heard { shadow: Some(Purpose::Decide), ..again };
    rig.mind.ended(reruns[0].id, Some(&again), TOOK, Time(0));
    rig.close(&[failed]);
    let tries: Vec<_> = rig.records().iter().map(|it| it.tries).collect();
    assert_eq!(tries, [Tries { straight: 0, passes: 1 }, Tries { straight: 2, passes: 0 }]);
}

#[test]
fn what_passed_after_an_earlier_failure_has_to_pass_again() {
    let mut rig = Rig::new();
    let build = [heard("//a:t", 1, Failed), heard("//a:t", 2, Passed)];
    build.iter().for_each(|it| rig.hear(it));
    rig.close(&build);
    assert_eq!(rig.records()[0].judgement.verdict, Verdict::Flaky);
    let next = Heard { invocation: "next".into(), ..heard("//a:t", 3, Failed) };
    rig.hear(&next);
    rig.close(&[next]);
    let record = &rig.records()[0];
    assert_eq!(record.judgement.verdict, Verdict::Undecided);
    assert_eq!(record.tries, Tries { straight: 1, passes: 0 });
    assert!(!record.settled);
}

#[test]
fn what_another_request_ran_is_a_failure_of_both() {
    let mut rig = Rig::new();
    let failed = with_cases("//a:t", 1, &[("a", Failed)]);
    let other = Heard { merged: true, invocation: "other".into(), ..heard("//a:t", 2, Failed) };
    let both = [failed, other];
    both.iter().for_each(|it| rig.hear(it));
    rig.close(&both);
    assert_eq!(rig.records()[0].tries, Tries { straight: 1, passes: 0 });
    let build = &rig.builds[&(String::new(), "other".to_owned())];
    assert_eq!(build.failures[0].subject.case, Some(case("a")));
    assert!(build.knows("//a:t", 1, 1));
}

#[test]
fn what_kiln_did_not_run_is_not_run_again() {
    let mut rig = Rig::new();
    rig.hear(&Heard { action: None, ..heard("//a:t", 1, Failed) });
    assert!(!rig.mind.has_work());
    assert!(rig.mind.next(Time(9_000), 8).is_empty());
}

#[test]
fn what_cannot_run_any_more_is_settled() {
    let mut rig = Rig::new();
    let failed = heard("//a:t", 1, Failed);
    rig.hear(&failed);
    let reruns = rig.mind.next(Time(9_000), 8);
    rig.mind.ended(reruns[0].id, None, TOOK, Time(0));
    rig.mind.give_up(&reruns[0]);
    rig.close(&[failed]);
    let records = rig.records();
    assert!(records[0].settled);
    assert_eq!(records[0].judgement.verdict, Verdict::Undecided);
    assert!(!rig.mind.has_work());
}

#[test]
fn an_outage_is_held_against_nobody() {
    let mut rig = Rig::new();
    let labels: Vec<_> = (0..20).map(|it| format!("//t:{it}")).collect();
    let before: Vec<_> = labels.iter().map(|it| other_inputs(heard(it, 1, Passed))).collect();
    before.iter().for_each(|it| rig.hear(it));
    rig.close(&before);
    let outage: Vec<_> = labels.iter().map(|it| heard(it, 2, Failed)).collect();
    outage.iter().for_each(|it| rig.hear(it));
    rig.close(&outage);
    // A control of all goes first, and while it fails nothing else is tried.
    let reruns = rig.mind.next(Time(9_000), 8);
    assert_eq!(reruns.iter().map(|it| it.purpose).collect::<Vec<_>>(), [Purpose::Control]);
    let control = Heard { shadow: Some(Purpose::Control), ..heard("//t:0", 3, Failed) };
    rig.mind.ended(reruns[0].id, Some(&control), TOOK, Time(0));
    assert!(rig.mind.next(Time(9_001), 8).is_empty());
    let records = rig.records();
    assert!(records.iter().all(|it| it.judgement.verdict == Verdict::Undecided));
    // Another process goes on where this one was.
    let cases = records.into_iter().map(|it| it.case).collect();
    let mut next = Mind::new(Limits::default(), rig.mind.state(), cases);
    assert!(next.next(Time(9_001), 8).is_empty());
    let later = Time(10 * 60_000);
    assert_eq!(next.next(later, 8)[0].purpose, Purpose::Control);
}

fn other_inputs(it: Heard) -> Heard {
    Heard { identity: identity(9), ..it }
}

#[test]
fn a_subject_is_shown_by_what_its_report_says() {
    let it = with_cases("//a:t", 1, &[("a", Passed), ("b", Failed)]);
    let subject = |name: &str| Subject { test: it.test.clone(), case: Some(case(name)) };
    assert_eq!(shown(&it, &subject("a")), Passed);
    assert_eq!(shown(&it, &subject("b")), Failed);
    assert_eq!(shown(&it, &subject("c")), Outcome::Infrastructure);
    // It crashed before it wrote a report.
    assert_eq!(shown(&heard("//a:t", 1, Failed), &subject("c")), Failed);
    assert_eq!(shown(&heard("//a:t", 1, Passed), &subject("c")), Outcome::Infrastructure);
}
