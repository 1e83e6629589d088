//! Webhooks of forges: whatever the headers and the body hold, a delivery is read or refused, none is believed without
//! the secret, and what is asked for is a branch that git takes as a name and a queue that is bound. What is kept of a push
//! is as plain, and has a bound.
#![no_main]

use kiln_ci::forges::{
    Binding, Change, Decision, Head, Kind, Repository, Rules, Secret, decide, decide_found,
    payload, read_push, verify,
};
use kiln_ci::model::Time;
use kiln_ci::queue::Branch;
use kiln_ci::queue::serving::{LaneName, Request};
use libfuzzer_sys::fuzz_target;

fn rules() -> Rules {
    let binding = Binding {
        repository: Repository::new("owner/app").expect("a repository"),
        branch: Branch::new("main").expect("a branch"),
        queue: LaneName::new("app").expect("a queue"),
    };
    Rules {
        bindings: vec![binding],
        label: Some("queue".to_owned()),
        people: Vec::new(),
        roles: true,
        priority: 0,
    }
}

fn check(decision: Decision) {
    let orders = match decision {
        Decision::Ask(orders) => orders,
        Decision::Check { mut orders, mut anyway, .. } => {
            assert!(!orders.is_empty());
            orders.append(&mut anyway);
            orders
        }
        _ => return,
    };
    assert!(!orders.is_empty());
    for order in orders {
        assert_eq!(order.queue.as_str(), "app");
        match order.request {
            Request::Add { branch, priority } => {
                assert!(priority <= 9 && !branch.as_str().starts_with('-'));
            }
            Request::Remove { branch } => assert!(!branch.as_str().starts_with('-')),
            other => panic!("no forge asks for {other:?}"),
        }
    }
}

fn check_push(kind: Kind, body: &[u8]) {
    let Ok(Some(push)) = read_push(kind, body) else { return };
    assert!(Branch::new(push.branch.as_str()).is_ok());
    assert!(push.commit.as_str().bytes().any(|it| it != b'0'), "no deleted branch is pushed to");
    assert!(Repository::new(&push.repository).is_ok());
    assert!(push.by.chars().count() <= 100);
}

// The first byte says which forge and which event, a line the signature, the rest is the body.
fuzz_target!(|data: &[u8]| {
    let Some((&first, rest)) = data.split_first() else { return };
    let (line, body) = match rest.iter().position(|it| *it == b'\n') {
        Some(at) => (&rest[..at], &rest[at + 1..]),
        None => (&b""[..], rest),
    };
    let kind = Kind::ALL[usize::from(first) % Kind::ALL.len()];
    let events = ["pull_request", "issue_comment", "Merge Request Hook", "Note Hook", "ping"];
    let event = events[usize::from(first) / Kind::ALL.len() % events.len()];
    let header = |name: &str| match name {
        "x-github-event" | "x-gitea-event" | "x-gitlab-event" => Some(event.to_owned()),
        _ => String::from_utf8(line.to_vec()).ok(),
    };
    if let Ok(head) = Head::read(kind, &header) {
        let secrets = [
            Secret::Text("what no fuzzer finds out".to_owned()),
            Secret::Signing(b"and neither does it find this".to_vec()),
        ];
        assert!(verify(&head.proof, &secrets, body, Time(1_780_000_000_000)).is_err());
    }
    check_push(kind, body);
    let Ok(event) = payload(kind, event, body) else { return };
    match decide(&rules(), event) {
        Decision::LookUp(said) => {
            let change = Change {
                number: said.number,
                repository: said.repository.clone(),
                base: "main".to_owned(),
                branch: said.text.lines().last().unwrap_or_default().to_owned(),
                head: None,
                foreign: false,
                open: true,
                draft: false,
                labels: Vec::new(),
            };
            check(decide_found(&rules(), &said, &change));
        }
        decision => check(decision),
    }
});
