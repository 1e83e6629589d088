//! `examples/tests/run.sh` runs in its short form and has to report every one of its findings as good.

#![allow(clippy::panic)]

use crate::support;

use std::process::{Command, Stdio};

#[test]
fn the_example_of_failing_tests_shows_what_it_says() {
    let Some(bazel) = support::client("KILN_BAZEL") else { return };
    let output = Command::new(support::root().join("examples/tests/run.sh"))
        .env("KILN", env!("CARGO_BIN_EXE_kiln"))
        .env("BAZEL", bazel)
        .env("CASES", "12")
        .env("WAIT", "15s")
        // The script may find less speed-up than it usually asks for, because other tests use the machine at the same
        // time.
        .env("FASTER", "120")
        .env("KILN_WORKERS_MEMORY", "1GiB")
        .stdin(Stdio::null())
        .output()
        .expect("the script runs");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{text}");
    assert_eq!(text.matches("\nok: ").count(), 6, "{text}");
    println!("{text}");
}
