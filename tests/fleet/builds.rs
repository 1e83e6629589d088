//! Builds through a fleet in which nothing fails.

use std::collections::BTreeSet;

use kiln_protos::reapi::RequestMetadata;

use crate::rig::{Fleet, Shared, await_status, count};
use crate::support::bazel::Bazel;
use crate::support::client;
use crate::support::reapi::{Client, Spec};
use crate::support::server::{Server, get_json, get_text};

const ID: &str = "8a0a8e2c-3f0f-4d0a-9d56-0f3c5ad1c0f1";

/// Returns how many requests of the build this frontend knows of.
fn requests_of_the_build(frontend: &Server) -> u64 {
    let builds = get_json(&frontend.address, "/api/v1/builds");
    let builds = builds["builds"].as_array().unwrap();
    let build = builds.iter().find(|build| build["invocation_id"] == ID);
    let of = |what: &str| build.map_or(0, |build| count(build, what));
    of("/executed") + of("/merged") + of("/cache_hits")
}

fn expect_whole(frontend: &Server, actions: u64) {
    await_status(&frontend.address, "the whole build", |_| {
        requests_of_the_build(frontend) >= actions
    });
    assert_eq!(requests_of_the_build(frontend), actions);
    let listed = format!("/api/v1/executions?limit=500&invocation={ID}");
    let listed = get_json(&frontend.address, &listed);
    let ids = listed["executions"].as_array().unwrap().iter().map(|one| one["id"].as_str());
    assert_eq!(ids.collect::<BTreeSet<_>>().len() as u64, actions);
    let page = get_text(&frontend.address, &format!("/builds/{ID}"));
    assert!(page.contains("CppCompile"), "{page}");
}

#[test]
fn a_build_is_run_by_the_fleet_and_whole_and_all_hits_at_any_frontend() {
    let (Some(binary), Some(mut fleet)) = (client("KILN_BAZEL"), Fleet::start()) else { return };
    let bazel = Bazel::new(binary, "tests/workspace");
    let id = format!("--invocation_id={ID}");
    let build = |address: &str, options: &[&str]| {
        let arguments = [&["build"], options, &["//cpp/...", "//links/...", "//paths/..."]];
        bazel.remote(address, &arguments.concat()).expect_success()
    };
    // The balancer spreads the build's requests over both frontends.
    let first = build(&fleet.balancer.address, &[&id]);
    let actions = first.processes("remote") as u64;
    assert!(actions > 5, "{}", first.text);
    for frontend in &fleet.frontends {
        expect_whole(frontend, actions);
        let builds = get_json(&frontend.address, "/api/v1/builds");
        assert_eq!(builds["builds"].as_array().unwrap().len(), 1, "{builds:#}");
    }
    for frontend in &fleet.frontends {
        bazel.clean();
        let again = build(&frontend.address, &[]);
        assert_eq!(again.processes("remote"), 0, "{}", again.text);
    }
    let stats = fleet.shared.redis.command(&["HGET", "{kiln:queue}:m", "c.retries"]);
    assert_ne!(stats, "1", "something had to be tried again");
    // The frontend that is killed has kept nothing of the build for itself.
    fleet.frontends.remove(0).kill();
    expect_whole(&fleet.frontends[0], actions);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_is_shown_at_every_frontend_with_what_it_prints() {
    let Some(shared) = Shared::start() else { return };
    let (one, two) = (shared.frontend("one"), shared.frontend("two"));
    // The worker sends the action's output to one frontend, and the client is connected to the other.
    let _worker = shared.worker("w", &one.url());
    let client = Client::connect(&two.url()).await;
    let action = client.prepare(&Spec::shell("echo begun; sleep 50", &[])).await;
    let running = tokio::spawn(async move {
        let metadata =
            RequestMetadata { tool_invocation_id: "the-build".into(), ..Default::default() };
        client.execute_with(action, &metadata).await
    });
    for frontend in [&one, &two] {
        await_status(&frontend.address, "the build on the list", |_| {
            count(&get_json(&frontend.address, "/api/v1/builds"), "/builds/0/open") == 1
        });
        await_status(&frontend.address, "its output", |_| {
            let build = get_json(&frontend.address, "/api/v1/builds/the-build");
            build["operations"][0]["output"] == "begun\n"
        });
        assert!(get_text(&frontend.address, "/builds/the-build").contains("begun"));
    }
    running.abort();
}
