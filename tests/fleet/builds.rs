//! Builds through a fleet in which all is well.

use std::collections::BTreeSet;

use kiln_protos::reapi::RequestMetadata;

use crate::rig::{Fleet, Shared, await_status, count};
use crate::support::bazel::Bazel;
use crate::support::client;
use crate::support::reapi::{Client, Spec};
use crate::support::server::{Server, get_json, get_text};

#[test]
fn a_build_is_run_by_the_fleet_and_the_next_one_is_all_hits_at_any_frontend() {
    let (Some(binary), Some(fleet)) = (client("KILN_BAZEL"), Fleet::start()) else { return };
    let bazel = Bazel::new(binary, "tests/workspace");
    let build = ["build", "//cpp/...", "//links/...", "//paths/..."];
    let first = bazel.remote(&fleet.balancer.address, &build).expect_success();
    assert!(first.processes("remote") > 5, "{}", first.text);
    for frontend in &fleet.frontends {
        bazel.clean();
        let again = bazel.remote(&frontend.address, &build).expect_success();
        assert_eq!(again.processes("remote"), 0, "{}", again.text);
    }
    let stats = fleet.shared.redis.command(&["HGET", "{kiln:queue}:m", "c.retries"]);
    assert_ne!(stats, "1", "something had to be tried again");
    drop(fleet.workers);
}

/// Requests that the only build is known to have made.
fn requests_of_the_build(frontend: &Server) -> u64 {
    let builds = get_json(&frontend.address, "/api/v1/builds");
    assert!(builds["builds"].as_array().unwrap().len() <= 1, "{builds:#}");
    let of = |what: &str| count(&builds, &format!("/builds/0/{what}"));
    of("executed") + of("merged") + of("cache_hits")
}

#[test]
fn a_build_through_the_balancer_is_whole_on_the_pages_of_each_frontend() {
    let (Some(binary), Some(mut fleet)) = (client("KILN_BAZEL"), Fleet::start()) else { return };
    let bazel = Bazel::new(binary, "tests/workspace");
    let arguments = ["build", "//cpp/...", "//paths/..."];
    let build = bazel.remote(&fleet.balancer.address, &arguments).expect_success();
    let actions = build.processes("remote") as u64;
    assert!(actions > 5, "{}", build.text);
    let expect_whole = |frontend: &Server| {
        await_status(&frontend.address, "the whole build", |_| {
            requests_of_the_build(frontend) >= actions
        });
        assert_eq!(requests_of_the_build(frontend), actions);
        let builds = get_json(&frontend.address, "/api/v1/builds");
        let id = builds["builds"][0]["invocation_id"].as_str().unwrap();
        let listed = format!("/api/v1/executions?limit=500&invocation={id}");
        let listed = get_json(&frontend.address, &listed);
        let ids = listed["executions"].as_array().unwrap().iter().map(|one| one["id"].as_str());
        assert_eq!(ids.collect::<BTreeSet<_>>().len() as u64, actions);
        let page = get_text(&frontend.address, &format!("/builds/{id}"));
        assert!(page.contains("CppCompile"), "{page}");
    };
    fleet.frontends.iter().for_each(expect_whole);
    // Nothing of it was kept by the one that goes.
    fleet.frontends.remove(0).kill();
    fleet.frontends.iter().for_each(expect_whole);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_runs_is_shown_at_every_frontend_with_what_it_prints() {
    let Some(shared) = Shared::start() else { return };
    let (one, two) = (shared.frontend("one"), shared.frontend("two"));
    // Its output comes to the one frontend, its client to the other.
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
