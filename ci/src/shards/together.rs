//! Tests that stay together because a set-up may land on any of them.
//!
//! What a fixture, a class or a process sets up on demand is on the account of whichever test comes first,
//! and after the next change of the suite that is another one nearby. In one recording such a test looks
//! like a slow one among quick ones. It may as well be slow by itself: so its duration is believed, but it
//! takes its neighbours along, and the shard that was planned to pay pays in either case.

use super::place::{Suite, Unit};
use crate::durations::{median, names};

/// A suspect takes at least this part of a shard: less is no harm.
const SHARE: f64 = 0.03;

/// A suspect takes at least so many times what the tests around it take.
const TIMES: f64 = 5.0;

/// No other test around it takes more than this part of its duration: slow tests often come in company.
const COMPANY: f64 = 0.5;

/// How far neighbours are looked for, on each side.
const REACH: usize = 8;

/// What the neighbours may take together, as a part of a shard: the others are to be spread.
const NEIGHBOURS: f64 = 0.05;

/// A neighbour is shorter than this part of the suspect.
const SHORT: f64 = 0.2;

/// All tests in units, most of one test each.
pub fn units(suite: &Suite) -> Vec<Unit> {
    let shard = suite.mean();
    let count = suite.seconds.len();
    let mut suspects: Vec<_> = (0..count).filter(|&test| is_suspect(suite, test)).collect();
    suspects.sort_by(|&a, &b| suite.seconds[b].total_cmp(&suite.seconds[a]).then(a.cmp(&b)));
    let mut is_taken = vec![false; count];
    suspects.iter().for_each(|&test| is_taken[test] = true);
    let mut units = Vec::with_capacity(count);
    for suspect in suspects {
        let mut unit = vec![suspect];
        let mut room = NEIGHBOURS * shard;
        for test in nearest(suite, suspect) {
            let seconds = suite.seconds[test];
            if !is_taken[test] && seconds <= room && seconds < SHORT * suite.seconds[suspect] {
                is_taken[test] = true;
                room -= seconds;
                unit.push(test);
            }
        }
        unit.sort_unstable();
        units.push(unit);
    }
    // A shard needs a test: units must not leave fewer than there are shards.
    if units.len() + is_taken.iter().filter(|&&taken| !taken).count() < suite.shards {
        return (0..count).map(|test| vec![test]).collect();
    }
    units.extend((0..count).filter(|&test| !is_taken[test]).map(|test| vec![test]));
    units
}

/// Neighbours of the same module first, then the nearer ones.
fn nearest(suite: &Suite, suspect: usize) -> Vec<usize> {
    let module = names::module(suite.names[suspect]);
    let mut tests: Vec<_> = around(suite, suspect, REACH).collect();
    tests.sort_by_key(|&test| {
        (names::module(suite.names[test]) != module, test.abs_diff(suspect), test)
    });
    tests
}

fn around(suite: &Suite, test: usize, reach: usize) -> impl Iterator<Item = usize> {
    let end = (test + reach + 1).min(suite.seconds.len());
    (test.saturating_sub(reach)..end).filter(move |&other| other != test)
}

fn is_suspect(suite: &Suite, test: usize) -> bool {
    let seconds = suite.seconds[test];
    if seconds <= 0.0 || seconds < SHARE * suite.mean() {
        return false;
    }
    let mut others = siblings(suite, test);
    if others.len() < 3 {
        others = around(suite, test, 4).map(|other| suite.seconds[other]).collect();
    }
    let company = others.iter().any(|&other| other > COMPANY * seconds);
    !company && median(&mut others).is_some_and(|usual| seconds >= TIMES * usual)
}

/// Seconds of the other tests of the module, of which the nearest ones are enough.
fn siblings(suite: &Suite, test: usize) -> Vec<f64> {
    const MOST: usize = 64;
    let module = names::module(suite.names[test]);
    let is_sibling = |&other: &usize| names::module(suite.names[other]) == module;
    around(suite, test, MOST).filter(is_sibling).map(|other| suite.seconds[other]).collect()
}
