//! Somebody leaves a batch while it is tested: what passed with it is not tested one by one again.

use kiln_ci::model::Time;
use kiln_ci::queue::{
    Add, Branch, ChangeId, Commit, Effect, End, Event, Lane, Options, Outcome, RunId,
};

fn commit(digit: &str) -> Commit {
    Commit::new(&digit.repeat(40)).expect("a commit")
}

/// The check that is to be begun: its run, and the changes in it.
fn begun(effects: &[Effect]) -> Option<(RunId, Vec<u64>)> {
    effects.iter().find_map(|it| match it {
        Effect::Check { run, members, .. } => {
            Some((*run, members.iter().map(|it| it.id.0).collect()))
        }
        _ => None,
    })
}

#[test]
fn green_work_is_kept_when_a_member_leaves_its_batch() {
    let second = ChangeId(2);
    for (event, tested, end) in [
        (Event::Remove(second), vec![1, 3], Some(End::Removed)),
        (Event::Deleted(second), vec![1, 3], Some(End::Deleted)),
        (Event::Merged(second), vec![1, 3], Some(End::Merged)),
        (Event::Pushed { id: second, head: commit("f") }, vec![1, 3, 2], None),
    ] {
        let what = format!("{event:?}");
        let mut lane = Lane::new(Branch::new("main").expect("a name"), Options::default());
        let mut told = Vec::new();
        let mut apply = |event| {
            let effects = lane.apply(event, Time(1)).expect("it is taken");
            let ended = |it: &Effect| match it {
                Effect::Tell(ended) => Some(ended.clone()),
                _ => None,
            };
            told.extend(effects.iter().filter_map(ended));
            effects
        };
        let built = |run, digit| Event::Built { run, commit: commit(digit), left_out: Vec::new() };
        let passed = |run| Event::Finished { run, outcome: Outcome::Passed };
        for (name, head) in [("one", "b"), ("two", "c"), ("three", "d")] {
            let (branch, head) = (Branch::new(name).expect("a name"), commit(head));
            apply(Event::Add(Add { branch, head, priority: 5, impact: None }));
        }
        let (run, all) = begun(&apply(Event::Target(commit("a")))).expect("they are tested");
        assert_eq!(all, [1, 2, 3]);
        apply(built(run, "e"));
        let effects = apply(event);
        assert!(!effects.iter().any(|it| matches!(it, Effect::Cancel(_))), "{what}: {effects:?}");
        // What was tested is no tree that may land. All who passed in it are tested together, with whoever waits.
        let (run, again) = begun(&apply(passed(run))).expect("a tree that may land is tested");
        assert_eq!(again, tested, "{what}");
        apply(built(run, "8"));
        let effects = apply(passed(run));
        assert!(effects.iter().any(|it| matches!(it, Effect::Land { .. })), "{what}: {effects:?}");
        apply(Event::Landed(run));
        let became = |id| told.iter().find(|it| it.id == ChangeId(id)).map(|it| it.end.clone());
        let landed = Some(End::Landed(commit("8")));
        assert_eq!([became(1), became(3)], [landed.clone(), landed.clone()], "{what}");
        assert_eq!(became(2), end.or(landed), "{what}");
    }
}
