//! Segments of the history of tests, as they lie in a store of blobs: whatever is in their blocks, these are read
//! within their limits or refused, and what is read can be written again.
#![no_main]

use kiln_ci::history::segment::{
    Block, Footer, Invocation, TestEntry, days_of, invocations_of, read_all, read_outlines,
    runs_of, tests_of, write,
};
use kiln_ci::model::{TestKey, Time};
use kiln_ci::storage::seal;
use libfuzzer_sys::fuzz_target;

fn sealed(kind: &[u8; 4], raw: &[u8]) -> Vec<u8> {
    seal(*kind, 1, raw).expect("it is short")
}

/// Attempts with cases, of one test, in each version that there is.
fn runs(data: &[u8], count: u64) {
    let Some((&middle, data)) = data.split_first() else { return };
    let (runs, cases) = data.split_at(data.len() * usize::from(middle) / 256);
    let cases = sealed(b"KCAS", cases);
    for version in [1, 2] {
        let runs = seal(*b"KRUN", version, runs).expect("it is short");
        attempts(&runs, &cases, count);
    }
}

fn attempts(runs: &[u8], cases: &[u8], count: u64) {
    let test =
        TestKey { instance: String::new(), label: "//a:t".into(), configuration: String::new() };
    let entries = [TestEntry { test, runs: 0..count, days: 0..0 }];
    let block = Block { count, ..Block::default() };
    let invocation = |at| {
        let named = || Invocation {
            instance: "main".to_owned(),
            id: format!("i{at}"),
            commit: None,
            branch: None,
            from: Time(0),
        };
        (at < 3).then(named)
    };
    for cases in [None, Some(cases)] {
        let Ok(attempts) = runs_of(runs, cases, &block, &entries, invocation) else { continue };
        assert_eq!(attempts.len() as u64, count);
        let written = write(&attempts).expect("what was read can be written");
        let mut again = read_all(&written.bytes).expect("what was written can be read");
        let outlines = read_outlines(&written.bytes).expect("what was written can be outlined");
        assert_eq!(outlines.attempts.len() as u64, count);
        let mut attempts = attempts;
        for all in [&mut attempts, &mut again] {
            all.sort_by_key(|it| format!("{it:?}"));
        }
        assert_eq!(attempts, again);
    }
}

// The first two bytes say which part it is and how many entries it has, the rest is what is in it.
fuzz_target!(|data: &[u8]| {
    let [kind, count, rest @ ..] = data else { return };
    let count = u64::from(*count);
    let block = Block { count, ..Block::default() };
    match kind % 6 {
        0 => runs(rest, count),
        1 => {
            if let Ok(entries) = tests_of(&sealed(b"KTST", rest), &block) {
                assert_eq!(entries.len() as u64, count);
                assert!(entries.is_sorted_by_key(|it| (it.runs.start, it.days.start)));
            }
        }
        2 => {
            if let Ok(days) = days_of(&sealed(b"KDAY", rest), &block) {
                assert_eq!(days.len() as u64, count);
            }
        }
        3 => {
            if let Ok(all) = invocations_of(&sealed(b"KINV", rest), &block) {
                assert_eq!(all.len() as u64, count);
            }
        }
        4 => {
            let _ = Footer::open(&sealed(b"KFTR", rest));
        }
        _ => {
            let _ = (read_all(rest), read_outlines(rest));
        }
    }
});
