//! Real Bazel logs in with static tokens.

use crate::auth::roles::guarded_plainly;
use crate::support::bazel::Bazel;
use crate::support::client;

/// The server has no TLS here, because Debian's Bazel 4 has none for gRPC. Bazel 2 is left out, because it sends no
/// header when it asks for capabilities.
#[test]
fn bazel_builds_with_a_laptop_s_token_and_poisons_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let Some(binary) = client("KILN_BAZEL") else { return };
    let server = guarded_plainly(dir.path());
    let bazel = Bazel::new(binary, "examples/bazel");
    let build = |token: &str| {
        let header = format!("--remote_header=authorization=Bearer {token}");
        let main = "--remote_instance_name=main";
        bazel.remote(&server.address, &["build", header.as_str(), main, "//text/..."])
    };
    let first = build("tok-laptop").expect_success();
    assert!(first.processes("remote") > 5, "{}", first.text);
    bazel.clean();
    let second = build("tok-laptop").expect_success();
    assert_eq!(second.processes("remote"), 0, "{}", second.text);

    bazel.clean();
    let reader = build("tok-reader");
    assert_ne!(reader.code, 0);
    assert!(reader.text.contains("not authorized to use remote execution"), "{}", reader.text);
    let nobody = build("tok-nobody");
    assert_ne!(nobody.code, 0);
    assert!(nobody.text.contains("the token is not known"), "{}", nobody.text);
}

/// Bazel's HTTP cache sends the token as the password: CI may fill the cache, and laptops may only read it.
#[test]
fn bazel_s_http_cache_takes_a_token_as_the_password() {
    let Some(binary) = client("KILN_BAZEL") else { return };
    let dir = tempfile::tempdir().unwrap();
    let server = guarded_plainly(dir.path());
    let bazel = Bazel::new(binary, "examples/bazel");
    let build = |token: &str, options: &[&str]| {
        let cache = format!("--remote_cache=http://me:{token}@{}/main", server.address);
        let mut all = vec!["build", cache.as_str()];
        all.extend(options);
        all.push("//text/...");
        bazel.clean();
        bazel.local(&all)
    };
    let laptop = build("tok-laptop", &["--remote_upload_local_results=true"]).expect_success();
    assert!(laptop.text.contains("403"), "writing is refused: {}", laptop.text);
    let ci = build("tok-ci", &["--remote_upload_local_results=true"]).expect_success();
    assert_eq!(ci.processes("remote cache hit"), 0, "the laptop stored nothing: {}", ci.text);
    let again = build("tok-laptop", &["--noremote_upload_local_results"]).expect_success();
    assert!(again.processes("remote cache hit") > 5, "{}", again.text);
}
