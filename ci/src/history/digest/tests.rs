use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::attempts::samples::{blob, executed, reported};
use crate::attempts::{Attempt, CaseRun, Failure, Known, join};
use crate::flakes::Identity;
use crate::history::days::{add_invocation, days};
use crate::history::segment::{read_all, read_outlines, write};
use crate::model::{CaseName, Outcome};

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Passed),
        Just(Outcome::Failed),
        Just(Outcome::TimedOut),
        Just(Outcome::Skipped),
        Just(Outcome::Infrastructure)
    ]
}

/// Instance, run and shard: the first ones mostly, so that many accounts are of one place.
fn any_place() -> impl Strategy<Value = (&'static str, u32, u32)> {
    prop_oneof![
        4 => Just(("main", 1, 1)),
        1 => Just(("main", 1, 2)),
        1 => Just(("main", 2, 1)),
        1 => Just(("other", 1, 1)),
    ]
}

prop_compose! {
    /// One source's account of one of few attempts, so that many are of the same one.
    fn any_account()(
        label in "//a:[tu]", invocation in "[ab]", (instance, run, shard) in any_place(),
        (attempt, execution) in (1_u32..3, 0_u64..5), started in 1_u64..4, outcome in any_outcome(),
        millis in proptest::option::of(1_u64..9), identity in proptest::option::of(0_u8..2),
        log in proptest::option::of("[01]{2}"), (configured, told) in any::<(bool, bool)>(),
        cases in 0_usize..3,
    ) -> Attempt {
        let mut it = match execution {
            0 => reported(&label, attempt, outcome),
            execution => executed(&label, started, execution, outcome),
        };
        if execution == 4 {
            it.known = Known::MERGED;
        }
        if !configured {
            it.test.configuration = String::new();
        }
        let case = CaseRun {
            case: CaseName { class: "C".into(), name: "case".into() },
            attempt: 1,
            outcome,
            duration: None,
            failure: None,
        };
        it.test.instance = instance.to_owned();
        (it.slot.run, it.slot.shard) = (run, shard);
        Attempt {
            commit: told.then(|| format!("commit of {invocation} in {instance}")),
            invocation,
            duration: millis.map(Duration::from_millis),
            identity: identity.map(|it| Identity::from_bytes([it; 16])),
            log: log.as_deref().map(blob),
            failure: Failure::of("boom").filter(|_| cases > 0),
            cases: vec![case; cases],
            ..it
        }
    }
}

/// Digests of segments with these attempts each, and all attempts as segments have them.
fn written(parts: &[Vec<Attempt>]) -> (Vec<Arc<Digest>>, Vec<Attempt>) {
    let mut names = SharedNames::default();
    let (mut digests, mut all) = (Vec::new(), Vec::new());
    for part in parts {
        let bytes = write(part).unwrap().bytes;
        digests.push(Arc::new(Digest::new(read_outlines(&bytes).unwrap(), &mut names)));
        all.extend(read_all(&bytes).unwrap());
    }
    (digests, all)
}

/// Returns everything that an account says of an attempt, without the attempt's number, which only tells
/// attempts at one place apart.
fn said<A: Account>(it: &A) -> String {
    format!("{:?} {:?} {:?}", Gist { attempt: 0, ..it.gist() }, it.configuration(), it.richness())
}

fn of_attempt(it: &Attempt) -> String {
    let test = (it.test.instance.as_str(), it.test.label.as_str());
    let place = (it.invocation.as_str(), it.slot.run, it.slot.shard);
    let origin = (it.commit.as_deref(), it.branch.as_deref());
    format!("{test:?} {place:?} {origin:?} {:?} {}", (it.duration, it.identity), said(it))
}

fn of_seen(it: &Seen<'_>) -> String {
    let slot = it.outline.slot;
    let test = (it.test.instance.as_str(), it.test.label.as_str());
    let place = (&**it.origin.id, slot.run, slot.shard);
    let origin = (it.origin.commit, it.origin.branch);
    format!(
        "{test:?} {place:?} {origin:?} {:?} {}",
        (it.outline.took, it.outline.identity),
        said(it)
    )
}

