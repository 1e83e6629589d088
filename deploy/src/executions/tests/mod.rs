//! Events go in, records come out: over records and blobs in memory.

pub mod rig;

use std::sync::atomic::Ordering;
use std::time::Duration;

use kiln_protos::events::execution;

use self::rig::{DAY, Rig, action, content, executed, hit};
use super::{RecordArchive, record};
use crate::provenance::{
    Archive as _, Found, Limits, Listing, Origin, Root, RootFileSystem, Sandbox, walk,
};

#[tokio::test]
async fn a_hit_of_another_build_leads_to_the_execution() {
    let rig = Rig::start().await;
    let ran = executed("one", "//:a", &[("out/a", "A")]);
    rig.events.publish(ran.clone());
    rig.events.publish(hit(&ran, "two", "//:a"));
    rig.executions.flush().await;

    let store = &rig.executions.store;
    let [one, two] = [rig.invocation("one").await, rig.invocation("two").await];
    assert_eq!((one.ran, one.hits), (1, 0));
    assert_eq!((two.ran, two.hits), (0, 1));
    assert_eq!(one.of_target("//:a"), two.of_target("//:a"));
    let ids = store.makers("", &content("A")).await.unwrap();
    assert_eq!(ids, one.of_target("//:a"));
    let kept = store.get(ids[0]).await.unwrap().unwrap();
    let record = record(ids[0], &kept).unwrap();
    assert_eq!((&*record.invocation, &*record.target), ("one", "//:a"));
    let Origin::Ran(run) = record.origin else { panic!("{:?}", record.origin) };
    assert_eq!((&*run.worker, run.command), ("worker", content("command")));
    assert_eq!(run.sandbox.root, RootFileSystem::Inputs);
    assert!(Sandbox::ISOLATION.iter().all(|it| run.sandbox.enforced.contains(it)));
    // Another instance knows nothing of it.
    assert_eq!(store.makers("other", &content("A")).await.unwrap(), []);
}

#[tokio::test]
async fn who_is_given_a_result_whose_record_is_there_is_known_and_the_record_stays_as_it_is() {
    let rig = Rig::start().await;
    let ran = executed("one", "//:a", &[("out/a", "A")]);
    rig.events.publish(ran.clone());
    rig.executions.flush().await;
    let ids = rig.invocation("one").await.of_target("//:a");
    let before = rig.executions.store.get(ids[0]).await.unwrap();
    for build in ["two", "three"] {
        rig.events.publish(hit(&ran, build, "//:b"));
    }
    rig.executions.flush().await;
    for build in ["two", "three"] {
        let given = rig.invocation(build).await;
        assert_eq!((given.hits, given.of_target("//:b")), (1, ids.clone()));
    }
    assert_eq!(rig.executions.store.get(ids[0]).await.unwrap(), before);
    let figures = rig.executions.figures();
    assert_eq!((figures.recorded, figures.known), (1, 2));
}

/// The hit is heard of first: the answer was published before the event of the execution was.
#[tokio::test]
async fn what_ran_here_is_never_taken_for_written() {
    let rig = Rig::start().await;
    let ran = executed("one", "//:a", &[("out/a", "A")]);
    rig.events.publish(hit(&ran, "two", "//:a"));
    rig.executions.flush().await;
    let ids = rig.executions.store.makers("", &content("A")).await.unwrap();
    let kept = rig.executions.store.get(ids[0]).await.unwrap().unwrap();
    assert!(kept.written, "nobody is known to have run it");
    rig.events.publish(ran);
    rig.executions.flush().await;
    let kept = rig.executions.store.get(ids[0]).await.unwrap().unwrap();
    assert!(!kept.written);
    // The same holds in the other order, at a frontend that never heard of the execution.
    let other = rig.beside();
    other.events.publish(hit(&executed("one", "//:a", &[("out/a", "A")]), "three", "//:a"));
    other.executions.flush().await;
    let kept = rig.executions.store.get(ids[0]).await.unwrap().unwrap();
    assert!(!kept.written);
    assert_eq!(rig.invocation("three").await.hits, 1);
}

