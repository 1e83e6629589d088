use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn items(seconds: &[f64]) -> Vec<Item> {
    let item =
        |(place, &seconds): (usize, &f64)| Item { name: format!("a.py::t{place:05}"), seconds };
    seconds.iter().enumerate().map(item).collect()
}

fn sizes(plan: &Plan) -> Vec<usize> {
    plan.shards.iter().map(|shard| shard.tests.len()).collect()
}

/// The least makespan that there is.
fn optimum(seconds: &[f64], loads: &mut Vec<f64>) -> f64 {
    let Some((&first, rest)) = seconds.split_first() else {
        return loads.iter().copied().fold(0.0, f64::max);
    };
    (0..loads.len()).fold(f64::INFINITY, |best, shard| {
        loads[shard] += first;
        let here = optimum(rest, loads);
        loads[shard] -= first;
        best.min(here)
    })
}

proptest! {
    #[test]
    fn every_test_is_in_one_shard_and_none_is_empty(
        seconds in prop::collection::vec(prop_oneof![Just(0.0), 0.0..1.0, 0.0..100.0_f64], 0..120),
        shards in 1_usize..40,
        turn in any::<prop::sample::Index>(),
    ) {
        let mut tests = items(&seconds);
        let made = plan(tests.clone(), shards);
        let names: Vec<_> = made.shards.iter().flat_map(|shard| shard.tests.clone()).collect();
        prop_assert_eq!(names.len(), tests.len());
        prop_assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), tests.len());
        prop_assert_eq!(made.shards.len(), shards.min(tests.len()));
        prop_assert!(made.shards.iter().all(|shard| !shard.tests.is_empty()));
        let longest = made.shards.iter().map(|shard| shard.expected_s).fold(0.0, f64::max);
        prop_assert!((longest - made.makespan_s).abs() < 1e-6);
        prop_assert!(made.makespan_s >= made.lower_bound_s - 1e-6);
        if !tests.is_empty() {
            // The order of the input is not the plan's.
            let place = turn.index(tests.len());
            tests.rotate_left(place);
            prop_assert_eq!(plan(tests, shards), made);
        }
    }

    #[test]
    fn a_small_plan_is_near_the_best_one(
        seconds in prop::collection::vec(0.1..10.0_f64, 3..9),
        shards in 2_usize..4,
    ) {
        let made = plan(items(&seconds), shards);
        let best = optimum(&seconds, &mut vec![0.0; shards]);
        // Longest first alone promises 4/3 - 1/(3 m).
        prop_assert!(made.makespan_s <= best * 1.12, "{} of {}", made.makespan_s, best);
    }

    #[test]
    fn no_fewer_shards_would_do(
        seconds in prop::collection::vec(0.1..10.0_f64, 1..60),
        target in 12.0..60.0_f64,
    ) {
        let made = count_for(items(&seconds), target, 2.0).expect("each test fits");
        prop_assert!(made.makespan_s <= target - 2.0);
        let total: f64 = seconds.iter().sum();
        let fewer = made.shards.len() - 1;
        if fewer as f64 >= total / (target - 2.0) {
            let mut longest_first = seconds;
            longest_first.sort_by(|one, other| other.total_cmp(one));
            let makespan = place::longest_first_makespan(&longest_first, fewer);
            prop_assert!(makespan > target - 2.0, "{fewer} shards take {makespan}");
        }
    }
}

#[test]
fn tests_without_a_duration_are_spread_by_number() {
    assert_eq!(sizes(&plan(items(&[0.0; 12]), 4)), [3; 4]);
    assert_eq!(sizes(&plan(items(&[5.0, 0.0, 0.0]), 3)), [1; 3]);
    assert_eq!(plan(Vec::new(), 3), Plan::default());
}

#[test]
fn longest_first_alone_is_bettered_by_swaps() {
    // 3+3 and 2+2+2; longest first makes 3+2+2 of it.
    let made = plan(items(&[3.0, 3.0, 2.0, 2.0, 2.0]), 2);
    assert!((made.makespan_s - 6.0).abs() < 1e-9, "{made:?}");
}

#[test]
fn a_test_that_may_have_paid_for_a_set_up_keeps_its_neighbours() {
    let mut seconds = vec![1.0; 400];
    seconds[200] = 40.0;
    let made = plan(items(&seconds), 4);
    let of = |test: usize| {
        let name = format!("a.py::t{test:05}");
        made.shards.iter().position(|shard| shard.tests.contains(&name))
    };
    assert!((199..=201).all(|test| of(test) == of(200)), "{:?}", sizes(&made));
    // The mean is 109.75, and no test takes a part of a second.
    assert!(made.makespan_s <= 110.0 + 1e-9, "{}", made.makespan_s);
}

#[test]
fn every_shard_has_its_share_of_every_part() {
    let file =
        |test: usize| Item { name: format!("d/f{:02}.py::t{test:04}", test / 100), seconds: 1.0 };
    let made = plan((0..1600).map(file).collect(), 4);
    for shard in &made.shards {
        for part in 0..16 {
            let name = format!("d/f{part:02}");
            let count = shard.tests.iter().filter(|test| test.starts_with(&name)).count();
            assert!((20..=30).contains(&count), "{name}: {count}");
        }
    }
}

#[test]
fn what_cannot_be_reached_is_said() {
    let tests = items(&[30.0, 1.0]);
    let error = count_for(tests.clone(), 40.0, 15.0).expect_err("it is too long");
    assert_eq!(error.to_string(), "a.py::t00000 alone takes 30.000 s");
    assert_eq!(count_for(tests.clone(), 15.0, 15.0), Err(Impossible::Overhead(15.0)));
    assert_eq!(count_for(tests, 31.0, 0.0).map(|plan| plan.shards.len()), Ok(1));
    assert_eq!(useful_shards(&items(&[4.0, 3.0, 3.0])), 3);
    assert_eq!(useful_shards(&items(&[0.0, 0.0])), 1);
}
