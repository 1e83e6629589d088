//! Which settings and files a server refuses at the start, and in which words.

use std::path::Path;
use std::process::Command;

use super::{kiln, said};
use crate::support::server::program;

#[test]
fn what_could_serve_nothing_is_refused_by_every_command_that_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    make_pipe(dir.path());
    for (key, value, expected) in [
        ("server.base_url", "\"build.example\"", "https://build.example"),
        ("server.listen", "\"8980\"", "a host and a port"),
        ("storage.max_size", "10", "16MiB or more"),
        ("storage.data_dir", "\"~/kiln\"", "~ is for shells"),
        ("workers.count", "5000", "from 0 to 4096"),
        ("workers.disk", "\"1B\"", "1MiB or more"),
        ("workers.properties", "[\"kiln-network=true\"]", "this worker grants no network"),
        ("workers.properties", "[\"kiln-memory=lots\"]", "give bytes"),
        ("hermeticity.rate", "7", "from 0 (none) to 1 (all)"),
        ("log.filter", "\"inof\"", "levels"),
        ("scheduler.max_timeout", "\"1m\"", "scheduler.default_timeout = 1h"),
        ("tls.cert", "\"missing.pem\"", "tls.cert and tls.key belong together"),
        ("auth.access_files", "[\"missing.toml\"]", "missing.toml"),
        ("auth.access_files", "[\"/dev/zero\"]", "it is a device"),
        ("images.ca", "\"pipe\"", "it is a pipe"),
        ("images.auth_file", "\"pipe\"", "it is a pipe"),
        ("redis.password_file", "\"pipe\"", "it is a pipe"),
        ("fetch.headers", "[\"Host\"]", "belongs to the connection"),
        ("fetch.allow", "[\"https://*\"]", "https:// alone stands for the whole internet"),
        ("storage.min_lease", "\"14h\"", "is more than storage.lease = 13h"),
        (
            "storage.max_blob_size",
            "\"2GB\"\nmax_size = \"1GB\"",
            "more than storage.max_size = 1GB",
        ),
        ("server.base_url", "\"https://me:secret@build.example\"", "without user and password"),
        ("images.ca", "\"missing.pem\"", "(from k.toml): expected authorities in PEM: cannot read"),
        ("images.ca", "\"k.toml\"", "holds no certificate"),
        ("images.auth_file", "\"missing.json\"", "expected a docker config.json: cannot read"),
        ("images.auth_file", "\"k.toml\"", "is not a docker config.json: line 1"),
        ("images.insecure", "[\"http://registry.example\"]", "expected HOST or HOST:PORT"),
        ("images.insecure", "[\"registry.example/team\"]", "expected HOST or HOST:PORT"),
        ("s3.ca", "\"missing.pem\"", "expected authorities in PEM: cannot read"),
        ("s3.endpoint", "\"store.example:9000\"", "the http:// or https:// address of a store"),
        ("redis.ca", "\"missing.pem\"", "expected authorities in PEM: cannot read"),
        ("redis.password_file", "\"missing\"", "a file that can be read: No such file"),
        ("telemetry.otlp_ca", "\"missing.pem\"", "expected authorities in PEM: cannot read"),
        ("server.hosts", "[\"https://build.example\"]", "without scheme, port and path"),
    ] {
        let (section, name) = key.split_once('.').unwrap();
        std::fs::write(dir.path().join("k.toml"), format!("[{section}]\n{name} = {value}"))
            .unwrap();
        let check = said(kiln(dir.path(), &["config", "check", "--config", "k.toml"]));
        assert_eq!(check.0, 2, "{key}: {}", check.1);
        let said = check.1.replace(&format!("{}/", dir.path().display()), "");
        assert!(said.contains(expected), "{key}: {said}");
        let serve = kiln(dir.path(), &["serve", "--config", "k.toml", "--listen", "127.0.0.1:0"]);
        if key != "server.listen" {
            let (code, text) = program(serve).unwrap_or_else(|| panic!("{key} = {value} serves"));
            assert_eq!(code, 2, "{key}: {text}");
            let text = text.replace(&format!("{}/", dir.path().display()), "");
            assert!(text.contains(expected), "{key}: {text}");
        }
    }
    std::fs::write(dir.path().join("k.toml"), "[storage]\nlease = \"2h\"").unwrap();
    let good = kiln(dir.path(), &["config", "check", "--config", "k.toml"]).output().unwrap();
    assert!(good.status.success(), "{good:?}");
    assert!(std::fs::read_dir(dir.path()).unwrap().count() == 2, "nothing was made");
}