proptest! {
    #[test]
    fn digests_are_joined_as_attempts_are(
        parts in proptest::collection::vec(proptest::collection::vec(any_account(), 0..8), 0..4),
    ) {
        let (digests, all) = written(&parts);
        let joined = join(all);
        let (mut found, mut found_days) = (Vec::new(), Vec::new());
        each_joined(&digests, |_, _| true, |_| true, |test, runs| {
            found.extend(runs.iter().map(of_seen));
            let mut sum = BTreeMap::new();
            for own in runs.chunk_by(Seen::is_of_invocation) {
                let own = own.iter().filter(|it| it.outline.known.counts());
                add_invocation(&mut sum, &own.map(Seen::counted).collect::<Vec<_>>());
            }
            found_days.push((test.clone(), sum));
        });
        let mut expected: Vec<_> = joined.iter().map(of_attempt).collect();
        expected.sort_unstable();
        found.sort_unstable();
        prop_assert_eq!(found, expected);
        for (test, sum) in found_days {
            prop_assert_eq!(sum, days(joined.iter().filter(|it| it.test == test)));
        }
    }
}

#[test]
fn an_invocation_is_listed_once_with_what_all_segments_say_of_it() {
    let run = executed("//a:t", 5, 1, Outcome::Passed);
    let told = reported("//a:u", 1, Outcome::Passed);
    let (digests, _) = written(&[vec![run.clone()], vec![told.clone()]]);
    let listed = |digests: &[Arc<Digest>]| -> Vec<(Option<String>, Option<String>, u64)> {
        invocations(digests).into_iter().map(|it| (it.commit, it.branch, it.from.0)).collect()
    };
    let (commit, branch) = (Some("c0ffee".to_owned()), Some("main".to_owned()));
    assert_eq!(listed(&digests), [(commit.clone(), branch.clone(), 5)]);
    // Two commits of one invocation are those of whoever told them, and nobody else's.
    let mut other = reported("//a:v", 1, Outcome::Passed);
    other.commit = Some("c1".into());
    let (digests, _) = written(&[vec![run], vec![told], vec![other]]);
    let disputed = [
        (None, branch.clone(), 5),
        (commit, branch.clone(), 11),
        (Some("c1".to_owned()), branch, 11),
    ];
    assert_eq!(listed(&digests), disputed);
}

#[test]
fn tests_and_invocations_that_are_not_asked_for_are_left_out() {
    let elsewhere = |it: Attempt| Attempt { invocation: "other".into(), ..it };
    let (digests, _) = written(&[
        vec![reported("//a:t", 1, Outcome::Passed), reported("//a:u", 1, Outcome::Passed)],
        vec![elsewhere(reported("//a:t", 1, Outcome::Failed))],
    ]);
    let mut found = Vec::new();
    each_joined(
        &digests,
        |instance, label| (instance, label) == ("main", "//a:t"),
        |id| id == "other",
        |test, runs| {
            found.extend(runs.iter().map(|it| (test.label.clone(), it.outline.outcome)));
        },
    );
    assert_eq!(found, [("//a:t".to_owned(), Outcome::Failed)]);
}

#[test]
fn a_digest_weighs_its_attempts_and_the_names_that_it_brought() {
    let mut names = SharedNames::default();
    let mut weigh = |attempts: Vec<Attempt>| {
        let bytes = write(&attempts).unwrap().bytes;
        Digest::new(read_outlines(&bytes).unwrap(), &mut names).bytes()
    };
    let long = || vec![reported(&format!("//a:{}", "t".repeat(10_000)), 1, Outcome::Passed)];
    let (first, again) = (weigh(long()), weigh(long()));
    assert!(first > 10_000 && again < 1000, "{first}, {again}");
    let told = Attempt { branch: Some("b".repeat(10_000)), ..long().remove(0) };
    assert!(weigh(vec![told]) > 10_000);
    let many = (1..=1000).map(|it| executed("//a:u", it, it, Outcome::Passed)).collect();
    let many = weigh(many);
    assert!((80_000..=120_000).contains(&many), "{many}");
}

#[test]
fn a_name_is_in_memory_once_and_as_long_as_a_digest_has_it() {
    let mut names = SharedNames::default();
    let bytes = write(&[reported("//a:t", 1, Outcome::Passed)]).unwrap().bytes;
    let [one, other] = [(); 2].map(|()| Digest::new(read_outlines(&bytes).unwrap(), &mut names));
    assert!(Arc::ptr_eq(&one.tests[0].0, &other.tests[0].0));
    assert!(Arc::ptr_eq(&one.invocations[0].0, &other.invocations[0].0));
    drop(one);
    names.prune();
    assert!(!names.is_empty());
    drop(other);
    names.prune();
    assert!(names.is_empty());
}
