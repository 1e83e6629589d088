use proptest::prelude::*;

use super::*;
use crate::flakes::{Mixture, Prior, judge};
use crate::model::TestKey;
use crate::quarantine::Request;

fn subject(name: &str) -> Subject {
    let label = format!("//t:{name}");
    let test = TestKey { instance: String::new(), label, configuration: String::new() };
    Subject { test, case: None }
}

fn failure(name: &str, straight: u32, passes: u32) -> Failure {
    let tries = Tries { straight, passes };
    let rate = Mixture::of_tests().after(5.0, 500.0);
    Failure {
        subject: subject(name),
        at: Time(1),
        signature: Signature::of("boom"),
        known: true,
        edited: false,
        judgement: Some(judge(&Prior::default(), &rate, tries)),
        tries,
        settled: true,
    }
}

fn quarantine(names: &[&str]) -> Quarantine {
    let mut it = Quarantine::default();
    for name in names {
        let request =
            Request { who: "ann".into(), reason: "known".into(), owner: None, stay: None };
        it.enter(&subject(name), request, Time(0)).unwrap();
    }
    it
}

fn answer(failures: &[Failure], quarantine: &Quarantine) -> (GateAnswer, Vec<Finding>) {
    let run = Run { instance: "", incomplete: None, failures: failures.to_vec(), tests: 1_000 };
    let outcome = gate(&run, quarantine, Time(0));
    (outcome.answer, outcome.items.iter().map(|it| it.finding).collect())
}

#[test]
fn proof_alone_masks() {
    let none = quarantine(&[]);
    let a = quarantine(&["a"]);
    assert_eq!(answer(&[], &none), (GateAnswer::Green, vec![]));
    assert_eq!(answer(&[failure("a", 0, 1)], &none), (GateAnswer::Green, vec![Finding::Proven]));
    assert_eq!(answer(&[failure("a", 0, 1)], &a), (GateAnswer::Green, vec![Finding::Quarantined]));
    assert_eq!(answer(&[failure("a", 1, 0)], &a), (GateAnswer::Undecided, vec![Finding::Spent]));
    assert_eq!(answer(&[failure("a", 5, 0)], &a), (GateAnswer::Red, vec![Finding::Broken]));
    assert_eq!(answer(&[failure("a", 5, 2)], &a), (GateAnswer::Red, vec![Finding::Streak]));
    let unseen = Failure { judgement: None, settled: false, ..failure("a", 1, 0) };
    assert_eq!(answer(&[unseen], &a), (GateAnswer::Undecided, vec![Finding::Open]));
}

#[test]
fn what_is_edited_new_or_incomplete_is_never_masked() {
    let a = quarantine(&["a"]);
    let edited = Failure { edited: true, ..failure("a", 0, 3) };
    assert_eq!(answer(&[edited], &a), (GateAnswer::Red, vec![Finding::Edited]));
    let new = Failure { known: false, ..failure("a", 0, 3) };
    assert_eq!(
        answer(std::slice::from_ref(&new), &a),
        (GateAnswer::Undecided, vec![Finding::NewSignature])
    );
    // Put there later, as one does with what has flaked.
    let before = Failure { at: Time(0), ..new };
    let mut later = Quarantine::default();
    let request = Request { who: "ann".into(), reason: "it".into(), owner: None, stay: None };
    later.enter(&subject("a"), request, Time(1)).unwrap();
    assert_eq!(answer(&[before], &later), (GateAnswer::Green, vec![Finding::Proven]));
    let run = Run { instance: "", incomplete: Some("cancelled"), failures: vec![], tests: 10 };
    assert_eq!(gate(&run, &a, Time(0)).answer, GateAnswer::Red);
}

#[test]
fn it_fails_closed_beyond_the_cap() {
    let six = quarantine(&["a", "b", "c", "d", "e", "f"]);
    let run =
        Run { instance: "", incomplete: None, failures: vec![failure("a", 0, 1)], tests: 200 };
    let outcome = gate(&run, &six, Time(0));
    assert_eq!((outcome.answer, outcome.items[0].finding), (GateAnswer::Red, Finding::OverCap));
    assert_eq!(gate(&Run { tests: 300, ..run }, &six, Time(0)).answer, GateAnswer::Green);
}

#[test]
fn the_worst_decides_and_each_is_named() {
    let a = quarantine(&["a"]);
    let all = [failure("a", 0, 1), failure("b", 1, 0), failure("c", 6, 0)];
    assert_eq!(answer(&all, &a).0, GateAnswer::Red);
    assert_eq!(answer(&all[..2], &a).0, GateAnswer::Undecided);
    let run = Run { instance: "", incomplete: None, failures: all.to_vec(), tests: 1_000 };
    let text: Vec<_> = gate(&run, &a, Time(0)).items.iter().map(ToString::to_string).collect();
    assert_eq!(text[0], "//t:a: in quarantine (known), passed once with equal inputs since");
    assert_eq!(text[2], "//t:c: broken: failed 6 times in a row with equal inputs");
    assert_eq!(
        [GateAnswer::Green, GateAnswer::Red, GateAnswer::Undecided].map(GateAnswer::exit_code),
        [0, 1, 6]
    );
}

proptest! {
    /// However a failure came about: without a pass since there is no green, nor with an edit.
    #[test]
    fn nothing_is_masked_without_proof(
        straight in 0_u32..80, passes in 0_u32..3, known in any::<bool>(), edited in any::<bool>(),
        settled in any::<bool>(), quarantined in any::<bool>(), verdict in 0_usize..4
    ) {
        let verdicts = [Some(Verdict::Flaky), Some(Verdict::Broken), Some(Verdict::Undecided), None];
        let judgement = verdicts[verdict].map(|verdict| Judgement { verdict, broken: 0.5 });
        let it = Failure { known, edited, settled, judgement, ..failure("a", straight, passes) };
        let there = quarantine(if quarantined { &["a"] } else { &[] });
        let (answer, findings) = answer(&[it], &there);
        prop_assert_eq!(findings.len(), 1);
        if answer == GateAnswer::Green {
            prop_assert!(passes > 0 && !edited && verdicts[verdict] == Some(Verdict::Flaky));
            prop_assert!(!quarantined || known);
        }
    }
}
