//! SeaweedFS's S3 gateway as a process of its own (`KILN_WEED`).

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::certificates::Certificates;
use crate::process::{PATIENCE, Process, free_port};

/// The last line of the log once all parts answer and the bucket is there.
const READY: &str = "Press Ctrl+C";
/// Sets of ports that are tried until all are still free when the server binds them.
const ATTEMPTS: usize = 5;
/// Region that requests are signed for; the gateway accepts any.
pub const REGION: &str = "us-east-1";

/// A gateway with one bucket, in a directory of its own.
pub struct Weed {
    process: Process,
    program: PathBuf,
    dir: TempDir,
    ports: Ports,
    certificates: Option<Certificates>,
}

/// An access key and its secret, by which requests are signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Credentials {
    pub access_key: &'static str,
    pub secret_key: &'static str,
}

struct Ports {
    s3: u16,
    master: u16,
    volume: u16,
    filer: u16,
    admin: u16,
}

impl Weed {
    /// Starts a gateway without TLS. `None`: there is no `weed` here, and that is allowed.
    pub fn start() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        Self::launch(dir, None)
    }

    /// Starts a gateway that speaks TLS, with a certificate of an authority that nobody knows.
    pub fn start_secured() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let certificates = Certificates::make(dir.path());
        Self::launch(dir, Some(certificates))
    }

    fn launch(dir: TempDir, certificates: Option<Certificates>) -> Option<Self> {
        let program = crate::program("KILN_WEED")?;
        std::fs::write(dir.path().join("identities.json"), identities()).unwrap();
        let mut log = String::new();
        for _ in 0..ATTEMPTS {
            let ports = Ports::draw();
            let process = spawn(&program, dir.path(), &ports, certificates.as_ref());
            match process.wait_for(READY) {
                Ok(()) => {
                    let weed = Self { process, program, dir, ports, certificates };
                    assert!(weed.probe("PUT").unwrap().contains("201"));
                    return Some(weed);
                }
                Err(seen) => log = seen,
            }
        }
        panic!("weed does not start:\n{log}");
    }

    /// The gateway's URL: `http://` or `https://` with host and port.
    pub fn endpoint(&self) -> String {
        let scheme = if self.certificates.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address())
    }

    /// The certificates that a client needs; `None`: the gateway does not speak TLS.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.as_ref()
    }

    /// The gateway's host and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.s3)
    }

    /// The bucket that is there from the start. No other is made by writing to it.
    pub fn bucket(&self) -> &'static str {
        "kiln-test"
    }

    /// The credentials of a user who may do everything.
    pub fn credentials(&self) -> Credentials {
        Credentials { access_key: "kiln", secret_key: "kiln-secret" }
    }

    /// The credentials of a user who is known, but may do nothing with [`Weed::bucket`].
    pub fn stranger(&self) -> Credentials {
        Credentials { access_key: "stranger", secret_key: "stranger-secret" }
    }

    /// Kills the gateway as `kill -9` does.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Kills the server if it runs, and starts it on the same ports and directory.
    pub fn restart(&mut self) {
        self.process.kill();
        let certificates = self.certificates.as_ref();
        self.process = spawn(&self.program, self.dir.path(), &self.ports, certificates);
        if let Err(log) = self.process.wait_for(READY) {
            panic!("weed does not start again:\n{log}");
        }
        // It says that it is ready before it has found its volumes again.
        let deadline = Instant::now() + PATIENCE;
        while !self.probe("GET").is_ok_and(|status| status.contains("200")) {
            assert!(Instant::now() < deadline, "weed does not find its volumes again");
            self.process.wait_a_moment();
        }
    }

    /// Writes or reads a file beside the bucket; returns the status line.
    fn probe(&self, method: &str) -> io::Result<String> {
        request(self.ports.filer, &format!("{method} /probe HTTP/1.0"), "probe")
    }

    /// Stops the process without ending it (SIGSTOP): connections stay, nothing answers.
    pub fn pause(&self) {
        self.process.signal(Signal::SIGSTOP);
    }

    pub fn resume(&self) {
        self.process.signal(Signal::SIGCONT);
    }
}

