//! What it costs on this machine to run a process in new namespaces: the floor of Execute.
//!
//! `unshare` makes the namespaces; that it is itself started and starts the program in turn
//! is taken off again by running it without any namespace:
//!
//! floor = p50(`true`) + p50(`unshare` with namespaces) - p50(`unshare` without)

use std::process::{Command, Stdio};
use std::time::Instant;

/// How often each variant is run; the variants take turns.
const RUNS: usize = 200;
const PROGRAM: &str = "/bin/true";
const NAMESPACES: [&str; 6] = ["--user", "--mount", "--pid", "--ipc", "--uts", "--net"];

#[derive(Debug, Clone, Copy, serde::Serialize)]
pub struct SpawnFloor {
    /// Median time, in milliseconds, to start `/bin/true` and wait for its end.
    pub plain_ms: f64,
    /// Median time, in milliseconds, with new user, mount, pid, ipc and uts namespaces.
    pub namespaces_ms: f64,
    /// Median time, in milliseconds, with a new network namespace as well.
    pub with_network_ms: f64,
}

pub fn measure() -> Result<SpawnFloor, String> {
    let without_network = &NAMESPACES[..NAMESPACES.len() - 1];
    let unshare = |namespaces: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(namespaces).args(["--fork", PROGRAM]);
        command
    };
    let mut variants =
        [Command::new(PROGRAM), unshare(&[]), unshare(without_network), unshare(&NAMESPACES)];
    let mut times = [const { Vec::new() }; 4];
    for _ in 0..RUNS {
        for (command, times) in variants.iter_mut().zip(&mut times) {
            times.push(run(command)?);
        }
    }
    let [plain_ms, no_namespace, namespaces, with_network] = times.map(median);
    Ok(SpawnFloor {
        plain_ms,
        namespaces_ms: plain_ms + namespaces - no_namespace,
        with_network_ms: plain_ms + with_network - no_namespace,
    })
}

/// Runs the command to its end and answers how many milliseconds that took. Fails where it cannot
/// be started, or does not succeed.
fn run(command: &mut Command) -> Result<f64, String> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let start = Instant::now();
    let status = command.status();
    let took = start.elapsed().as_secs_f64() * 1e3;
    match status {
        Ok(status) if status.success() => Ok(took),
        Ok(status) => Err(format!(
            "{command:?} ended with {status}; user namespaces may be forbidden on this machine"
        )),
        Err(error) => Err(format!("{command:?}: {error}; util-linux has `unshare`")),
    }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
