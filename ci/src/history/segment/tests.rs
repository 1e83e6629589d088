use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::attempts::samples::{blob, executed, reported};
use crate::attempts::{Attempt, CaseRun, Failure, Known};
use crate::flakes::Identity;
use crate::model::{CaseName, Outcome, Time};

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Passed),
        Just(Outcome::Failed),
        Just(Outcome::TimedOut),
        Just(Outcome::Skipped),
        Just(Outcome::Infrastructure),
    ]
}

fn any_case() -> impl Strategy<Value = CaseRun> {
    let millis = proptest::option::of(0_u64..100_000);
    ("C[12]", "t[0-9]", any_outcome(), millis, any::<bool>()).prop_map(
        |(class, name, outcome, millis, failed)| CaseRun {
            case: CaseName { class, name },
            attempt: 1,
            outcome,
            duration: millis.map(Duration::from_millis),
            failure: Failure::of("boom").filter(|_| failed),
        },
    )
}

prop_compose! {
    pub fn any_attempt()(
        label in "//[ab]:[t-v]{1,2}", invocation in "[a-c]", attempt in 1_u32..4, execution in 0_u64..9,
        started in 0_u64..400_000_000, outcome in any_outcome(), millis in proptest::option::of(any::<u32>()),
        identity in proptest::option::of(any::<[u8; 16]>()), hash in proptest::option::of("[0-9a-f]{2}"),
        commit in proptest::option::of("[0-9a-f]{40}|main"), failure in proptest::option::of("e[0-9]x"),
        cases in proptest::collection::vec(any_case(), 0..4),
    ) -> Attempt {
        let mut base = match execution {
            0 => reported(&label, attempt, outcome),
            execution => executed(&label, started, execution, outcome),
        };
        if execution == 8 {
            base.known |= Known::PART;
        }
        Attempt {
            invocation,
            started: Time(started),
            duration: millis.map(|it| Duration::from_millis(it.into())),
            identity: identity.map(Identity::from_bytes),
            log: hash.as_deref().map(blob),
            failure: failure.as_deref().and_then(Failure::of),
            commit,
            cases,
            ..base
        }
    }
}

fn sorted(mut attempts: Vec<Attempt>) -> Vec<String> {
    attempts.sort_by_key(|it| format!("{it:?}"));
    attempts.iter().map(|it| format!("{it:?}")).collect()
}