#[tokio::test]
async fn files_in_directories_are_found_and_walked_to_their_sources() {
    let rig = Rig::start().await;
    let tree = rig.tree(&[("x.txt", "X"), ("y.txt", "Y")]).await;
    let mut made = executed("one", "//:tree", &[]);
    rig::add_directory(&mut made, "out/tree", tree);
    rig.events.publish(made);
    let inputs = rig.directory(&[("x.txt", "X"), ("main.c", "source")]).await;
    let mut used = rig::later(executed("one", "//:app", &[("out/app", "APP")]), 60);
    used.input_root = Some(rig::wire(inputs));
    rig.events.publish(used);
    rig.executions.flush().await;

    let invocation = rig.invocation("one").await;
    let store = rig.executions.store.clone();
    let archive = RecordArchive::new(store, rig.blobs.clone(), &invocation);
    let walked = tokio::task::spawn_blocking(move || {
        let mut found = Vec::new();
        let roots = [Root { path: "out/app".to_owned(), digest: content("APP") }];
        walk(&archive, &roots, Limits::default(), &mut |it| {
            found.push(it);
            Ok(())
        })
        .unwrap();
        let read = archive.directories(&[inputs, content("no such"), inputs]).unwrap();
        let names = |it: Listing| it.files.into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        let read: Vec<_> = read.into_iter().map(|it| it.map(names)).collect();
        let all = || Some(vec!["x.txt".to_owned(), "main.c".to_owned()]);
        assert_eq!(read, [all(), None, all()]);
        found
    });
    let targets: Vec<_> = walked
        .await
        .unwrap()
        .iter()
        .map(|it| match it {
            Found::Action(record) => record.target.clone(),
            Found::Source { path, .. } => path.clone(),
            Found::Missing { path, .. } => format!("missing {path:?}"),
        })
        .collect();
    assert_eq!(targets, ["//:app", "//:tree", "main.c", "missing \"\""]);
}

#[tokio::test]
async fn what_nobody_uses_ages_and_what_is_used_stays() {
    let rig = Rig::start().await;
    let (old, used) =
        (executed("one", "//:old", &[("o", "OLD")]), executed("one", "//:used", &[("u", "USED")]));
    rig.events.publish(old);
    rig.events.publish(used.clone());
    rig.executions.flush().await;
    rig.now.fetch_add(20 * DAY, Ordering::Relaxed);
    rig.events.publish(hit(&used, "two", "//:used"));
    rig.executions.flush().await;
    // Now it is more than thirty days after the first build, and twelve after the second.
    rig.now.fetch_add(12 * DAY, Ordering::Relaxed);
    let (removed, more) = rig.sweep(30).await;
    assert_eq!((removed, more), (1, false));
    let store = &rig.executions.store;
    assert_eq!(store.makers("", &content("OLD")).await.unwrap(), []);
    assert_eq!(store.makers("", &content("USED")).await.unwrap().len(), 1);
    assert_eq!(rig.invocation("one").await.used.len(), 0);
    assert_eq!(rig.invocation("two").await.used.len(), 1);
    rig.now.fetch_add(30 * DAY, Ordering::Relaxed);
    rig.sweep(30).await;
    let left = rig.records.list("executions/", None, false, 100).await.unwrap();
    assert_eq!(left, [], "nothing stays for ever");
}

