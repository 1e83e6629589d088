//! `examples/release/way.sh` goes the whole way of two releases: built, released, verified by others, promoted after a soak
//! and two approvals, and rolled back.

use std::process::{Command, Stdio};

use crate::support;

#[test]
fn two_releases_go_the_whole_way_and_one_comes_back() {
    let Some(bazel) = support::client("KILN_BAZEL") else { return };
    let directory = tempfile::tempdir().expect("a directory");
    let made = directory.path().join("made");
    std::fs::create_dir(&made).expect("a directory");
    let kiln = std::path::Path::new(env!("CARGO_BIN_EXE_kiln"));
    let programs = kiln.parent().expect("a directory").as_os_str().to_owned();
    let mut path = programs;
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    let mut command = Command::new(support::root().join("examples/release/way.sh"));
    // Debian sid, from which cosign comes, is not always whole. The script goes on without it.
    if let Some(cosign) = std::env::var_os("KILN_COSIGN") {
        command.env("COSIGN", cosign);
    }
    let output = command
        .arg(kiln_test_servers::free_port().to_string())
        .env("PATH", path)
        .env("BAZEL", support::bazel::script(&bazel, directory.path()))
        .env("KILN_WORKERS_MEMORY", "1GiB")
        .env("TMPDIR", &made)
        .current_dir(&made)
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{text}");
    // Kiln's own verdict, and the one of the script that shares nothing with it.
    assert!(text.lines().filter(|it| *it == "verified").count() >= 2, "{text}");
    let has_cosign = !text.contains("cosign is not here");
    assert!(has_cosign || std::env::var_os("KILN_COSIGN").is_none(), "{text}");
    let shown = text.rsplit_once("kiln env show prod").map(|(_, shown)| shown).unwrap_or_default();
    let stands = shown.lines().find(|it| it.trim_start().starts_with("release "));
    assert!(stands.is_some_and(|it| it.ends_with("team/app:1.0")), "{text}");
    let left: Vec<_> = std::fs::read_dir(&made).expect("a directory").collect();
    assert!(left.is_empty(), "{left:?}");
}
