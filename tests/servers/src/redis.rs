//! `redis-server` as a process of its own (`KILN_REDIS`), alone, secured, or as a cluster.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::certificates::Certificates;
use crate::process::{PATIENCE, Process, free_port};

const READY: &str = "Ready to accept connections";
/// Ports that are tried until one is still free when the server binds it.
const ATTEMPTS: usize = 5;
const SLOTS: u16 = 16_384;
/// How long a server may take to have on the disk what it has answered.
const SETTLES: Duration = Duration::from_secs(5);
/// Arguments of a node of a cluster.
const NODE: [&str; 4] = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];

/// A server with an append-only file that is synced every second, in a directory of its own.
pub struct RedisServer {
    process: Process,
    program: PathBuf,
    dir: TempDir,
    ports: Ports,
    arguments: Vec<String>,
    tls: Option<Tls>,
}

/// The ports of a server; zero: it does not have this one.
#[derive(Debug, Clone, Copy)]
struct Ports {
    plain: u16,
    tls: u16,
}

/// The kinds of ports that a server has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Plain,
    Tls,
    Both,
}

impl Ports {
    fn draw(speaks: Speaks) -> Self {
        let port = |wanted: bool| if wanted { free_port() } else { 0 };
        Self { plain: port(speaks != Speaks::Tls), tls: port(speaks != Speaks::Plain) }
    }
}

/// The password and the files that a client of a secured server needs. The password belongs to the
/// default user.
#[derive(Debug, Clone)]
pub struct Tls {
    pub password: String,
    pub ca: PathBuf,
    pub client_certificate: PathBuf,
    pub client_key: PathBuf,
}

impl Tls {
    fn new(certificates: &Certificates) -> Self {
        Self {
            password: "let/me:in@now".to_owned(),
            ca: certificates.ca(),
            client_certificate: certificates.client_certificate(),
            client_key: certificates.client_key(),
        }
    }

    /// Arguments of a server that speaks TLS only, wants a certificate from its clients, and a
    /// password.
    fn arguments(&self, certificates: &Certificates) -> Vec<String> {
        let text = |path: PathBuf| path.display().to_string();
        let pairs = [
            ("--requirepass", self.password.clone()),
            ("--tls-ca-cert-file", text(certificates.ca())),
            ("--tls-cert-file", text(certificates.server_certificate())),
            ("--tls-key-file", text(certificates.server_key())),
            ("--tls-auth-clients", "yes".to_owned()),
        ];
        pairs.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
    }
}

impl RedisServer {
    /// Starts a server without TLS. `None`: there is no `redis-server` here, and that is allowed.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// Starts a server with further arguments of `redis-server`. `None`: there is none here, and
    /// that is allowed.
    pub fn start_with(arguments: &[&str]) -> Option<Self> {
        let program = crate::program("KILN_REDIS")?;
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        let dir = tempfile::tempdir().unwrap();
        Some(Self::launch(program, dir, arguments, Speaks::Plain, None))
    }

    /// Starts a server that speaks TLS only, and wants a certificate from its clients, and a
    /// password.
    pub fn start_secured() -> Option<Self> {
        let program = crate::program("KILN_REDIS")?;
        let dir = tempfile::tempdir().unwrap();
        let certificates = Certificates::make(dir.path());
        let tls = Tls::new(&certificates);
        Some(Self::launch(program, dir, tls.arguments(&certificates), Speaks::Tls, Some(tls)))
    }

    /// A node of a cluster that speaks TLS with clients and with other nodes, and has a plain
    /// port for [`RedisServer::command`].
    fn start_secured_node(certificates: &Certificates) -> Option<Self> {
        let program = crate::program("KILN_REDIS")?;
        let tls = Tls::new(certificates);
        let mut arguments = tls.arguments(certificates);
        arguments.extend(NODE.iter().chain(&["--tls-cluster", "yes"]).map(|&word| word.to_owned()));
        let dir = tempfile::tempdir().unwrap();
        Some(Self::launch(program, dir, arguments, Speaks::Both, Some(tls)))
    }

    fn launch(
        program: PathBuf,
        dir: TempDir,
        arguments: Vec<String>,
        speaks: Speaks,
        tls: Option<Tls>,
    ) -> Self {
        let mut log = String::new();
        for _ in 0..ATTEMPTS {
            let ports = Ports::draw(speaks);
            let process = spawn(&program, dir.path(), ports, &arguments);
            match process.wait_for(READY) {
                Ok(()) => return Self { process, program, dir, ports, arguments, tls },
                Err(seen) => log = seen,
            }
        }
        panic!("redis-server does not start:\n{log}");
    }

