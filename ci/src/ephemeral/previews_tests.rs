//! Environments come, stay for a while and go, whatever becomes of the servers that look after them.

use std::path::Path;
use std::time::Duration;

use super::figures::PreviewCounts;
use super::kinds::How;
use super::kubernetes::Kubernetes;
use super::machine::Phase;
use super::netns::Netns;
use super::previews::{Ask, Kind, PreviewError};
use super::testing::{HOUR, World, ask, key, silence, stage};
use super::turns;
use crate::pipelines::{Outcome, PreviewAct, TaskKey};
use crate::stages::testing::TestClock;
use crate::storage::{Expect, Records, Write};

const ADDRESS: &str = "echo token $TOKEN; echo; echo \"http://$KILN_PREVIEW.test\"";

#[tokio::test]
async fn what_differs_is_looked_at_for_a_few_at_a_time() {
    let world = World::new();
    let (server, ledger) = (world.server("one", world.kind(ADDRESS)), world.ledger());
    stage(&server, &ledger, PreviewAct::Up).await;
    let all = server.list().await.unwrap();
    let asked = || server.asked_parity(&all[0]);
    let (one, other, third) = tokio::join!(asked(), asked(), asked());
    assert!(matches!(third, Err(PreviewError::Refused(_))), "{third:?}");
    assert_eq!((one.unwrap().unwrap().len(), other.unwrap().unwrap().len()), (1, 1));
    asked().await.unwrap();
}

#[tokio::test]
async fn stages_bring_one_up_look_at_it_and_take_it_down() {
    let world = World::new();
    let (server, ledger) = (world.server("one", world.kind(ADDRESS)), world.ledger());
    let (outcome, log) = stage(&server, &ledger, PreviewAct::Up).await;
    let Outcome::Passed { told } = outcome else { panic!("{outcome:?}") };
    assert_eq!(world.there(), [told["preview"].clone()]);
    assert_eq!(told["address"], format!("http://{}.test", told["preview"]));
    assert!(log.contains("token ***\n"), "{log}");
    assert!(log.contains("version of web: 1 here, 2 there"), "{log}");
    // The same attempt finds what it brought up.
    assert!(matches!(stage(&server, &ledger, PreviewAct::Up).await.0, Outcome::Passed { .. }));
    assert!(matches!(stage(&server, &ledger, PreviewAct::Check).await.0, Outcome::Passed { .. }));
    assert!(matches!(stage(&server, &ledger, PreviewAct::Down).await.0, Outcome::Passed { .. }));
    assert!(world.there().is_empty());
    let (outcome, _) = stage(&server, &ledger, PreviewAct::Check).await;
    assert!(matches!(outcome, Outcome::Failed { reason } if reason.contains("no environment")));
}

#[tokio::test]
async fn what_a_server_left_that_ended_is_taken_down_by_another() {
    let world = World::new();
    // Clocks are days apart.
    let (behind, ahead) = (TestClock::default(), TestClock::default());
    world.clock.pass(24 * HOUR);
    ahead.pass(48 * HOUR);
    let dies = world.server("one", world.kind("sleep 600"));
    let lives = world.server_by(&behind, "two", world.kind(ADDRESS));
    let hurries = world.server_by(&ahead, "three", world.kind(ADDRESS));
    let first = key("r1", 1);
    let unlocked = dies.unlocked("web").await.unwrap();
    let asked = ask(&first);
    let nobody = |_: bool, _: &[u8]| {};
    let others_look = async {
        world.begun().await;
        for other in [&lives, &hurries] {
            other.sweep().await.unwrap();
            assert_eq!(world.there().len(), 1, "it is being brought up");
        }
    };
    tokio::select! {
        _ = dies.up(&asked, &unlocked, &nobody) => panic!("it sleeps"),
        () = others_look => {}
    }
    let again = lives.up(&asked, &unlocked, &nobody).await.unwrap_err();
    assert!(matches!(again, PreviewError::Elsewhere(_)), "{again}");
    silence().await;
    lives.sweep().await.unwrap();
    assert!(world.there().is_empty());
    assert_eq!(lives.list().await.unwrap()[0].phase, Phase::Gone);
    behind.pass(8 * 24 * HOUR);
    lives.sweep().await.unwrap();
    assert_eq!(world.memory.records(), 1, "whose environments these are");
}

