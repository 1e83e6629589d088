//! `kiln serve` as a process of its own, on a free port.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

const READY_WITHIN: Duration = Duration::from_secs(30);

pub struct Server {
    child: Child,
    /// The address that the server listens on, as `127.0.0.1:PORT`.
    pub address: String,
    pub data: PathBuf,
}

impl Server {
    /// Starts on a free port with its data in `data`.
    pub fn start(data: &Path, arguments: &[&str]) -> Self {
        Self::start_on("127.0.0.1:0", data, arguments)
    }

    pub fn start_on(listen: &str, data: &Path, arguments: &[&str]) -> Self {
        Self::spawn(command(listen, data, arguments), data)
    }

    /// Starts `command`, which is a `kiln serve` with its data in `data`.
    pub fn spawn(mut command: Command, data: &Path) -> Self {
        command.stderr(Stdio::inherit());
        Self::spawn_logged(command, data)
    }

    /// Starts `command` as [`Self::spawn`] does, with the log on the stderr that it was given.
    pub fn spawn_logged(mut command: Command, data: &Path) -> Self {
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("kiln starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let address = ready_address(stdout);
        Self { child, address, data: data.to_owned() }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Kills the server as a power cut would: no handler runs. Returns its address.
    pub fn kill(mut self) -> String {
        self.child.kill().expect("the server can be killed");
        self.child.wait().expect("the server can be reaped");
        self.address.clone()
    }

    /// Sends SIGTERM, waits for the end and returns the exit status.
    pub fn terminate(mut self) -> std::process::ExitStatus {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(&pid).status().expect("kill runs").success());
        self.child.wait().expect("the server can be reaped")
    }

    /// Waits for the end, which somebody else brings about, and returns the exit status.
    pub fn ended(mut self) -> std::process::ExitStatus {
        self.child.wait().expect("the server can be reaped")
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The command that runs `kiln serve` with these arguments; it is not started.
pub fn command(listen: &str, data: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
    command
        .args(["serve", "--listen", listen, "--data-dir"])
        .arg(data)
        .args(arguments)
        .env("KILN_WORKERS_MEMORY", "1GiB")
        .stdin(Stdio::null());
    command
}

/// Starts a server that is expected to refuse: its exit code and what it said. `None`: it
/// became ready (and was ended).
pub fn program(mut command: Command) -> Option<(i32, String)> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kiln starts");
    let mut first = String::new();
    let stdout = child.stdout.as_mut().expect("stdout is piped");
    BufReader::new(stdout).read_line(&mut first).expect("stdout can be read");
    if !first.is_empty() {
        child.kill().expect("the server can be killed");
        child.wait().expect("the server can be reaped");
        return None;
    }
    let output = child.wait_with_output().expect("the server can be reaped");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Some((output.status.code().unwrap_or(-1), text))
}

fn ready_address(stdout: std::process::ChildStdout) -> String {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut sent = false;
        // Reads on to the end, so that the server never blocks on a full pipe.
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if let Some((_, rest)) = line.split_once("--remote_executor=")
                && let Some((_, rest)) = rest.split_once("://")
                && !sent
            {
                let address = rest.split_whitespace().next().unwrap_or_default().to_owned();
                sent = sender.send(address).is_ok();
            }
        }
    });
    receiver.recv_timeout(READY_WITHIN).expect("kiln serve printed its ready line")
}

/// The body of the answer to `GET path`, as JSON.
pub fn get_json(address: &str, path: &str) -> serde_json::Value {
    let body = get_text(address, path);
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{error} in {body}"))
}

/// The body of an answer that must be 200.
pub fn get_text(address: &str, path: &str) -> String {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).expect("the server accepts");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
        .expect("the request is sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("the answer is UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer with a body");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    body.to_owned()
}

/// The sum of the samples of a metric that carry these labels.
pub fn metric(address: &str, name: &str, labels: &[(&str, &str)]) -> f64 {
    let text = get_text(address, "/metrics");
    let labelled = |line: &&str| {
        labels.iter().all(|(label, value)| line.contains(&format!("{label}=\"{value}\"")))
    };
    let samples = text
        .lines()
        .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    let values =
        samples.filter(labelled).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    values.sum::<f64>()
}

/// The status of the answer to `GET path`.
pub fn get_status(address: &str, path: &str) -> u16 {
    use std::io::{Read, Write};
    let mut stream = std::net::TcpStream::connect(address).expect("the server accepts");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
        .expect("the request is sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("the answer is UTF-8");
    let status = text.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    status.expect("an HTTP answer")
}