    /// The port for clients: that with TLS where there is one.
    pub fn port(&self) -> u16 {
        if self.tls.is_some() { self.ports.tls } else { self.ports.plain }
    }

    /// `redis://` or `rediss://` with host and port; without the password.
    pub fn url(&self) -> String {
        let scheme = if self.tls.is_some() { "rediss" } else { "redis" };
        format!("{scheme}://127.0.0.1:{}", self.port())
    }

    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// Kills the server as `kill -9` does, once all that it has answered is on the disk.
    pub fn kill(&mut self) {
        self.settle().ok();
        self.process.kill();
    }

    /// While its disk is busy a server that syncs every second holds back writes that it has answered, and a
    /// kill loses them. One that syncs always answers nothing before. Errors: it is paused, gone, or speaks TLS only.
    fn settle(&self) -> std::io::Result<usize> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.ports.plain))?;
        stream.set_read_timeout(Some(SETTLES))?;
        let mut answer = BufReader::new(stream.try_clone()?);
        if let Some(tls) = &self.tls {
            stream.write_all(encode(&["AUTH", &tls.password]).as_bytes())?;
            answer.read_line(&mut String::new())?;
        }
        stream.write_all(encode(&["CONFIG", "SET", "appendfsync", "always"]).as_bytes())?;
        answer.read_line(&mut String::new())
    }

    /// Kills the server if it runs, and starts it on the same port and directory.
    pub fn restart(&mut self) {
        self.kill();
        self.process = spawn(&self.program, self.dir.path(), self.ports, &self.arguments);
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
    /// error with its `-`, a number or a bulk string. Not for servers that speak TLS only.
    pub fn command(&self, words: &[&str]) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.ports.plain)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut answer = BufReader::new(stream.try_clone().unwrap());
        if let Some(tls) = &self.tls {
            stream.write_all(encode(&["AUTH", &tls.password]).as_bytes()).unwrap();
            let mut accepted = String::new();
            answer.read_line(&mut accepted).unwrap();
            assert_eq!(accepted, "+OK\r\n");
        }
        stream.write_all(encode(words).as_bytes()).unwrap();
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

fn encode(words: &[&str]) -> String {
    let count = format!("*{}\r\n", words.len());
    words.iter().fold(count, |text, word| text + &format!("${}\r\n{word}\r\n", word.len()))
}

fn spawn(program: &Path, dir: &Path, ports: Ports, arguments: &[String]) -> Process {
    let mut command = Command::new(program);
    command
        .current_dir(dir)
        .args(["--bind", "127.0.0.1", "--daemonize", "no", "--save", ""])
        .args(["--appendonly", "yes", "--appendfsync", "everysec"])
        .args(["--port", &ports.plain.to_string()])
        .args(arguments);
    if ports.tls != 0 {
        command.args(["--tls-port", &ports.tls.to_string()]);
    }
    Process::spawn(&mut command)
}

/// Masters that share the slots, and as many replicas as were asked for.
pub struct RedisCluster {
    pub masters: Vec<RedisServer>,
    pub replicas: Vec<RedisServer>,
    /// The directory with the certificates of all nodes; `None`: they speak without TLS.
    _dir: Option<TempDir>,
}

impl RedisCluster {
    pub const MASTERS: usize = 3;

    /// Starts a cluster of three masters without replicas.
    pub fn start() -> Option<Self> {
        Self::start_with(0)
    }

    /// Starts a cluster of three masters, and a replica of each of the first `replicas` of them.
    pub fn start_with(replicas: usize) -> Option<Self> {
        let node = || RedisServer::start_with(&NODE);
        let masters: Vec<_> = (0..Self::MASTERS).map(|_| node()).collect::<Option<_>>()?;
        let replicas: Vec<_> = (0..replicas).map(|_| node()).collect::<Option<_>>()?;
        let cluster = Self { masters, replicas, _dir: None };
        cluster.join();
        Some(cluster)
    }

    /// Three masters as [`RedisServer::start_secured`]; they have one authority and password.
    pub fn start_secured() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let certificates = Certificates::make(dir.path());
        let node = || RedisServer::start_secured_node(&certificates);
        let masters: Vec<_> = (0..Self::MASTERS).map(|_| node()).collect::<Option<_>>()?;
        let cluster = Self { masters, replicas: Vec::new(), _dir: Some(dir) };
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
        let first = self.masters[0].port().to_string();
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

    /// `redis+cluster://` or `rediss+cluster://` with the addresses of all masters.
    pub fn url(&self) -> String {
        let nodes: Vec<_> =
            self.masters.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        let scheme = if self.masters[0].tls.is_some() { "rediss" } else { "redis" };
        format!("{scheme}+cluster://{}", nodes.join(","))
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