impl Drop for Weed {
    /// Kills the gateway and removes its sockets, which it makes in /tmp whatever it is told, and
    /// leaves there when it is killed.
    fn drop(&mut self) {
        self.process.kill();
        let Ports { s3, master, volume, filer, admin } = self.ports;
        let parts = ["s3", "master", "volume", "filer", "admin"];
        for (part, port) in parts.into_iter().zip([s3, master, volume, filer, admin]) {
            let socket = format!("/tmp/seaweedfs-{part}-grpc-{}.sock", port + 10_000);
            let _ = std::fs::remove_file(socket);
        }
    }
}

impl Ports {
    /// Draws free ports. The servers take the port 10,000 above each for gRPC.
    fn draw() -> Self {
        let (s3, master, volume) = (free_port(), free_port(), free_port());
        Self { s3, master, volume, filer: free_port(), admin: free_port() }
    }
}

/// Returns the status line of an answer that came whole.
fn request(port: u16, line: &str, body: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    let length = body.len();
    let head = format!("{line}\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all((head + body).as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.lines().next().unwrap_or_default().to_owned())
}

fn spawn(
    program: &Path,
    dir: &Path,
    ports: &Ports,
    certificates: Option<&Certificates>,
) -> Process {
    let path = |name: &str| dir.join(name).display().to_string();
    let tls = certificates.into_iter().flat_map(|certificates| {
        let certificate = certificates.server_certificate();
        let key = certificates.server_key();
        [
            format!("-s3.cert.file={}", certificate.display()),
            format!("-s3.key.file={}", key.display()),
        ]
    });
    Process::spawn(
        Command::new(program)
            .env("HOME", dir)
            .env("TMPDIR", dir)
            .env_remove("AWS_ACCESS_KEY_ID")
            .env_remove("AWS_SECRET_ACCESS_KEY")
            .current_dir(dir)
            .arg(format!("-logdir={}", dir.display()))
            .arg("mini")
            .arg(format!("-dir={}", dir.display()))
            .args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-bucket=kiln-test"])
            .args(["-master.telemetry=false", "-webdav=false", "-admin.ui=false"])
            .args(["-s3.port.iceberg=0", "-s3.port.lance=0", "-s3.autoCreateBucket=false"])
            .args(tls)
            .arg(format!("-s3.config={}", path("identities.json")))
            .arg(format!("-s3.localSocket={}", path("s3.sock")))
            .arg(format!("-filer.localSocket={}", path("filer.sock")))
            .arg(format!("-s3.port={}", ports.s3))
            .arg(format!("-master.port={}", ports.master))
            .arg(format!("-volume.port={}", ports.volume))
            .arg(format!("-filer.port={}", ports.filer))
            .arg(format!("-admin.port={}", ports.admin)),
    )
}

fn identities() -> &'static str {
    r#"{"identities": [
        {"name": "kiln",
         "credentials": [{"accessKey": "kiln", "secretKey": "kiln-secret"}],
         "actions": ["Admin", "Read", "Write", "List", "Tagging"]},
        {"name": "stranger",
         "credentials": [{"accessKey": "stranger", "secretKey": "stranger-secret"}],
         "actions": ["Read:elsewhere", "Write:elsewhere", "List:elsewhere"]}
    ]}"#
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_wants_credentials_and_answers_again_after_a_restart() {
        let Some(mut weed) = Weed::start() else { return };
        let ask = |weed: &Weed| request(weed.ports.s3, "GET /kiln-test HTTP/1.0", "");
        assert!(ask(&weed).unwrap().contains("403"));
        weed.kill();
        assert!(ask(&weed).is_err());
        weed.restart();
        assert!(ask(&weed).unwrap().contains("403"));
    }
}
