//! Which signals end a server, and which do not.

use std::process::Command;

use super::{expect_action, kiln};
use crate::support::reapi::{Client, Spec};
use crate::support::server::{Server, metric};

/// Kiln raises the limit on the size of files that a shell may have set. A SIGHUP does not end a server, which has no
/// terminal.
#[tokio::test(flavor = "multi_thread")]
async fn limits_and_hangups_of_whoever_starts_a_server_do_not_end_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    let binary = env!("CARGO_BIN_EXE_kiln");
    let script = format!(
        "ulimit -S -f 64; exec '{binary}' serve --listen 127.0.0.1:0 --workers 1 --data-dir data"
    );
    command.args(["-c", &script]).current_dir(dir.path()).env("KILN_WORKERS_MEMORY", "1GiB");
    let server = Server::spawn(command, &dir.path().join("data"));
    let client = Client::connect(&server.url()).await;
    let digest = client.put(&vec![7; 2 << 20]).await;
    assert_eq!(digest.size_bytes, 2 << 20);
    let hangup = Command::new("kill").args(["-HUP", &server.id().to_string()]).status().unwrap();
    assert!(hangup.success());
    expect_action(&server.url()).await;
    assert_eq!(server.terminate().code(), Some(0));
}

/// The process that reads the server's stderr may have ended before the server does.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_nobody_listens_to_drains_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let serve = ["serve", "--listen", "127.0.0.1:0", "--workers", "1", "--data-dir", "data"];
    let mut command = kiln(dir.path(), &serve);
    let (reader, writer) = std::io::pipe().unwrap();
    command.stderr(writer);
    let server = Server::spawn_logged(command, &data);
    drop(reader);
    let client = Client::connect(&server.url()).await;
    let spec = Spec::shell("sleep 2; echo done > out", &["out"]);
    let running = tokio::spawn(async move { client.execute(&spec).await });
    while metric(&server.address, "kiln_operations_running", &[]) < 1.0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let ended = tokio::task::spawn_blocking(move || server.terminate());
    let response = running.await.unwrap().expect("an answer");
    assert_eq!(response.result.expect("a result").exit_code, 0);
    assert_eq!(ended.await.unwrap().code(), Some(0));
}

/// Starts the program that its arguments name, with some signals ignored and blocked as no shell leaves them.
const DEAF: &str = r"
import os, signal, sys
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGCHLD, signal.SIGINT])
os.execv(sys.argv[1], sys.argv[1:])
";

fn tell(server: &Server, signals: &[&str]) {
    let script = signals.iter().map(|signal| format!("kill -{signal} {}; ", server.id()));
    let done = Command::new("sh").args(["-c", &script.collect::<String>()]).status();
    assert!(done.unwrap().success());
}

/// The server learns by signals of its children's exit codes, of the end of its sandboxes, and that it shall end
/// itself. So it has to work with signals that its parent ignored or blocked.
#[tokio::test(flavor = "multi_thread")]
async fn signals_mean_the_same_whoever_starts_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", DEAF, env!("CARGO_BIN_EXE_kiln"), "serve", "--listen", "127.0.0.1:0"]);
    command.args(["--workers", "1", "--data-dir"]).arg(dir.path().join("data"));
    let log = dir.path().join("log");
    command.stderr(std::fs::File::create(&log).unwrap());
    let server = Server::spawn_logged(command, dir.path());
    tell(&server, &["USR1", "USR2", "ALRM", "PROF", "IO"]);
    expect_action(&server.url()).await;
    // Signals that come together are one wish to end, and not a second one that ends at once.
    tell(&server, &["TERM", "INT", "TERM"]);
    let status = server.ended();
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(status.success() && said.contains("draining"), "{status}: {said}");
    assert!(!said.contains("cannot end the sandbox process"), "{said}");
}