#[tokio::test]
async fn what_is_used_while_it_is_removed_stays() {
    let rig = Rig::start().await;
    let made = executed("one", "//:a", &[("a", "A")]);
    rig.events.publish(made.clone());
    rig.executions.flush().await;
    let store = &rig.executions.store;
    let [id] = store.makers("", &content("A")).await.unwrap()[..] else { panic!("one record") };
    rig.now.fetch_add(40 * DAY, Ordering::Relaxed);

    // A build is given it when it has just been found to be old.
    let today = super::clock::day(rig.now.load(Ordering::Relaxed));
    let touch = super::batch::put(super::keys::touched(id), today.to_string().into_bytes());
    *rig.faults.meanwhile.lock().unwrap() = Some(("executions/x/", vec![touch]));
    assert_eq!(rig.sweep(30).await, (0, false));
    assert!(store.get(id).await.unwrap().is_some());
    assert_eq!(store.makers("", &content("A")).await.unwrap(), [id]);

    // The record is removed just after the store has found it there.
    rig.now.fetch_add(40 * DAY, Ordering::Relaxed);
    let gone = [super::keys::record(id), super::keys::touched(id)].map(super::batch::delete);
    *rig.faults.meanwhile.lock().unwrap() = Some(("executions/age/", gone.to_vec()));
    rig.events.publish(hit(&made, "two", "//:a"));
    rig.executions.flush().await;
    assert!(rig.faults.meanwhile.lock().unwrap().is_none());
    assert!(store.get(id).await.unwrap().is_some());
    assert_eq!(store.makers("", &content("A")).await.unwrap(), [id]);
}

#[tokio::test]
async fn records_that_cannot_be_written_wait_and_losses_are_named() {
    let rig = Rig::start().await;
    rig.faults.refuse(true);
    let count = super::writer::MAX_PENDING as u64 + 5;
    // Slower than the buffer is filled, so that none is lost before it is taken in.
    for number in 0..count {
        let output = format!("out/{number}");
        rig.events.publish(executed("one", "//:a", &[(&output, &output)]));
        if number % 1_000 == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    rig.until(|it| it.dropped + it.lost_events >= 5 && it.failed_writes > 0).await;
    rig.faults.refuse(false);
    rig.executions.flush().await;
    let figures = rig.executions.figures();
    assert_eq!(figures.recorded + figures.dropped + figures.lost_events, count);
    let now = rig.now.load(Ordering::Relaxed);
    let losses = rig.executions.store.losses(0, now).await.unwrap();
    assert_eq!(
        losses.iter().map(|it| it.executions).sum::<u64>(),
        figures.dropped + figures.lost_events
    );
}

#[tokio::test]
async fn a_result_of_nobody_is_found_even_if_it_took_two_tries() {
    let rig = Rig::start().await;
    // The first write, of the record, succeeds. The next one, of the keys that lead to it, is refused.
    rig.faults.refuse_after(1);
    rig.events.publish(hit(&executed("one", "//:a", &[("out/a", "A")]), "two", "//:a"));
    rig.until(|it| it.failed_writes > 0).await;
    rig.faults.refuse(false);
    rig.executions.flush().await;
    let ids = rig.executions.store.makers("", &content("A")).await.unwrap();
    assert_eq!((ids.len(), rig.invocation("two").await.hits), (1, 1));
}

#[tokio::test]
async fn what_no_client_can_write_is_not_believed_of_clients() {
    let rig = Rig::start().await;
    // The forged execution claims that a sandbox kept it apart. The record of a result that a client wrote
    // must not repeat that.
    let forged = executed("one", "//:a", &[("out/a", "A")]);
    rig.events.publish(hit(&forged, "two", "//:a"));
    rig.executions.flush().await;
    let [id] = rig.invocation("two").await.of_target("//:a")[..] else { panic!("one record") };
    let kept = rig.executions.store.get(id).await.unwrap().unwrap();
    assert!(matches!(record(id, &kept).unwrap().origin, Origin::Wrote(_)));
}

#[tokio::test]
async fn requests_without_a_result_leave_nothing() {
    let rig = Rig::start().await;
    let mut failed = executed("one", "//:a", &[]);
    failed.action_result = Default::default();
    rig.events.publish(failed);
    let mut odd = executed("one", "//:a", &[]);
    odd.action = Some(Default::default());
    rig.events.publish(odd);
    let mut merged = executed("two", "//:a", &[("out", "A")]);
    merged.origin = execution::Origin::Merged.into();
    rig.events.publish(merged);
    rig.executions.flush().await;
    assert_eq!(rig.invocation("one").await.used.len(), 0);
    assert_eq!(rig.invocation("two").await.merged, 1);
    assert_eq!(rig.executions.figures().recorded, 1);
    assert_ne!(action("a"), action("b"));
}
