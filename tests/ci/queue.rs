//! `kiln queue`, by its example: a real repository with branches of all kinds, and only the good ones land.

use std::path::Path;
use std::process::Command;

#[test]
fn the_example_lands_exactly_the_good_changes() {
    let directory = tempfile::tempdir().expect("a directory");
    // A name that shells would take apart.
    let place = directory.path().join("a queue");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/queue/run.sh");
    let mut command = Command::new("sh");
    command.arg(script).arg(&place).env("KILN", env!("CARGO_BIN_EXE_kiln"));
    let output = command.output().expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("26 good changes"), "{said}");
    let kiln = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command.arg("queue").args(arguments).arg("--state").arg(place.join("queue"));
        let output = command.output().expect("it runs");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    let (code, shown) = kiln(&["show", "--branch", "change-4"]);
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("rejected: //features/change-4 failed"), "{shown}");
    let (code, shown) = kiln(&["explain", "--branch", "change-9", "--json"]);
    assert!(code == Some(0) && shown.contains("landed"), "{shown}");
    let (code, shown) = kiln(&["show", "--branch", "no-such-branch"]);
    assert_eq!(code, Some(1), "{shown}");
    let (code, shown) = kiln(&["add", "--branch", "--upload-pack=x"]);
    assert_eq!(code, Some(2), "{shown}");
}