proptest! {
    #[test]
    fn what_is_written_is_read(attempts in proptest::collection::vec(any_attempt(), 0..30)) {
        let written = write(&attempts).unwrap();
        prop_assert_eq!(written.runs, attempts.len() as u64);
        prop_assert_eq!(sorted(read_all(&written.bytes).unwrap()), sorted(attempts.clone()));
        let days = read_days(&written.bytes).unwrap();
        for (test, days) in &days {
            let own = attempts.iter().filter(|it| it.test == *test);
            prop_assert_eq!(days, &crate::history::days::days(own));
        }
        let tests: std::collections::BTreeSet<_> = attempts.iter().map(|it| &it.test).collect();
        prop_assert_eq!(days.keys().collect::<Vec<_>>(), tests.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn a_fresh_segment_says_the_same(attempts in proptest::collection::vec(any_attempt(), 0..30)) {
        let (fresh, joined) = (write_fresh(&attempts).unwrap(), write(&attempts).unwrap());
        prop_assert_eq!((fresh.runs, fresh.cases), (joined.runs, joined.cases));
        prop_assert_eq!(read_all(&fresh.bytes).unwrap(), read_all(&joined.bytes).unwrap());
        prop_assert_eq!(read_days(&fresh.bytes).unwrap(), read_days(&joined.bytes).unwrap());
    }

    #[test]
    fn an_outline_says_what_its_attempt_says(
        attempts in proptest::collection::vec(any_attempt(), 0..30),
    ) {
        let bytes = write(&attempts).unwrap().bytes;
        let (all, outlines) = (read_all(&bytes).unwrap(), read_outlines(&bytes).unwrap());
        prop_assert_eq!(outlines.attempts.len(), all.len());
        for (outline, it) in outlines.attempts.iter().zip(&all) {
            let of = &outlines.invocations[outline.invocation as usize];
            prop_assert_eq!((&of.id, &of.commit), (&it.invocation, &it.commit));
            let who = (outline.slot, outline.known, outline.execution, outline.outcome);
            prop_assert_eq!(who, (it.slot, it.known, it.execution, it.outcome));
            let what = (outline.started, outline.took, outline.identity);
            prop_assert_eq!(what, (it.started, it.duration, it.identity));
            let rich = (outline.cases as usize, outline.has_failure, outline.log.is_some());
            prop_assert_eq!(rich, (it.cases.len(), it.failure.is_some(), it.log.is_some()));
        }
        for (one, other) in (0..all.len()).zip(1..all.len()) {
            let same = outlines.attempts[one].log == outlines.attempts[other].log;
            prop_assert_eq!(same, all[one].log == all[other].log);
        }
        for entry in &outlines.tests {
            let own = &all[entry.runs.start as usize..entry.runs.end as usize];
            prop_assert!(own.iter().all(|it| it.test == entry.test));
        }
    }

    #[test]
    fn damage_is_found(
        attempts in proptest::collection::vec(any_attempt(), 1..8), at: prop::sample::Index, bit in 0_u8..8, keep: prop::sample::Index,
    ) {
        let bytes = write(&attempts).unwrap().bytes;
        let whole = format!("{:?}", read_all(&bytes).unwrap());
        let outlines = read_outlines(&bytes).unwrap();
        let mut damaged = bytes.to_vec();
        let at = at.index(damaged.len());
        damaged[at] ^= 1 << bit;
        if let Ok(read) = read_all(&damaged) {
            prop_assert_eq!(format!("{read:?}"), whole);
        }
        if let Ok(read) = read_outlines(&damaged) {
            prop_assert_eq!(read, outlines);
        }
        let cut = keep.index(bytes.len());
        prop_assert!(read_all(&bytes[..cut]).is_err() && read_outlines(&bytes[..cut]).is_err());
    }

    #[test]
    fn anything_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(read_all(&bytes).is_err() && read_days(&bytes).is_err());
        prop_assert!(read_outlines(&bytes).is_err());
    }
}

/// The version of the first block of attempts.
fn version_of_runs(bytes: &[u8]) -> u8 {
    let tail = &bytes[bytes.len() - TAIL as usize..];
    let range = footer_range(tail, bytes.len() as u64).unwrap();
    let footer = Footer::open(&bytes[range.start as usize..range.end as usize]).unwrap();
    bytes[footer.runs[0].runs.at as usize + 4]
}

#[test]
fn without_parts_a_segment_is_written_as_it_always_was() {
    let whole = executed("//a:t", 5, 1, Outcome::Passed);
    let old = write([&whole]).unwrap().bytes;
    assert_eq!(u32::from(version_of_runs(&old)), VERSION);
    let mut part = executed("//a:t", 6, 2, Outcome::Failed);
    part.known |= Known::PART;
    let new = write([&whole, &part]).unwrap().bytes;
    assert_eq!(u32::from(version_of_runs(&new)), WIDE);
    assert_eq!(read_all(&old).unwrap(), std::slice::from_ref(&whole));
    assert_eq!(read_all(&new).unwrap(), [whole, part]);
}

/// A segment whose footer says something else than what was written.
fn with_footer(bytes: &[u8], change: impl Fn(&mut Footer)) -> Vec<u8> {
    let tail = &bytes[bytes.len() - TAIL as usize..];
    let range = footer_range(tail, bytes.len() as u64).unwrap();
    let (start, end) = (range.start as usize, range.end as usize);
    let mut footer = Footer::open(&bytes[start..end]).unwrap();
    change(&mut footer);
    [&bytes[..start], footer.seal().unwrap().as_slice()].concat()
}

#[test]
fn parts_that_do_not_fit_together_make_no_outlines() {
    let attempts = ["//a:t", "//a:u"].map(|label| reported(label, 1, Outcome::Passed));
    let bytes = write(&attempts).unwrap().bytes;
    let whole = read_outlines(&with_footer(&bytes, |_| {})).unwrap();
    assert_eq!(whole, read_outlines(&bytes).unwrap());
    let changes: [fn(&mut Footer); 7] = [
        |it| it.invocations.clear(),
        |it| it.tests.clear(),
        |it| it.tests.push(it.tests[0].clone()),
        |it| it.runs.clear(),
        |it| it.runs.push(it.runs[0]),
        |it| it.runs[0].runs.count = u64::MAX,
        |it| it.runs[0].runs.bytes = u64::MAX,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        assert!(read_outlines(&with_footer(&bytes, change)).is_err(), "change {number}");
    }
}

#[test]
fn an_attempt_with_many_cases_is_a_block_of_its_own() {
    let case = |number: usize| CaseRun {
        case: CaseName { class: "C".into(), name: format!("case {number}") },
        attempt: 1,
        outcome: Outcome::Passed,
        duration: Some(Duration::from_millis(number as u64)),
        failure: None,
    };
    let mut large = executed("//a:large", 5, 1, Outcome::Passed);
    large.cases = (0..50_000).map(case).collect();
    let small = executed("//a:small", 5, 2, Outcome::Passed);
    let written = write([&small, &large]).unwrap();
    assert_eq!(written.cases, 50_000);
    assert!(written.bytes.len() < 400_000, "{}", written.bytes.len());
    assert_eq!(read_all(&written.bytes).unwrap(), [large, small]);
}
