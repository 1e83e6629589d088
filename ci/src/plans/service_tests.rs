use super::*;
use crate::storage::memory::Memory;

fn piece(tests: &[&str], expected_s: f64) -> Piece {
    Piece { tests: tests.iter().map(|it| (*it).to_owned()).collect(), expected_s }
}

fn plan(id: &str, pieces: Vec<Piece>) -> Plan {
    Plan { id: id.to_owned(), pieces, ..Plan::default() }
}

async fn next(plans: &Plans, id: &str, runner: &str, request: u64) -> Vec<String> {
    let turn = Turn { runner, attempt: "1", request, now: Time(1_000) };
    match plans.next("", id, turn).await.expect("an answer") {
        Handed::Piece { piece, .. } => piece.tests,
        Handed::Wait(_) | Handed::Nothing(_) => Vec::new(),
    }
}

#[tokio::test]
async fn two_servers_hand_out_one_plan() {
    let memory = Memory::default();
    let servers = [(); 2].map(|()| Plans::new(Arc::new(memory.clone())));
    let pieces: Vec<_> =
        (0..40).map(|number| piece(&[&format!("t{number}")], f64::from(number))).collect();
    let put = servers[0].put(plan("p", pieces), Time(0)).await.expect("it is put");
    assert_eq!((put.tests, put.was_there, put.progress.open), (40, false, 40));
    let runners: Vec<_> = (0..8_u64)
        .map(|runner| {
            let plans = servers[(runner % 2) as usize].clone();
            tokio::spawn(async move {
                let mut had = Vec::new();
                for request in 0.. {
                    let tests = next(&plans, "p", &runner.to_string(), request).await;
                    if tests.is_empty() {
                        break;
                    }
                    had.extend(tests);
                }
                had
            })
        })
        .collect();
    let mut all = Vec::new();
    for runner in runners {
        all.extend(runner.await.expect("it ends"));
    }
    assert_eq!(all.first().map(String::as_str), Some("t39"), "the longest is first");
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), 40);
    let standing = servers[1].standing("", "p", Time(1_000)).await.expect("it is there");
    assert_eq!(standing.progress, Progress { open: 0, taken: 0, done: 40 });
}

#[tokio::test]
async fn who_puts_the_same_tests_gets_the_cut_that_is_there() {
    let memory = Memory::default();
    let plans = Plans::new(Arc::new(memory.clone()));
    plans.put(plan("p", vec![piece(&["a", "b"], 2.0)]), Time(0)).await.expect("it is put");
    let records = memory.records();
    let again = plan("p", vec![piece(&["b"], 1.0), piece(&["a"], 1.0)]);
    let standing = plans.put(again, Time(5)).await.expect("it is there");
    assert_eq!((standing.was_there, standing.progress.open), (true, 1));
    assert_eq!(memory.records(), records);
    let other = plans.put(plan("p", vec![piece(&["a"], 2.0)]), Time(5)).await;
    assert!(matches!(other, Err(PlanError::OtherTests(_))), "{other:?}");
    // In another instance it is another plan.
    let elsewhere = Plan { instance: "i".into(), ..plan("p", vec![piece(&["a"], 2.0)]) };
    assert!(!plans.put(elsewhere, Time(5)).await.expect("it is put").was_there);
}

#[tokio::test]
async fn a_plan_expires_with_all_its_records_and_its_name_is_free_again() {
    let memory = Memory::default();
    let plans = Plans::new(Arc::new(memory.clone()));
    let day = u64::try_from(KEPT.as_millis()).expect("it fits");
    plans.put(plan("p", vec![piece(&["a"], 1.0)]), Time(0)).await.expect("it is put");
    plans.put(plan("q", vec![piece(&["a"], 1.0)]), Time(0)).await.expect("it is put");
    assert_eq!(next(&plans, "p", "r", 1).await, ["a"]);
    let turn = Turn { runner: "r", attempt: "1", request: 2, now: Time(day) };
    assert!(matches!(plans.next("", "p", turn).await, Err(PlanError::NoPlan(_))));
    let fresh = plans.put(plan("p", vec![piece(&["b"], 1.0)]), Time(day)).await.expect("it is put");
    assert!(!fresh.was_there);
    // Due, head and piece of the new one; "q" has gone as well.
    assert_eq!(memory.records(), 3);
    // What is left of an older one takes nothing of it along.
    plans.remove(Time(day), &keys::hash("", "p")).await.expect("it is gone");
    assert_eq!(memory.records(), 3);
}

#[tokio::test]
async fn what_fails_on_its_way_leaves_a_plan_whole_or_none() {
    for calls in 0..6 {
        for last_is_done in [false, true] {
            let memory = Memory::default();
            let plans = Plans::new(Arc::new(memory.clone()));
            let pieces = || vec![piece(&["a"], 2.0), piece(&["b"], 1.0)];
            memory.fail_after(calls, last_is_done);
            let _may_fail = plans.put(plan("p", pieces()), Time(0)).await;
            memory.recover();
            plans.put(plan("p", pieces()), Time(1)).await.expect("it is put");
            assert_eq!(next(&plans, "p", "r", 1).await, ["a"], "{calls}");
            assert_eq!(next(&plans, "p", "r", 2).await, ["b"], "{calls}");
        }
    }
}

#[tokio::test]
async fn what_is_no_plan_is_refused() {
    let plans = Plans::new(Arc::new(Memory::default()));
    let huge = "x".repeat(MAX_PLAN);
    for odd in [
        plan("", vec![piece(&["a"], 1.0)]),
        plan("a\nb", vec![piece(&["a"], 1.0)]),
        plan("p", Vec::new()),
        plan("p", vec![piece(&[], 1.0)]),
        plan("p", vec![piece(&["a"], f64::NAN)]),
        plan("p", vec![piece(&["a"], 1.0), piece(&["a"], 1.0)]),
        plan("p", vec![piece(&[&huge, "b"], 1.0)]),
    ] {
        let said = plans.put(odd, Time(0)).await;
        assert!(matches!(said, Err(PlanError::Invalid(_) | PlanError::Refused(_))), "{said:?}");
    }
}