#[tokio::test]
async fn whoever_lost_an_environment_stops_and_notes_nothing() {
    let world = World::new();
    let stops = world.server("one", world.kind("sleep 600"));
    let other = world.server("two", world.kind(ADDRESS));
    let first = key("r1", 1);
    let unlocked = stops.unlocked("web").await.unwrap();
    let asked = ask(&first);
    let nobody = |_: bool, _: &[u8]| {};
    let taken_over = async {
        world.begun().await;
        let name = other.list().await.unwrap().remove(0).name;
        // What says who works on it is lost, so that another one may.
        let (key, value) = (turns::key(&name), Some("damaged".into()));
        world.memory.write(vec![Write { key, expect: Expect::Anything, value }]).await.unwrap();
        other.sweep().await.unwrap();
        assert!(world.there().is_empty());
        silence().await;
    };
    let (stopped, ()) = tokio::join!(stops.up(&asked, &unlocked, &nobody), taken_over);
    assert!(matches!(stopped, Err(PreviewError::Elsewhere(_))), "{stopped:?}");
    assert_eq!(other.list().await.unwrap()[0].phase, Phase::Gone);
}

#[tokio::test]
async fn tasks_of_one_server_do_not_work_on_one_at_the_same_time() {
    let world = World::new();
    let server = world.server("one", world.kind("sleep 600"));
    let first = key("r1", 1);
    let unlocked = server.unlocked("web").await.unwrap();
    let asked = ask(&first);
    let nobody = |_: bool, _: &[u8]| {};
    let looks = async {
        world.begun().await;
        server.let_go("r1", None, "somebody wants it").await.unwrap();
        server.sweep().await.unwrap();
        assert_eq!(world.there().len(), 1, "it is taken down behind him who brings it up");
    };
    tokio::select! {
        _ = server.up(&asked, &unlocked, &nobody) => panic!("it sleeps"),
        () = looks => {}
    }
    server.sweep().await.unwrap();
    assert!(world.there().is_empty(), "nobody brings it up any more");
}

#[tokio::test]
async fn whoever_waits_for_another_server_to_be_done_with_one_may_be_told_not_to() {
    let world = World::new();
    let brings = world.server("one", world.kind("sleep 600"));
    let (waits, ledger) = (world.server("two", world.kind(ADDRESS)), world.ledger());
    let (first, down) = (key("r1", 1), PreviewAct::Down);
    let unlocked = brings.unlocked("web").await.unwrap();
    let asked = ask(&first);
    let nobody = |_: bool, _: &[u8]| {};
    let told_not_to = async {
        world.begun().await;
        let cancel = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            ledger.cancel(&TaskKey { stage: down as u32, ..first.clone() }).await.unwrap();
        };
        tokio::join!(stage(&waits, &ledger, down), cancel).0
    };
    let (outcome, _) = tokio::select! {
        _ = brings.up(&asked, &unlocked, &nobody) => panic!("it sleeps"),
        told = told_not_to => told,
    };
    assert_eq!(outcome, Outcome::Cancelled);
    silence().await;
    waits.sweep().await.unwrap();
    assert!(world.there().is_empty(), "it goes all the same");
}

