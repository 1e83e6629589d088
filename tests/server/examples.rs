//! Every flag and setting in the example of a fleet is one that the program accepts.

#![allow(clippy::panic)]

use std::path::PathBuf;
use std::process::Command;

fn example(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("examples/fleet").join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(example(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn kiln(arguments: &[&str]) -> (bool, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_kiln")).args(arguments).output().expect("it runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn the_configuration_is_accepted() {
    let file = example("kubernetes/kiln.toml");
    let (ok, text) = kiln(&["config", "show", "--config", file.to_str().expect("UTF-8")]);
    assert!(ok, "{text}");
    assert!(text.contains("s3://my-bucket/kiln"), "{text}");
}

/// The example's files list flags as arguments of the form `--name=value`.
#[test]
fn commands_have_the_flags_that_containers_give_them() {
    let helps = ["serve", "worker", "health"].map(|command| kiln(&[command, "--help"]).1);
    let mut flags = 0;
    for file in ["compose.yaml", "kubernetes/worker.yaml", "kubernetes/frontend.yaml"] {
        let text = read(file);
        let words = text.split(|c: char| c.is_whitespace() || "\"[],".contains(c));
        for flag in words.filter(|word| word.starts_with("--") && *word != "--" && *word != "---") {
            let name = flag.split('=').next().unwrap_or(flag);
            // These flags belong to `docker compose` and Bazel, which the files mention in comments.
            if ["--build", "--scale", "--remote_executor", "--tls_certificate", "--remote_header"]
                .contains(&name)
            {
                continue;
            }
            assert!(helps.iter().any(|help| help.contains(name)), "{file}: {flag}");
            flags += 1;
        }
    }
    assert!(flags > 15, "{flags}");
}

#[test]
fn variables_name_keys_of_the_configuration() {
    let (_, keys) = kiln(&["config", "default"]);
    let mut section = String::new();
    let mut known = Vec::new();
    for line in keys.lines() {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_uppercase();
        } else if let Some((key, _)) = line.split_once(" = ") {
            known.push(format!("KILN_{section}_{}", key.to_uppercase()));
        }
    }
    let mut seen = 0;
    for file in ["compose.yaml", "kubernetes/worker.yaml"] {
        let text = read(file);
        for word in text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            if word.starts_with("KILN_") {
                assert!(known.iter().any(|key| key == word), "{file}: {word}");
                seen += 1;
            }
        }
    }
    assert!(seen >= 5, "{seen}");
}

#[test]
fn the_filter_for_workers_lets_the_sandbox_be_made() {
    let filter: serde_json::Value =
        serde_json::from_str(&read("seccomp-worker.json")).expect("JSON");
    let denied = filter.pointer("/syscalls/0/names").and_then(|names| names.as_array());
    let denied = denied.expect("a list of names");
    assert!(denied.iter().any(|name| name == "kexec_load"));
    for needed in [
        "clone",
        "clone3",
        "unshare",
        "setns",
        "mount",
        "umount2",
        "pivot_root",
        "open_tree",
        "move_mount",
        "mount_setattr",
        "sethostname",
        "seccomp",
        "prctl",
        "pidfd_open",
        "chroot",
    ] {
        assert!(!denied.iter().any(|name| name == needed), "{needed}");
    }
}

/// Returns the seconds of the last duration behind `name`, which is written as `90s`, `15m` or `90`.
fn seconds(file: &str, name: &str) -> u64 {
    let text = read(file);
    let (_, rest) = text.rsplit_once(name).unwrap_or_else(|| panic!("{name} is not in {file}"));
    let value = rest.trim_start_matches(|c: char| !c.is_ascii_digit());
    let end = value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len());
    let number: u64 = value[..end].parse().unwrap_or_else(|_| panic!("{file}: {name}: {value}"));
    if value[end..].starts_with('m') { 60 * number } else { number }
}

/// A worker that is killed while it drains gives nothing back, so it needs longer than its own drain.
#[test]
fn what_drains_is_given_the_time_for_it() {
    for (file, drain, grace) in [
        ("compose.yaml", "KILN_WORKERS_DRAIN:", "stop_grace_period:"),
        ("kubernetes/worker.yaml", "name: KILN_WORKERS_DRAIN", "terminationGracePeriodSeconds:"),
    ] {
        let (drain, grace) = (seconds(file, drain), seconds(file, grace));
        assert!(drain >= 600 && grace >= drain + 20, "{file}: {drain} s of {grace} s");
    }
}
