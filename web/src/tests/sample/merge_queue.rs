//! A merge queue in which one change was rejected, one is tested and one waits.

use std::sync::Arc;

use kiln_ci::model::Time;
use kiln_ci::queue::hosted::{About, Ask, Queues, Take};
use kiln_ci::queue::serving::{LaneName, Ran, Request, Step, Tested, Verdict};
use kiln_ci::queue::{Add, Branch, ChangeId, Commit, End, Ended, Event, Lane, Options, RunId};
use kiln_ci::services::Clock;
use kiln_ci::storage::memory::Memory;

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Time {
        Time(1_795_419_668_000)
    }
}

fn commit(digit: &str) -> Commit {
    Commit::new(&digit.repeat(40)).expect("a commit")
}

fn branch(name: &str) -> Branch {
    Branch::new(name).expect("a branch")
}

pub async fn queues() -> Queues {
    let queues = Queues::new(Arc::new(Memory::default()), Arc::new(Fixed));
    let name = LaneName::new("app").expect("a name");
    let about = About {
        name: "ci-1 (77)".to_owned(),
        repository: "git@git.example:app.git".to_owned(),
        target: "main".to_owned(),
        check: "bazel test //...".to_owned(),
    };
    let take = Take { nonce: "n".to_owned(), about };
    let fence = queues.take(&name, &take).await.expect("it is free").fence;
    let now = Fixed.now();
    let mut lane = Lane::new(branch("main"), Options::default());
    lane.apply(Event::Target(commit("a")), now).expect("it is taken");
    for (name, head) in [("good", "b"), ("later", "c")] {
        let add = Add { branch: branch(name), head: commit(head), priority: 5, impact: None };
        lane.apply(Event::Add(add), now).expect("it is taken");
    }
    let bad = Tested { id: ChangeId(90), branch: branch("bad"), head: commit("d") };
    let ran = Ran {
        run: RunId(7),
        base: commit("a"),
        commit: Some(commit("e")),
        members: vec![bad.clone()],
        began: Time(now.0 - 60_000),
        ended: now,
        verdict: Verdict::Failed { targets: vec!["//app:test".to_owned()] },
        log: "expected <1>, was <2>\n".to_owned(),
    };
    let end = End::Failed { targets: vec!["//app:test".to_owned()], runs: 3 };
    let (id, head) = (bad.id, Some(bad.head));
    let left = Ended { id, branch: bad.branch, head, added: Time(now.0 - 90_000), at: now, end };
    let step = Step { lane, ended: vec![left], answered: Vec::new(), ran: vec![ran] };
    queues.step(&name, fence, 1, &step).await.expect("it is written");
    let request = Request::Pause { why: "the <house> moves".to_owned() };
    queues.ask(&name, &Ask { request, by: "ana".to_owned() }).await.expect("it is left");
    queues
}
