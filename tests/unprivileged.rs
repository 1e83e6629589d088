//! The whole system as an ordinary user: what the machine does not grant is named, the rest works.

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use support::reapi::{Client, Spec, output_text};
use support::server::{Server, program};

const NOBODY: &str = "65534";

/// `kiln serve` as nobody, whatever user runs the tests. The binary is copied to where nobody
/// can read it.
fn as_nobody(place: &Path, arguments: &[&str]) -> Command {
    let kiln = place.join("kiln");
    std::fs::copy(env!("CARGO_BIN_EXE_kiln"), &kiln).expect("the binary can be copied");
    let everybody = std::fs::Permissions::from_mode(0o777);
    std::fs::set_permissions(place, everybody.clone()).expect("the place can be opened");
    std::fs::set_permissions(&kiln, everybody).expect("the binary can be opened");
    let data = place.join("data");
    let mut command = if nix::unistd::geteuid().is_root() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]).arg(&kiln);
        command
    } else {
        Command::new(&kiln)
    };
    command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data).args(arguments);
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn actions_run_in_the_sandbox_of_an_ordinary_user() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let server = Server::spawn(as_nobody(place.path(), &[]), place.path());
    let client = Client::connect(&server.url()).await;
    let script = "id -u; hostname; ls /proc | grep -c '^[0-9]'; touch /usr/x 2>/dev/null || echo ro; \
                  echo made > out";
    let response = client.execute(&Spec::shell(script, &["out"])).await.expect("an answer");
    let result = response.result.expect("a result");
    let (stdout, stderr) = output_text(&client, &result).await;
    assert_eq!(result.exit_code, 0, "{stdout}{stderr}");
    let lines: Vec<_> = stdout.lines().collect();
    assert_ne!(lines[0], "0", "not root inside either");
    assert_eq!(lines[1], "kiln");
    assert!(lines[2].parse::<u32>().expect("a count") < 10, "only its own processes: {stdout}");
    assert_eq!(lines[3], "ro");
    assert_eq!(result.output_files.len(), 1);
}

/// Root passes every closed door; the user that the actions run as does not.
#[tokio::test(flavor = "multi_thread")]
async fn outputs_behind_closed_directories_are_found() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let server = Server::spawn(as_nobody(place.path(), &[]), place.path());
    let client = Client::connect(&server.url()).await;
    let script = "echo made > a/b/out; mkdir -p tree/x; echo in > tree/x/y; chmod 0 tree/x tree; \
                  chmod 0 a/b; chmod 0 a";
    let response = client.execute(&Spec::shell(script, &["a/b/out", "tree", "a/b/none"])).await;
    let response = response.expect("an answer");
    let result = response.result.expect("a result");
    assert_eq!(result.exit_code, 0, "{}", response.message);
    assert_eq!(result.output_files.len(), 1, "{result:?}");
    assert_eq!(client.read(result.output_files[0].digest.as_ref().unwrap()).await, b"made\n");
    assert_eq!(result.output_directories.len(), 1, "{result:?}");
}

#[test]
fn a_sandbox_that_is_required_and_not_there_refuses_to_start() {
    let place = tempfile::tempdir().expect("a temporary directory");
    let best = program(as_nobody(place.path(), &["--workers", "0"]));
    assert!(best.is_none(), "without workers there is nothing to enforce");
    let refusal = program(as_nobody(place.path(), &["--sandbox", "required"]));
    let Some((code, text)) = refusal else {
        // A machine that delegates cgroups to nobody enforces everything.
        return;
    };
    assert_eq!(code, 5, "{text}");
    assert!(text.contains("cannot enforce"), "{text}");
    assert!(text.contains("--sandbox=best-effort"), "says what to do: {text}");
}

/// As in a container whose runtime hides parts of /proc.
#[test]
fn a_machine_on_which_no_action_could_run_gets_no_worker() {
    if !nix::unistd::geteuid().is_root() {
        return; // Only root can hide a part of /proc.
    }
    let place = tempfile::tempdir().expect("a temporary directory");
    let kiln = as_nobody(place.path(), &[]);
    let mut command = Command::new("unshare");
    let hide = "mount -t tmpfs none /proc/fs && exec \"$@\"";
    command.args(["--mount", "sh", "-c", hide, "sh"]).arg(kiln.get_program());
    command.args(kiln.get_args());
    let (code, text) = program(command).expect("it does not start");
    assert_eq!(code, 5, "{text}");
    assert!(text.contains("mount /proc"), "{text}");
    assert!(text.contains("hint:") && text.contains("--workers 0"), "{text}");
}
