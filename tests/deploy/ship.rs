//! `examples/ship/run.sh` runs with few hosts and short pauses. It brings a good change from a push to all hosts and
//! takes a bad one back. Nothing of it is left when it ends or is interrupted.

#![allow(clippy::panic)]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support;

/// Makes the command that runs the script. Its path has a space, at which a careless script would split it, and its
/// files are below `directory`. Returns `None` if a client is missing.
fn script(directory: &Path) -> Option<Command> {
    let bazel = support::client("KILN_BAZEL")?;
    let nginx = support::client("KILN_NGINX")?;
    let prometheus = support::client("KILN_PROMTOOL")?.with_file_name("prometheus");
    let (root, made) = (directory.join("a root"), directory.join("made"));
    std::os::unix::fs::symlink(support::root(), &root).expect("a link");
    std::fs::create_dir(&made).expect("a directory");
    let mut command = Command::new(root.join("examples/ship/run.sh"));
    command
        .current_dir(directory)
        .env("KILN", env!("CARGO_BIN_EXE_kiln"))
        .env("BAZEL", bazel)
        .env("NGINX", nginx)
        .env("PROMETHEUS", prometheus)
        .env("TMPDIR", made)
        .env("HOSTS", "4")
        .env("BAKE", "8s")
        .env("KILN_WORKERS_MEMORY", "1GiB")
        .stdin(Stdio::null());
    Some(command)
}

/// Returns the files and the processes that the script has left.
fn left(directory: &Path) -> Vec<PathBuf> {
    let made = directory.join("made").canonicalize().expect("it is there");
    let below = |path: &Path| std::fs::read_link(path).is_ok_and(|it| it.starts_with(&made));
    let entries = |path: &Path| {
        let entries = std::fs::read_dir(path).expect("a directory").flatten();
        entries.map(|it| it.path()).collect::<Vec<_>>()
    };
    let mut left = entries(&made);
    left.extend(entries(Path::new("/proc")).into_iter().filter(|it| below(&it.join("cwd"))));
    left
}

#[test]
fn a_push_comes_to_all_hosts_and_a_bad_change_is_taken_back() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(mut script) = script(directory.path()) else { return };
    let output = script.output().expect("it runs");
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{text}");
    let (_, told) = text.split_once("What happened").unwrap_or_else(|| panic!("{text}"));
    let line = |what: &str, how: &str| {
        let found = told.lines().find(|it| it.contains(what) && it.contains(how));
        found.unwrap_or_else(|| panic!("{what}, {how}: {text}"))
    };
    for change in ["first landed", "apples landed", "visits landed"] {
        line(change, ";");
    }
    line("//:mail_test", "in quarantine");
    line("web/shop:1.1 in prod", "everywhere");
    let reverted = line("web/shop:1.2 in prod", "reverted after");
    assert!(reverted.contains("500 Something went wrong."), "{text}");
    let none: Vec<PathBuf> = Vec::new();
    assert_eq!(left(directory.path()), none, "{text}");
}

#[test]
fn an_interrupted_example_leaves_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let Some(mut script) = script(directory.path()) else { return };
    let mut child = script.stdout(Stdio::piped()).spawn().expect("it starts");
    let stdout = BufReader::new(child.stdout.take().expect("it is piped"));
    let mut lines = stdout.lines().map_while(Result::ok);
    // At this line all servers run, and the first change is being tested.
    assert!(lines.any(|it| it.contains("first is queued")), "it ended too soon");
    assert!(!left(directory.path()).is_empty());
    kill(Pid::from_raw(child.id() as i32), Signal::SIGTERM).expect("it runs");
    let rest: Vec<_> = lines.collect();
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(143), "{rest:?}");
    let none: Vec<PathBuf> = Vec::new();
    assert_eq!(left(directory.path()), none, "{rest:?}");
}
