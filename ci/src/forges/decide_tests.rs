//! What follows from events.

use proptest::prelude::*;

use super::decide::{Decision, Order, decide, decide_found};
use super::event::{Change, Event, Happened, Person, Said};
use super::forge::{Binding, Repository, Rules};
use crate::queue::serving::{LaneName, Request};
use crate::queue::{Branch, Commit};

fn rules() -> Rules {
    let binding = |branch: &str, queue: &str| Binding {
        repository: Repository::new("owner/app").unwrap(),
        branch: Branch::new(branch).unwrap(),
        queue: LaneName::new(queue).unwrap(),
    };
    Rules {
        bindings: vec![binding("main", "app"), binding("next", "app-next")],
        label: Some("queue".to_owned()),
        people: Vec::new(),
        roles: false,
        priority: 2,
    }
}

fn change() -> Change {
    Change {
        number: 7,
        repository: "Owner/App".to_owned(),
        base: "main".to_owned(),
        branch: "feature/login".to_owned(),
        head: None,
        foreign: false,
        open: true,
        draft: false,
        labels: vec!["queue".to_owned()],
    }
}

fn person(name: &str) -> Person {
    Person { name: name.to_owned(), id: None }
}

fn said(text: &str) -> Said {
    Said {
        repository: "owner/app".to_owned(),
        number: 7,
        text: text.to_owned(),
        by: person("alice"),
        by_author: false,
        belongs: Some(true),
        change: None,
    }
}

fn after(rules: &Rules, change: &Change, happened: Vec<Happened>) -> Decision {
    let (change, by) = (change.clone(), person("alice"));
    decide(rules, Event::Changed { change, happened, by, at: None })
}

fn order(queue: &str, request: Request) -> Order {
    let (queue, by) = (LaneName::new(queue).unwrap(), "alice".to_owned());
    let repository = "Owner/App".to_owned();
    Order { queue, request, by, number: 7, repository, commit: None }
}

fn branch() -> Branch {
    Branch::new("feature/login").unwrap()
}

fn add(priority: u8) -> Decision {
    let request = Request::Add { branch: branch(), priority };
    Decision::Ask(vec![order("app", request)])
}

fn remove() -> Decision {
    Decision::Ask(vec![order("app", Request::Remove { branch: branch() })])
}

