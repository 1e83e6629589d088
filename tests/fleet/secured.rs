//! Redis and S3 speak only TLS, with authorities that the system does not know.

use crate::rig::{Fleet, Shared, count, metric};
use crate::support::bazel::Bazel;
use crate::support::client;
use crate::support::server::{get_json, program};

#[test]
fn a_fleet_builds_on_a_redis_and_an_s3_with_tls_and_a_password_from_a_file() {
    let (Some(binary), Some(shared)) = (client("KILN_BAZEL"), Shared::start_secured()) else {
        return;
    };
    assert!(shared.redis_url.starts_with("rediss://") && shared.endpoint.starts_with("https://"));
    let fleet = Fleet::over(shared);
    let bazel = Bazel::new(binary, "tests/workspace");
    let build = ["build", "//cpp:all", "//links/...", "//paths/..."];
    let first = bazel.remote(&fleet.balancer.address, &build).expect_success();
    assert!(first.processes("remote") > 5, "{}", first.text);
    bazel.clean();
    let again = bazel.remote(&fleet.balancer.address, &build).expect_success();
    assert_eq!(again.processes("remote"), 0, "{}", again.text);
    for server in &fleet.frontends {
        assert_eq!(count(&get_json(&server.address, "/api/v1/status"), "/workers"), 2);
        assert!(metric(&server.address, "kiln_s3_requests_total", &[("method", "PUT")]) > 0.0);
    }
}

/// Starts a server that lacks one of the settings. Returns its exit code and what it printed.
fn without(shared: &mut Shared, setting: &str) -> (i32, String) {
    let all = shared.settings.clone();
    shared.settings.retain(|(name, _)| *name != setting);
    let mut command = shared.command("one", &[]);
    command.env("KILN_REDIS_WAIT", "0s").env("KILN_S3_TIMEOUT", "1s");
    shared.settings = all;
    program(command).expect("it does not become ready")
}

#[test]
fn what_is_lacking_is_named() {
    let Some(mut shared) = Shared::start_secured() else { return };
    for (setting, words) in [
        ("KILN_REDIS_PASSWORD_FILE", ["redis.password_file", "KILN_REDIS_URL"]),
        ("KILN_REDIS_CA", ["Redis", "set redis.ca"]),
        ("KILN_S3_CA", ["kiln-test", "set s3.ca (or AWS_CA_BUNDLE)"]),
    ] {
        let (code, text) = without(&mut shared, setting);
        assert_eq!(code, 5, "{text}");
        for word in words {
            assert!(text.contains(word), "{word:?} is not said: {text}");
        }
        for doubled in ["storage: storage", "invalid request", "access is denied"] {
            assert!(!text.contains(doubled), "{text}");
        }
    }
    let ca = shared.weed.certificates().unwrap().ca();
    shared.settings.retain(|(name, _)| *name != "KILN_S3_CA");
    shared.settings.push(("AWS_CA_BUNDLE", ca));
    assert!(shared.frontend("bundled").terminate().success(), "the variable is read");
}
