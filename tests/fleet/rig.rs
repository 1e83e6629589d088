//! The parts that a fleet is made of, and functions that look at it from outside.

use std::fs::File;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use kiln_test_servers::pause;
use kiln_test_servers::redis::RedisServer;
use kiln_test_servers::s3::Weed;
use kiln_test_servers::slow::SlowProxy;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::support::balancer::Balancer;
use crate::support::bazel::{Bazel, Run};
pub use crate::support::server::metric;
use crate::support::server::{Server, command, get_json};

pub const WITHIN: Duration = Duration::from_secs(90);

/// The Redis and the S3 that a fleet shares, and the addresses at which the fleet reaches them.
pub struct Shared {
    pub redis: RedisServer,
    pub redis_url: String,
    pub weed: Weed,
    pub endpoint: String,
    pub bucket: String,
    /// Further environment variables of all servers of the fleet.
    pub settings: Vec<(&'static str, PathBuf)>,
    pub dir: tempfile::TempDir,
}

impl Shared {
    /// Starts Redis and S3. Returns `None` if a program is missing here, which the environment may allow.
    pub fn start() -> Option<Self> {
        Some(Self::of(RedisServer::start()?, Weed::start()?))
    }

    /// Starts Redis and S3 so that both speak TLS, with certificates of two authorities of their own. Redis also
    /// wants a password and a certificate. Returns `None` as [`Self::start`] does.
    pub fn start_secured() -> Option<Self> {
        let shared = Self::of(RedisServer::start_secured()?, Weed::start_secured()?);
        let tls = shared.redis.tls().unwrap();
        let password = shared.dir.path().join("password");
        std::fs::write(&password, format!("{}\n", tls.password)).unwrap();
        let settings = vec![
            ("KILN_REDIS_PASSWORD_FILE", password),
            ("KILN_REDIS_CA", tls.ca.clone()),
            ("KILN_REDIS_CLIENT_CERT", tls.client_certificate.clone()),
            ("KILN_REDIS_CLIENT_KEY", tls.client_key.clone()),
            ("KILN_S3_CA", shared.weed.certificates().unwrap().ca()),
        ];
        Some(Self { settings, ..shared })
    }

    fn of(redis: RedisServer, weed: Weed) -> Self {
        Self {
            redis_url: redis.url(),
            redis,
            endpoint: weed.endpoint(),
            bucket: weed.bucket().to_owned(),
            weed,
            settings: Vec::new(),
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub fn command(&self, name: &str, arguments: &[&str]) -> Command {
        self.command_on("127.0.0.1:0", name, arguments)
    }

    pub fn command_on(&self, listen: &str, name: &str, arguments: &[&str]) -> Command {
        let mut command = command(listen, &self.dir.path().join(name), arguments);
        let credentials = self.weed.credentials();
        command
            .args(["--redis", &self.redis_url])
            .args(["--s3", &format!("s3://{}/kiln", self.bucket)])
            .env("KILN_S3_ENDPOINT", &self.endpoint)
            .env("AWS_ACCESS_KEY_ID", credentials.access_key)
            .env("AWS_SECRET_ACCESS_KEY", credentials.secret_key)
            .env("AWS_REGION", "us-east-1")
            .envs(self.settings.iter().cloned());
        command
    }

    pub fn frontend(&self, name: &str) -> Server {
        self.serve(name, &["--workers", "0"])
    }

    pub fn serve(&self, name: &str, arguments: &[&str]) -> Server {
        self.spawn(self.command(name, arguments), name)
    }

    pub fn spawn(&self, command: Command, name: &str) -> Server {
        Server::spawn(command, &self.dir.path().join(name))
    }

    pub fn worker(&self, name: &str, server: &str) -> Worker {
        Worker::start(server, &self.dir.path().join(name), name, &[])
    }
}

/// A proxy of connections, with the threads that it runs on.
pub struct Detour {
    pub proxy: SlowProxy,
    _runtime: Runtime,
}

impl Detour {
    /// Starts a proxy to the port `target` that delays the bytes by `delay` in each direction.
    pub fn start(target: u16, delay: Duration) -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().unwrap();
        let proxy = runtime.block_on(SlowProxy::start(target, delay));
        Self { proxy, _runtime: runtime }
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.proxy.port())
    }
}

pub struct Worker(Child);

impl Worker {
    /// Starts a worker. `servers` holds the URLs of the servers, with commas in between.
    pub fn start(servers: &str, data: &Path, name: &str, environment: &[(&str, &str)]) -> Self {
        Self(Self::command(servers, data, name, environment).spawn().expect("kiln worker starts"))
    }

    /// Starts a worker that writes its stderr to the file `log`.
    pub fn start_logged(
        servers: &str,
        data: &Path,
        name: &str,
        environment: &[(&str, &str)],
        log: &Path,
    ) -> Self {
        let mut command = Self::command(servers, data, name, environment);
        command.stderr(File::create(log).expect("a file"));
        Self(command.spawn().expect("kiln worker starts"))
    }

    fn command(servers: &str, data: &Path, name: &str, environment: &[(&str, &str)]) -> Command {
        let servers = servers.split(',').flat_map(|server| ["--server", server]);
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command
            .arg("worker")
            .args(servers)
            .args(["--slots", "2", "--data-dir"])
            .arg(data)
            .env("KILN_WORKERS_MEMORY", "1GiB")
            .env("HOSTNAME", name)
            .envs(environment.iter().copied());
        command
    }

