//! `redis-server` as a process of its own (`KILN_REDIS`), alone, secured, or as a cluster.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::process::{PATIENCE, Process, free_port};

const READY: &str = "Ready to accept connections";
/// Ports that are tried until one is still free when the server binds it.
const ATTEMPTS: usize = 5;
const SLOTS: u16 = 16_384;

/// A server with an append-only file that is synced every second, in a directory of its own.
pub struct RedisServer {
    process: Process,
    program: PathBuf,
    dir: TempDir,
    port: u16,
    arguments: Vec<String>,
    tls: Option<Tls>,
}

/// What a client of a secured server needs. The password belongs to the default user.
#[derive(Debug, Clone)]
pub struct Tls {
    pub password: String,
    pub ca: PathBuf,
    pub client_certificate: PathBuf,
    pub client_key: PathBuf,
}

impl RedisServer {
    /// `None`: there is no `redis-server` here, and that is allowed.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// With further arguments of `redis-server`.
    pub fn start_with(arguments: &[&str]) -> Option<Self> {
        let program = crate::program("KILN_REDIS")?;
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        Some(Self::launch(program, tempfile::tempdir().unwrap(), arguments, None))
    }

    /// Speaks TLS only, wants a certificate from its clients, and a password.
    pub fn start_secured() -> Option<Self> {
        let program = crate::program("KILN_REDIS")?;
        let dir = tempfile::tempdir().unwrap();
        let tls = make_certificates(dir.path());
        let path = |name: &str| dir.path().join(name).display().to_string();
        let arguments = [
            "--requirepass",
            &tls.password,
            "--tls-ca-cert-file",
            &path("ca.crt"),
            "--tls-cert-file",
            &path("server.crt"),
            "--tls-key-file",
            &path("server.key"),
            "--tls-auth-clients",
            "yes",
        ]
        .map(str::to_owned);
        Some(Self::launch(program, dir, arguments.to_vec(), Some(tls)))
    }

    fn launch(program: PathBuf, dir: TempDir, arguments: Vec<String>, tls: Option<Tls>) -> Self {
        let mut log = String::new();
        for _ in 0..ATTEMPTS {
            let port = free_port();
            let process = spawn(&program, dir.path(), port, &arguments, tls.is_some());
            match process.wait_for(READY) {
                Ok(()) => return Self { process, program, dir, port, arguments, tls },
                Err(seen) => log = seen,
            }
        }
        panic!("redis-server does not start:\n{log}");
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// `redis://` or `rediss://` with host and port; without the password.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "rediss" } else { "redis" };
        format!("{scheme}://127.0.0.1:{}", self.port)
    }

    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Kills the server if it runs, and starts it on the same port and directory.
    pub fn restart(&mut self) {
        self.process.kill();
        let tls = self.tls.is_some();
        self.process = spawn(&self.program, self.dir.path(), self.port, &self.arguments, tls);
        if let Err(log) = self.process.wait_for(READY) {
            panic!("redis-server does not start again:\n{log}");
        }
    }

    /// Stops the process without ending it (SIGSTOP): connections stay, nothing answers.
    pub fn pause(&self) {
        self.process.signal(Signal::SIGSTOP);
    }

    pub fn resume(&self) {
        self.process.signal(Signal::SIGCONT);
    }

    /// Sends one command over a connection of its own and returns the answer: a status, an
    /// error with its `-`, a number or a bulk string. Not for secured servers.
    pub fn command(&self, words: &[&str]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request += &format!("${}\r\n{word}\r\n", word.len());
        }
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = BufReader::new(stream);
        let mut line = String::new();
        answer.read_line(&mut line).unwrap();
        let line = line.trim_end();
        let Some(size) = line.strip_prefix('$') else {
            return line.trim_start_matches(['+', ':']).to_owned();
        };
        let Ok(size) = size.parse::<usize>() else { return String::new() };
        let mut text = vec![0; size];
        answer.read_exact(&mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    /// Returns when `condition` holds of the answer to `words`.
    pub fn wait_until(&self, words: &[&str], condition: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.command(words);
            if condition(&answer) {
                return;
            }
            assert!(Instant::now() < deadline, "{words:?} still answers {answer}");
            self.process.wait_a_moment();
        }
    }
}

fn spawn(program: &Path, dir: &Path, port: u16, arguments: &[String], tls: bool) -> Process {
    let (plain, secured) = if tls { (0, port) } else { (port, 0) };
    let mut command = Command::new(program);
    command
        .current_dir(dir)
        .args(["--bind", "127.0.0.1", "--daemonize", "no", "--save", ""])
        .args(["--appendonly", "yes", "--appendfsync", "everysec"])
        .args(["--port", &plain.to_string()])
        .args(arguments);
    if tls {
        command.args(["--tls-port", &secured.to_string()]);
    }
    Process::spawn(&mut command)
}