#[tokio::test]
async fn time_and_number_are_bounded_and_what_fails_is_taken_down_at_once() {
    let world = World::new();
    let server = world.server("one", world.kind(ADDRESS));
    let unlocked = server.unlocked("web").await.unwrap();
    let nobody = |_: bool, _: &[u8]| {};
    let keys = [key("r1", 1), key("r2", 1), key("r3", 1)];
    for key in &keys[..2] {
        server.up(&ask(key), &unlocked, &nobody).await.unwrap();
    }
    let third = server.up(&ask(&keys[2]), &unlocked, &nobody).await.unwrap_err();
    assert!(third.to_string().contains("no more may be"), "{third}");
    let long = Ask { keep: 2 * HOUR, ..ask(&keys[2]) };
    let refused = server.up(&long, &unlocked, &nobody).await.unwrap_err();
    assert!(refused.to_string().contains("3600 s"), "{refused}");
    // From when it is up on it has an hour, and time to come up.
    world.clock.pass(HOUR + Duration::from_secs(60));
    server.sweep().await.unwrap();
    assert!(world.there().is_empty());
    let broken = world.server("one", world.kind("echo broken >&2; exit 7"));
    let failed = broken.up(&ask(&keys[2]), &unlocked, &nobody).await.unwrap_err();
    assert!(kiln_net::causes::chain(&failed).contains("7: broken"), "{failed:?}");
    broken.sweep().await.unwrap();
    assert!(world.there().is_empty());
}

#[tokio::test]
async fn what_does_not_go_is_tried_again_and_its_secrets_are_not_told() {
    let world = World::new();
    let (server, ledger) = (world.server("one", world.kind(ADDRESS)), world.ledger());
    stage(&server, &ledger, PreviewAct::Up).await;
    let hangs = world.dir.path().join("hangs");
    std::fs::write(&hangs, "").unwrap();
    let (outcome, _) = stage(&server, &ledger, PreviewAct::Down).await;
    let Outcome::Failed { reason } = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("tried again") && reason.contains("no: ***"), "{reason}");
    server.sweep().await.unwrap();
    assert!(world.told.0.lock().unwrap().is_empty(), "not before its time");
    for _ in 0..3 {
        world.clock.pass(Duration::from_secs(900));
        server.sweep().await.unwrap();
    }
    assert_eq!(*world.told.0.lock().unwrap(), [3]);
    server.sweep().await.unwrap();
    assert_eq!(world.figures.read(), PreviewCounts { going: 1, stuck: 1, ..Default::default() });
    std::fs::remove_file(&hangs).unwrap();
    world.clock.pass(Duration::from_secs(900));
    server.sweep().await.unwrap();
    assert!(world.there().is_empty());
}

#[tokio::test]
async fn what_is_left_over_is_found_by_its_name_and_others_stay() {
    let world = World::new();
    let server = world.server("one", world.kind(ADDRESS));
    let ours = format!("{}web-late", server.prefix().await.unwrap());
    let make = |name: &str| {
        std::fs::create_dir(Path::new(world.dir.path()).join("there").join(name)).unwrap();
    };
    make(&ours);
    make("kiln-00000000-web-other");
    // Another server of the same records has the same names.
    assert_eq!(
        world.server("two", world.kind(ADDRESS)).prefix().await.unwrap(),
        server.prefix().await.unwrap()
    );
    server.find_leftovers().await;
    server.sweep().await.unwrap();
    assert_eq!(world.there(), ["kiln-00000000-web-other"]);
    make(&ours);
    server.find_leftovers().await;
    server.sweep().await.unwrap();
    assert_eq!(world.there(), ["kiln-00000000-web-other"], "what comes up late goes as well");
}

/// A program that stands for kubectl and a cluster: a namespace is a folder, and what is applied to it is copied there.
fn kubectl(world: &World) -> String {
    let at = world.dir.path().join("kubectl");
    let there = world.dir.path().join("there");
    let script = format!(
        r#"#!/bin/sh
set -eu
cd '{}'
case "$*" in
  "apply --filename=-")
    mkdir -p "$(grep -o '"name":"kiln-[^"]*"' | head -n 1 | cut -d '"' -f 4)" ;;
  "apply --namespace=kiln-"*" --filename="*) cp "${{3#--filename=}}" "./${{2#--namespace=}}/" ;;
  "wait --namespace=kiln-"*" --for=condition=Available deployment --all --timeout="*)
    test -e "./${{2#--namespace=}}/web.yaml" ;;
  "delete namespace kiln-"*" --ignore-not-found=true --wait=true") rm -rf "./$3" ;;
  "get namespaces --selector=kiln.build/owner=kiln-"*" --output=name")
    for it in *; do test ! -d "$it" || echo "namespace/$it"; done ;;
  *) echo "what is $*?" >&2; exit 1 ;;