    pub fn signal(&self, signal: &str) {
        self::signal(self.id(), signal);
    }

    /// Waits until the worker has ended and returns its exit code, or `None` after a signal. Panics if it does not
    /// end.
    pub fn ended(&mut self) -> Option<i32> {
        let deadline = Instant::now() + WITHIN;
        loop {
            if let Some(status) = self.0.try_wait().expect("it can be waited for") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the worker does not end");
            pause();
        }
    }

    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().expect("it can be waited for").is_none()
    }

    /// Returns the id that the worker's session has in the queue, or `None` before there is a session.
    pub fn seat(&self, redis: &RedisServer) -> Option<String> {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("it has a name");
        let name = format!("{}-{}", host.trim_end(), self.id());
        let seat = redis.command(&["HGET", "{kiln:queue}:wn", &name]);
        (!seat.is_empty()).then_some(seat)
    }

    /// Returns how many leases the queue counts for the worker.
    pub fn leases(&self, redis: &RedisServer) -> u64 {
        let seat = self.seat(redis).expect("it has a session");
        redis.command(&["ZCARD", &format!("{{kiln:queue}}:wl:{seat}")]).parse().unwrap_or(0)
    }

    /// Returns the id of the worker's process, with which the worker's name ends.
    pub fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn count(status: &Value, pointer: &str) -> u64 {
    status.pointer(pointer).and_then(Value::as_u64).unwrap_or_default()
}

pub fn await_status(address: &str, what: &str, condition: impl Fn(&Value) -> bool) {
    let deadline = Instant::now() + WITHIN;
    loop {
        let status = get_json(address, "/api/v1/status");
        if condition(&status) {
            return;
        }
        assert!(Instant::now() < deadline, "{what} did not happen; status: {status:#}");
        pause();
    }
}

/// Returns a counter of the queue in Redis, such as `c.retries`, or 0 if it is not set.
pub fn counter(redis: &RedisServer, name: &str) -> u64 {
    redis.command(&["HGET", "{kiln:queue}:m", name]).parse().unwrap_or(0)
}

pub fn await_counter(redis: &RedisServer, name: &str, value: u64) {
    let deadline = Instant::now() + WITHIN;
    while counter(redis, name) < value {
        assert!(Instant::now() < deadline, "{name} stays below {value}");
        pause();
    }
}

/// Returns how many actions the fleet has finished.
pub fn published(redis: &RedisServer) -> u64 {
    counter(redis, "c.published")
}

pub fn await_published(redis: &RedisServer, count: u64) {
    await_counter(redis, "c.published", count);
}

pub fn signal(process: u32, signal: &str) {
    let sent = Command::new("kill").args([&format!("-{signal}"), &process.to_string()]).status();
    assert!(sent.expect("kill runs").success(), "{signal} to {process}");
}

pub const NETWORK: (&str, &str) = ("KILN_WORKERS_ALLOW_NETWORK", "true");

/// A server that each run of one action of the test workspace asks how to end.
pub struct Asked {
    port: u16,
    runs: Receiver<TcpStream>,
}

impl Asked {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, runs) = channel();
        std::thread::spawn(move || {
            for run in listener.incoming().map_while(Result::ok) {
                if sender.send(run).is_err() {
                    return;
                }
            }
        });
        Self { port, runs }
    }

    pub fn build(&self, bazel: &Bazel, address: &str) -> Child {
        let port = format!("--define=ASK_PORT={}", self.port);
        bazel.start_remote(address, &["build", "--remote_retries=20", &port, "//asks:ask"])
    }

    pub fn next_run(&self) -> TcpStream {
        self.runs.recv_timeout(WITHIN).expect("the action runs")
    }

    pub fn expect_no_more_within(&self, time: Duration) {
        assert!(self.runs.recv_timeout(time).is_err(), "it ran again");
    }

    /// Asserts that no run has asked since the one that [`Self::next_run`] returned last.
    pub fn expect_no_more(&self) {
        assert!(self.runs.try_recv().is_err(), "it ran again");
    }
}

pub fn answer(mut run: TcpStream, text: &str) {
    writeln!(run, "{text}").expect("the action waits for it");
}

pub fn expect_answer(bazel: &Bazel, build: Child, text: &str) {
    Run::of(build.wait_with_output().expect("Bazel ends")).expect_success();
    let said = std::fs::read_to_string(bazel.bin().join("asks/answer")).unwrap();
    assert_eq!(said.trim_end(), text);
}

/// Two frontends behind a balancer, and two workers that are connected through it.
pub struct Fleet {
    pub shared: Shared,
    pub frontends: Vec<Server>,
    pub workers: Vec<Worker>,
    pub balancer: Balancer,
}

impl Fleet {
    pub fn start() -> Option<Self> {
        Shared::start().map(Self::over)
    }

    pub fn over(shared: Shared) -> Self {
        let frontends: Vec<Server> =
            ["one", "two"].iter().map(|name| shared.frontend(name)).collect();
        let backends = frontends.iter().map(|server| server.address.clone()).collect();
        let balancer = Balancer::start(backends);
        let workers =
            ["w1", "w2"].iter().map(|name| shared.worker(name, &balancer.url())).collect();
        let fleet = Self { shared, frontends, workers, balancer };
        await_status(&fleet.frontends[0].address, "both workers", |status| {
            count(status, "/workers") == 2
        });
        fleet
    }
}
