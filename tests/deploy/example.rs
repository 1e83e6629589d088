//! `examples/rollout/rollout.sh`: releases come to hosts with agents behind a balancer, while users ask, and bad ones are taken
//! back by their canaries. The script itself says whether all went as it should.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::support;

/// Runs the script with these words. Returns what it printed, or `None` if a client is missing.
fn ran(directory: &Path, words: &[&str]) -> Option<String> {
    let bazel = support::client("KILN_BAZEL")?;
    let nginx = support::client("KILN_NGINX")?;
    let haproxy = support::client("KILN_HAPROXY")?;
    let prometheus = support::client("KILN_PROMTOOL")?.with_file_name("prometheus");
    let place = directory.join("place");
    let output = Command::new(support::root().join("examples/rollout/rollout.sh"))
        .args(words)
        .arg(&place)
        .current_dir(directory)
        .env("KILN", env!("CARGO_BIN_EXE_kiln"))
        .env("BAZEL", bazel)
        .env("NGINX", nginx)
        .env("HAPROXY", haproxy)
        .env("PROMETHEUS", prometheus)
        .env("KILN_WORKERS_MEMORY", "1GiB")
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{text}");
    Some(text)
}

#[test]
fn a_release_that_crashes_is_taken_back_by_its_canary() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(text) = ran(directory.path(), &["--agents", "4", "--only", "crash"]) else { return };
    assert!(text.contains("crash: exit code 1, expected 1"), "{text}");
}

#[test]
#[ignore = "takes half an hour on some eight idle cores: nextest run --test deploy --run-ignored only forty_hosts --no-capture"]
fn forty_hosts_get_the_good_release_and_no_bad_one() {
    for words in [&["--agents", "40"][..], &["--agents", "40", "--haproxy", "--flaky-metric"]] {
        let directory = tempfile::tempdir().expect("a directory");
        let Some(text) = ran(directory.path(), words) else { return };
        println!("{text}");
    }
}