/// A certificate authority, and certificates that it signed for the server and a client.
fn make_certificates(dir: &Path) -> Tls {
    let openssl = |arguments: &str| {
        let output =
            Command::new("openssl").current_dir(dir).args(arguments.split(' ')).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.crt -days 2 -subj /CN=test-ca"));
    std::fs::write(dir.join("names"), "subjectAltName=IP:127.0.0.1,DNS:localhost\n").unwrap();
    for name in ["server", "client"] {
        openssl(&format!("req {key} -keyout {name}.key -out {name}.csr -subj /CN={name}"));
        openssl(&format!(
            "x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial \
             -out {name}.crt -days 2 -extfile names"
        ));
    }
    Tls {
        password: "let/me:in@now".to_owned(),
        ca: dir.join("ca.crt"),
        client_certificate: dir.join("client.crt"),
        client_key: dir.join("client.key"),
    }
}

/// Masters that share the slots, and as many replicas as were asked for.
pub struct RedisCluster {
    pub masters: Vec<RedisServer>,
    pub replicas: Vec<RedisServer>,
}

impl RedisCluster {
    pub const MASTERS: usize = 3;

    /// Three masters.
    pub fn start() -> Option<Self> {
        Self::start_with(0)
    }

    /// Three masters, and a replica of each of the first `replicas` of them.
    pub fn start_with(replicas: usize) -> Option<Self> {
        let node = || {
            let timeout = ["--cluster-node-timeout", "1000"];
            let mut arguments = vec!["--cluster-enabled", "yes"];
            arguments.extend(timeout);
            RedisServer::start_with(&arguments)
        };
        let masters: Vec<_> = (0..Self::MASTERS).map(|_| node()).collect::<Option<_>>()?;
        let replicas: Vec<_> = (0..replicas).map(|_| node()).collect::<Option<_>>()?;
        let cluster = Self { masters, replicas };
        cluster.join();
        Some(cluster)
    }

    fn join(&self) {
        let share = SLOTS.div_ceil(Self::MASTERS as u16);
        for (number, node) in self.masters.iter().enumerate() {
            let from = number as u16 * share;
            let slots: Vec<_> =
                (from..SLOTS.min(from + share)).map(|slot| slot.to_string()).collect();
            let mut words = vec!["CLUSTER", "ADDSLOTS"];
            words.extend(slots.iter().map(String::as_str));
            assert_eq!(node.command(&words), "OK");
            let epoch = (number + 1).to_string();
            assert_eq!(node.command(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]), "OK");
        }
        let first = self.masters[0].port.to_string();
        for node in self.nodes().skip(1) {
            assert_eq!(node.command(&["CLUSTER", "MEET", "127.0.0.1", &first]), "OK");
        }
        let known = format!("cluster_known_nodes:{}\r", self.nodes().count());
        for node in self.nodes() {
            node.wait_until(&["CLUSTER", "INFO"], |info| {
                info.contains("cluster_state:ok") && info.contains(&known)
            });
        }
        for (master, replica) in self.masters.iter().zip(&self.replicas) {
            let id = master.command(&["CLUSTER", "MYID"]);
            replica.wait_until(&["CLUSTER", "REPLICATE", &id], |answer| answer == "OK");
            replica.wait_until(&["INFO", "replication"], |info| {
                info.contains("master_link_status:up")
            });
        }
    }

    fn nodes(&self) -> impl Iterator<Item = &RedisServer> {
        self.masters.iter().chain(&self.replicas)
    }

    /// `redis+cluster://` with the addresses of all masters.
    pub fn url(&self) -> String {
        let nodes: Vec<_> =
            self.masters.iter().map(|node| format!("127.0.0.1:{}", node.port)).collect();
        format!("redis+cluster://{}", nodes.join(","))
    }

    /// Returns when every node that answers says that all slots are served.
    pub fn wait_until_ok(&self, nodes: &[&RedisServer]) {
        for node in nodes {
            node.wait_until(&["CLUSTER", "INFO"], |info| info.contains("cluster_state:ok"));
        }
    }

    /// Kills a master that has a replica, and waits until the replica has taken its place.
    pub fn fail_over(&mut self, number: usize) {
        self.masters[number].kill();
        let replica = &self.replicas[number];
        replica.wait_until(&["INFO", "replication"], |info| info.contains("role:master"));
        let survivors: Vec<_> = (self.masters.iter().enumerate())
            .filter(|(other, _)| *other != number)
            .map(|(_, node)| node)
            .chain([replica])
            .collect();
        self.wait_until_ok(&survivors);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_server_keeps_its_data_over_a_kill_and_answers_nothing_while_paused() {
        let Some(mut server) = RedisServer::start() else { return };
        assert_eq!(server.command(&["SET", "key", "a b\r\nc"]), "OK");
        server.kill();
        assert!(TcpStream::connect(("127.0.0.1", server.port())).is_err());
        server.restart();
        assert_eq!(server.command(&["GET", "key"]), "a b\r\nc");
        server.pause();
        let mut paused = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        paused.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        paused.write_all(b"PING\r\n").unwrap();
        assert!(paused.read(&mut [0; 7]).is_err());
        server.resume();
        paused.set_read_timeout(Some(PATIENCE)).unwrap();
        assert_eq!(paused.read(&mut [0; 7]).unwrap(), 7);
    }

    #[test]
    fn a_secured_server_starts() {
        let Some(server) = RedisServer::start_secured() else { return };
        assert!(server.url().starts_with("rediss://"));
        assert!(server.tls().unwrap().ca.is_file());
    }

    #[test]
    fn a_replica_takes_the_place_of_its_master() {
        let Some(mut cluster) = RedisCluster::start_with(1) else { return };
        // The slot of "foo" is 12182, of the third master; "bar" is 5061, of the first.
        assert_eq!(cluster.masters[0].command(&["SET", "bar", "value"]), "OK");
        assert!(cluster.masters[0].command(&["SET", "foo", "value"]).starts_with("-MOVED"));
        cluster.replicas[0].wait_until(&["DBSIZE"], |size| size == "1");
        cluster.fail_over(0);
        assert_eq!(cluster.replicas[0].command(&["GET", "bar"]), "value");
    }
}
