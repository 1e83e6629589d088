//! A server as a child process whose log is read line by line.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a server may take to do what it was asked for.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// Ports are drawn from here, and so that 10,000 more is a port as well.
const PORTS: std::ops::Range<u16> = 20_000..30_000;

/// A port that nobody listens on, and neither on the one 10,000 above it.
pub fn free_port() -> u16 {
    use std::hash::{BuildHasher, RandomState};
    let free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    for attempt in 0..1000 {
        let drawn = RandomState::new().hash_one(attempt);
        let port = PORTS.start + (drawn % PORTS.len() as u64) as u16;
        if free(port) && free(port + 10_000) {
            return port;
        }
    }
    panic!("no free port in {PORTS:?}");
}

/// A child process; killed when dropped.
pub struct Process {
    child: Child,
    lines: Receiver<String>,
}

impl Process {
    /// Starts `command` with its stdout as the log.
    pub fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{:?}: {error}", command.get_program()));
        let stdout = child.stdout.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    /// Reads the log up to a line with `text` in it. `Err`: the log until the process ended.
    pub fn wait_for(&self, text: &str) -> Result<(), String> {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = String::new();
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(text) => return Ok(()),
                Ok(line) => seen.extend([line.as_str(), "\n"]),
                Err(RecvTimeoutError::Disconnected) => return Err(seen),
                Err(RecvTimeoutError::Timeout) => panic!("no {text:?} in the log:\n{seen}"),
            }
        }
    }

    /// Waits for the next line of the log, but not for long: something happened, or might have.
    pub fn wait_a_moment(&self) {
        let _ = self.lines.recv_timeout(Duration::from_millis(20));
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