esac
"#,
        there.display()
    );
    std::fs::write(&at, script).unwrap();
    std::fs::set_permissions(&at, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    at.display().to_string()
}

#[tokio::test]
async fn a_namespace_of_kubernetes_comes_with_its_manifests_and_goes() {
    let world = World::new();
    let manifests = world.dir.path().join("web.yaml");
    std::fs::write(&manifests, "kind: Deployment\n").unwrap();
    let cluster = Kubernetes {
        kubectl: kubectl(&world),
        context: None,
        manifests,
        quota: vec![("pods".to_owned(), "20".to_owned())],
        address: "http://web.{name}.svc".to_owned(),
        ready_s: 5,
    };
    let kind = Kind { how: How::Kubernetes(cluster), describe: Vec::new(), ..world.kind("") };
    let (server, ledger) = (world.server("one", kind), world.ledger());
    let (outcome, log) = stage(&server, &ledger, PreviewAct::Up).await;
    let Outcome::Passed { told } = outcome else { panic!("{outcome:?}: {log}") };
    assert_eq!(world.there(), [told["preview"].clone()]);
    assert_eq!(told["address"], format!("http://web.{}.svc", told["preview"]));
    assert!(matches!(stage(&server, &ledger, PreviewAct::Check).await.0, Outcome::Passed { .. }));
    assert!(matches!(stage(&server, &ledger, PreviewAct::Down).await.0, Outcome::Passed { .. }));
    assert!(world.there().is_empty());
    // What came up late is found by what the cluster lists.
    let late = format!("{}web-late", server.prefix().await.unwrap());
    std::fs::create_dir(world.dir.path().join("there").join(late)).unwrap();
    server.find_leftovers().await;
    server.sweep().await.unwrap();
    assert!(world.there().is_empty());
}

/// Network namespaces need root and the program ip.
#[tokio::test]
async fn a_network_namespace_goes_with_all_that_runs_in_it() {
    let world = World::new();
    let words = |text: &str| vec!["sh".to_owned(), "-c".to_owned(), text.to_owned()];
    let netns = Netns {
        run: words("sleep 600 >/dev/null 2>&1 & exit 0"),
        check: words("ip link show lo"),
        address: "http://127.0.0.1:1/{name}".to_owned(),
    };
    let kind = Kind { how: How::Netns(netns), describe: Vec::new(), ..world.kind("") };
    let server = world.server(&format!("netns {:?}", world.dir.path()), kind);
    let unlocked = server.unlocked("web").await.unwrap();
    let nobody = |_: bool, _: &[u8]| {};
    let first = key("r1", 1);
    let up = match server.up(&ask(&first), &unlocked, &nobody).await {
        Ok(up) => up,
        Err(error) => {
            // Where it cannot be had the error says what is lacking, and nothing is left.
            let said = kiln_net::causes::chain(&error);
            let lacks = ["root", "iproute2", "ermitted", "ermission", "mount"];
            assert!(lacks.iter().any(|it| said.contains(it)), "{said}");
            return;
        }
    };
    assert_eq!(up.address.as_deref(), Some(format!("http://127.0.0.1:1/{}", up.name).as_str()));
    server.check(&up, &unlocked, &nobody).await.unwrap();
    let made = Path::new("/run/netns").join(&up.name);
    assert!(made.exists());
    assert_eq!(server.seen("web").await.unwrap(), Some(vec![up.name.clone()]));
    server.let_go("r1", None, "it is over").await.unwrap();
    let gone = server.take_down(&up.name).await.unwrap().unwrap();
    assert_eq!((gone.phase, made.exists()), (Phase::Gone, false), "{gone:?}");
}