fn ignored(decision: Decision) -> String {
    match decision {
        Decision::Ignored(why) => why.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_label_queues_and_its_end_removes() {
    let label = |it: &str| Happened::Labeled(it.to_owned());
    let unlabel = |it: &str| Happened::Unlabeled(it.to_owned());
    let after = |happened| after(&rules(), &change(), vec![happened]);
    assert_eq!(after(label("queue")), add(2));
    assert_eq!(after(unlabel("queue")), remove());
    assert_eq!(after(Happened::Relabeled), add(2));
    assert_eq!(after(Happened::Offered), add(2), "the label was there before");
    for gone in [Happened::Closed, Happened::Drafted] {
        assert_eq!(after(gone), remove());
    }
    for other in [label("Queue"), label("bug"), unlabel("bug")] {
        assert!(ignored(after(other)).contains("label"));
    }
    assert!(ignored(after(Happened::Pushed)).contains("look by themselves"));
}

#[test]
fn what_cannot_land_is_not_queued_and_why_is_said() {
    let label = || vec![Happened::Labeled("queue".to_owned())];
    let with = |set: fn(&mut Change)| {
        let mut it = change();
        set(&mut it);
        ignored(after(&rules(), &it, label()))
    };
    assert_eq!(with(|it| it.draft = true), "it is a draft");
    assert_eq!(with(|it| it.open = false), "it is closed");
    assert!(with(|it| it.foreign = true).contains("another repository"));
    assert!(with(|it| it.base = "old".to_owned()).contains("no queue lands on old"));
    assert!(with(|it| it.repository = "owner/other".to_owned()).contains("owner/other"));
    for odd in ["--upload-pack=touch x", "-x", "a..b", "refs/heads/a", "a b", ""] {
        let mut it = change();
        it.branch = odd.to_owned();
        assert!(ignored(after(&rules(), &it, label())).contains("no name of a branch"), "{odd}");
    }
    // A branch of a fork that is closed takes nobody's place away.
    let mut fork = change();
    fork.foreign = true;
    assert!(ignored(after(&rules(), &fork, vec![Happened::Closed])).contains("another"));
}

type Set = fn(&mut Change);

#[test]
fn whoever_asked_in_vain_is_told_and_nobody_else() {
    let head = Commit::new(&"a".repeat(40)).unwrap();
    let label = || vec![Happened::Labeled("queue".to_owned())];
    let with = |set: Set, happened: Vec<Happened>| {
        let mut it = Change { head: Some(head.clone()), ..change() };
        set(&mut it);
        after(&rules(), &it, happened)
    };
    let sets: [(Set, bool); 3] = [
        (|it| it.draft = true, true),
        (|it| it.foreign = true, false),
        (|it| it.branch = "-x".to_owned(), false),
    ];
    for (set, waits) in sets {
        let Decision::Turned(turned) = with(set, label()) else { panic!("nobody is told") };
        assert_eq!((turned.commit, turned.waits), (head.clone(), waits));
    }
    let draft = Change { head: Some(head.clone()), draft: true, ..change() };
    let queue = said("/kiln queue");
    assert!(matches!(decide_found(&rules(), &queue, &draft), Decision::Turned(_)));
    let asks = Rules { roles: true, ..rules() };
    let stranger = Said { belongs: None, ..queue };
    assert!(ignored(decide_found(&asks, &stranger, &draft)).contains("draft"), "who is it?");
    // Many close changes that were never meant for a queue.
    let closed = with(|it| it.foreign = true, vec![Happened::Closed]);
    assert!(ignored(closed).contains("no queue"));
    let mut named = rules();
    named.people = vec!["bob".to_owned()];
    let draft = Change { head: Some(head), draft: true, ..change() };
    assert!(ignored(after(&named, &draft, label())).contains("may not"), "not even that");
}

#[test]
fn where_the_forge_can_be_asked_only_who_may_push_has_anything_queued() {
    let asks = Rules { roles: true, ..rules() };
    let checks = |decision: Decision| match decision {
        Decision::Check { by, orders, anyway } => (by.name, orders.len(), anyway.len()),
        other => panic!("{other:?}"),
    };
    let alice = || "alice".to_owned();
    let label = vec![Happened::Labeled("queue".to_owned())];
    assert_eq!(checks(after(&asks, &change(), label.clone())), (alice(), 1, 0));
    assert_eq!(after(&asks, &change(), vec![Happened::Closed]), remove(), "by whomever");
    let moved = Change { base: "next".to_owned(), ..change() };
    let retargeted = vec![Happened::Retargeted("main".to_owned())];
    assert_eq!(checks(after(&asks, &moved, retargeted)), (alice(), 1, 1));
    let found = |it: &Said| decide_found(&asks, it, &change());
    assert_eq!(checks(found(&said("/kiln queue"))), (alice(), 1, 0));
    assert_eq!(found(&said("/kiln remove")), remove());
    // GitLab does not say who belongs.
    let unknown = |text: &str| Said { belongs: None, ..said(text) };
    assert_eq!(checks(found(&unknown("/kiln queue"))), (alice(), 1, 0));
    assert_eq!(checks(found(&unknown("/kiln remove"))), (alice(), 1, 0));
    assert_eq!(found(&Said { by_author: true, ..unknown("/kiln remove") }), remove());
    assert!(
        ignored(decide_found(&rules(), &unknown("/kiln queue"), &change())).contains("may not")
    );
    let stranger = Said { belongs: Some(false), ..said("/kiln queue") };
    assert_eq!(checks(found(&stranger)), (alice(), 1, 0), "members may be private");
    let named = Rules { people: vec![alice()], ..asks.clone() };
    assert_eq!(after(&named, &change(), label), add(2), "a list says it all");
}

#[test]
fn another_target_is_another_queue() {
    let mut it = change();
    it.base = "next".to_owned();
    let request = Request::Add { branch: branch(), priority: 2 };
    let both = vec![order("app", Request::Remove { branch: branch() }), order("app-next", request)];
    let moved = vec![Happened::Retargeted("main".to_owned())];
    assert_eq!(after(&rules(), &it, moved), Decision::Ask(both));
}

#[test]
fn comments_count_of_those_who_belong_or_are_named() {
    let mut rules = rules();
    let look_up = |rules: &Rules, it: &Said| {
        let event = Event::Said { said: it.clone(), at: None };
        decide(rules, event)
    };
    let found = |rules: &Rules, it: &Said| decide_found(rules, it, &change());
    let queue = said("/kiln queue");
    assert_eq!(look_up(&rules, &queue), Decision::LookUp(queue.clone()));
    assert_eq!(found(&rules, &queue), add(2));
    assert_eq!(found(&rules, &said("/kiln priority 8")), add(8));
    assert_eq!(found(&rules, &said("/kiln remove")), remove());
    let stranger = Said { belongs: Some(false), ..queue.clone() };
    assert_eq!(ignored(look_up(&rules, &stranger)), "alice may not ask for that here");
    let author = Said { belongs: Some(false), by_author: true, ..said("/kiln remove") };
    assert_eq!(found(&rules, &author), remove());
    let author = Said { belongs: Some(false), by_author: true, ..queue.clone() };
    assert!(ignored(look_up(&rules, &author)).contains("may not"));
    rules.people = vec!["Bob".to_owned()];
    assert!(ignored(look_up(&rules, &queue)).contains("may not"), "belonging is not enough");
    let bob = Said { by: person("bob"), belongs: Some(false), ..queue.clone() };
    assert!(matches!(look_up(&rules, &bob), Decision::LookUp(_)));
    let label = vec![Happened::Labeled("queue".to_owned())];
    assert!(ignored(after(&rules, &change(), label)).contains("may not"));
    assert_eq!(ignored(look_up(&rules, &said("nice"))), "the comment is no command");
    assert!(ignored(look_up(&rules, &said("/kiln land"))).contains("/kiln remove"));
    let other = Change { number: 8, ..change() };
    assert!(matches!(decide_found(&rules, &bob, &other), Decision::Ignored(_)));
}

proptest! {
    /// Whatever a change is called: what is asked for is a name that git takes as a name, of a queue that is bound to
    /// its base, and never of a draft, a closed one or a fork.
    #[test]
    fn only_what_may_land_is_queued(
        branch in "[-a-z./@~ ]{0,12}",
        base in prop_oneof!["main", "next", "[a-z]{1,4}"],
        flags in any::<[bool; 3]>(),
        labeled in any::<bool>(),
    ) {
        let [foreign, open, draft] = flags;
        let labels = if labeled { vec!["queue".to_owned()] } else { Vec::new() };
        let it = Change { branch: branch.clone(), base: base.clone(), foreign, open, draft, labels, ..change() };
        let happened = vec![Happened::Relabeled, Happened::Offered, Happened::Closed];
        let Decision::Ask(orders) = after(&rules(), &it, happened) else { return Ok(()) };
        prop_assert!(!orders.is_empty() && !foreign);
        for order in orders {
            let expected = if base == "main" { "app" } else { "app-next" };
            prop_assert_eq!(order.queue.as_str(), expected);
            match order.request {
                Request::Add { branch: asked, priority } => {
                    prop_assert!(open && !draft && labeled && priority == 2);
                    prop_assert_eq!(asked.as_str(), &branch);
                }
                Request::Remove { branch: asked } => prop_assert_eq!(asked.as_str(), &branch),
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }
}