fn make_pipe(place: &Path) {
    let made = Command::new("mkfifo").arg(place.join("pipe")).status();
    assert!(made.unwrap().success());
}

/// Without a check Kiln would wait forever for a pipe that nobody writes into, and read a device until the memory is
/// full.
#[test]
fn files_that_never_end_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    make_pipe(dir.path());
    for words in [
        &["config", "check", "--config", "FILE"][..],
        &["serve", "--config", "FILE"],
        &["worker", "--config", "FILE"],
        &["--token-file", "FILE", "status"],
        &["--tls-ca", "FILE", "--server", "https://127.0.0.1:1", "status"],
        &["token", "hash", "FILE"],
    ] {
        for (file, expected) in [("pipe", "it is a pipe"), ("/dev/zero", "it is a device")] {
            let words: Vec<_> =
                words.iter().map(|word| if *word == "FILE" { file } else { word }).collect();
            let (code, text) = said(kiln(dir.path(), &words));
            assert!(code != 0 && text.contains(expected), "{words:?}: {code}: {text}");
        }
    }
}

#[test]
fn flags_say_what_they_want_and_help_shows_those_of_the_command() {
    let dir = tempfile::tempdir().unwrap();
    let of = |words: &[&str]| said(kiln(dir.path(), words));
    for (words, expected) in [
        (vec!["serve", "--workers", "abc"], "(from --workers): expected a whole number"),
        (vec!["worker", "--slots", "1.5"], "(from --slots): expected a whole number"),
        (vec!["serve", "--listen", "::1:80"], "[::1]:8980"),
        (vec!["serve", "--server", "http://h:1"], "--server is for commands that ask a server"),
        (vec!["--token-file", "x", "config", "default"], "--token-file is for commands"),
    ] {
        let (code, text) = of(&words);
        assert_eq!(code, 2, "{words:?}: {text}");
        assert!(text.contains(expected), "{words:?}: {text}");
    }
    let help = |words: &[&str]| {
        let output = kiln(dir.path(), words).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    for local in [&["serve", "--help"][..], &["token", "new", "--help"], &["config", "--help"]] {
        let text = help(local);
        assert!(!text.contains("--token-file") && !text.contains("[env: KILN_SERVER="), "{text}");
    }
    for client in [&["--help"][..], &["status", "--help"], &["build", "list", "--help"]] {
        assert!(help(client).contains("--token-file"), "{client:?}");
    }
}

#[test]
fn variables_that_others_set_stop_no_start_and_misspelled_ones_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = kiln(dir.path(), &["config", "check"]);
    for (variable, value) in [
        ("KILN_REDIS_SERVICE_HOST", "10.0.0.1"),
        ("KILN_WORKER_PORT", "tcp://10.0.0.1:80"),
        ("KILN_SERVER_PORT_8980_TCP", "tcp://10.0.0.1:8980"),
        ("KILN_LISTEN", "0.0.0.0:80"),
        ("KILN_WORKRS_COUNT", "4"),
    ] {
        command.env(variable, value);
    }
    let (code, text) = said(command);
    assert_eq!(code, 0, "{text}");
    assert!(!text.contains("_SERVICE_") && !text.contains("_PORT"), "{text}");
    for (variable, meant) in
        [("KILN_LISTEN", "KILN_SERVER_LISTEN"), ("KILN_WORKRS_COUNT", "KILN_WORKERS_COUNT")]
    {
        let line = text.lines().find(|line| line.contains(variable)).unwrap_or_default();
        assert!(line.starts_with("warning: ") && line.contains(meant), "{text}");
    }
}
