//! Real agents of a real server: the server tells them releases, and they verify, run and take back what they are
//! told. All of that survives kill -9.

#![allow(clippy::panic, clippy::unwrap_used)]

use crate::support;
use crate::support::release;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kiln_deploy::signing::{Scheme, Signer as _, SigningKey};
use serde_json::Value;
use support::server::{Server, command};

const RUNS: &str = "#!/bin/sh\nexec sleep 1000 # ";
/// Of each caller the name, the token, and the further lines of the caller's entry in the access file.
const CALLERS: [(&str, &str, &str); 9] = [
    ("boss", "tok-boss", "roles = [\"admin\"]"),
    ("web-1", "tok-web-1", "roles = [\"agent\"]\nservices = [\"api/prod\"]"),
    ("web-2", "tok-web-2", "roles = [\"agent\"]\nservices = [\"api\"]"),
    ("web-3", "tok-web-3", "roles = [\"agent\"]\nservices = [\"api/*\"]"),
    ("web-4", "tok-web-4", "roles = [\"agent\"]\nservices = [\"api\"]"),
    ("web-5", "tok-web-5", "roles = [\"agent\"]\nservices = [\"api\"]"),
    ("liar", "tok-liar", "roles = [\"agent\"]\nservices = [\"api\"]"),
    ("other", "tok-other", "roles = [\"agent\"]\nservices = [\"other\"]"),
    ("reader", "tok-reader", "roles = [\"read-cache\"]"),
];

pub struct House {
    directory: tempfile::TempDir,
    /// The key that signs releases. The server has it as well.
    key: SigningKey,
    server: Option<Server>,
    pub address: String,
}

impl House {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let entries = CALLERS.map(|(name, token, rest)| {
            let hash = kiln_cas::DigestFunction::Sha256.digest(token.as_bytes()).hex();
            std::fs::write(directory.path().join(name), token).unwrap();
            format!("[[token]]\nname = \"{name}\"\nsha256 = \"{hash}\"\n{rest}\n")
        });
        std::fs::write(directory.path().join("access.toml"), entries.concat()).unwrap();
        let (key, pem) = SigningKey::generate(Scheme::EcdsaP256).unwrap();
        std::fs::write(directory.path().join("release.pem"), pem).unwrap();
        let public = key.public_key().to_pem().unwrap();
        std::fs::write(directory.path().join("release.pub"), public).unwrap();
        let address = "127.0.0.1:0".to_owned();
        let mut house = Self { directory, key, server: None, address };
        house.start();
        house
    }

    pub fn dir(&self) -> &Path {
        self.directory.path()
    }

    /// Starts the server, at its earlier address if it ran before.
    fn start(&mut self) {
        let data = self.dir().join("data");
        let mut command = command(&self.address, &data, &["--workers", "0"]);
        command.arg("--access-file").arg(self.dir().join("access.toml"));
        command.env("KILN_RELEASES_KEY", self.dir().join("release.pem"));
        let server = Server::spawn(command, &data);
        self.address.clone_from(&server.address);
        self.server = Some(server);
    }

    fn kill(&mut self) {
        drop(self.server.take().map(Server::kill));
    }

    fn command(&self, who: &str, words: &[&str]) -> Command {
        self.asking(Command::new(env!("CARGO_BIN_EXE_kiln")), who, words)
    }

    /// Makes the command `kiln` for an ordinary user who lets nobody else read the files that he makes. That user is
    /// nobody if root runs the tests, otherwise the tests' own.
    fn as_nobody(&self) -> Command {
        let kiln = self.dir().join("kiln");
        std::fs::copy(env!("CARGO_BIN_EXE_kiln"), &kiln).unwrap();
        std::fs::set_permissions(self.dir(), Permissions::from_mode(0o755)).unwrap();
        let script = ["-c", "umask 077; exec \"$@\"", "sh"];
        let mut command = Command::new("/bin/sh");
        if nix::unistd::geteuid().is_root() {
            command = Command::new("setpriv");
            command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "/bin/sh"]);
        }
        command.args(script).arg(kiln);
        command
    }

    fn asking(&self, mut command: Command, who: &str, words: &[&str]) -> Command {
        command
            .args(["--server", &format!("http://{}", self.address), "--token-file"])
            .arg(self.dir().join(who))
            .args(words)
            .current_dir(self.dir())
            .stdin(Stdio::null());
        command
    }

    /// Runs `kiln` as the caller `who`. Returns the exit code, or -1 after a signal, and the stdout followed by the
    /// stderr.
    fn kiln(&self, who: &str, words: &[&str]) -> (i32, String) {
        let output = self.command(who, words).output().unwrap();
        let text = [output.stdout.as_slice(), &output.stderr].concat();
        (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
    }

    fn done(&self, words: &[&str]) -> String {
        let (code, text) = self.kiln("boss", words);
        assert_eq!(code, 0, "{words:?}: {text}");
        text
    }

    fn agents(&self) -> Vec<Value> {
        let output = self.command("boss", &["agent", "list", "--json"]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let list: Value = serde_json::from_str(&text).unwrap_or_default();
        list["agents"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until `holds` is true for exactly `count` agents, and returns the list of all agents. Panics after a
    /// minute, naming `what`.
    pub fn until(&self, what: &str, count: usize, holds: impl Fn(&Value) -> bool) -> Vec<Value> {
        let begun = Instant::now();
        loop {
            let agents = self.agents();
            if agents.iter().filter(|it| holds(it)).count() == count {
                return agents;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{what}: {agents:#?}");
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    fn release(&self, name: &str) -> String {
        self.release_of(name, &format!("{RUNS}{name}\n"))
    }

    pub fn release_of(&self, name: &str, program: &str) -> String {
        let directory = name.replace([':', '/'], "-");
        let into = self.dir().join(&directory);
        let digest = release::export_program(name, program, &self.key, &into);
        self.done(&["release", "import", &directory, "--key", "release.pub"]);
        digest.to_string()
    }

    /// Sends a report about the host web-1 with the token of `who`, and returns the server's whole answer.
    fn report(&self, who: &str) -> String {
        use std::io::{Read as _, Write as _};
        let token = std::fs::read_to_string(self.dir().join(who)).unwrap();
        let none = serde_json::json!({ "fence": 0, "change": 0 });
        let body = serde_json::json!({
            "from": { "service": "api", "environment": "prod", "name": "web-1", "identity": "x" },
            "software": "", "running": null, "previous": null, "accepted": none, "settled": none,
            "failed": null, "health": { "state": "well" }, "crashes": 0, "free_bytes": 0,
        });
        let body = body.to_string();
        let mut stream = std::net::TcpStream::connect(&self.address).unwrap();
        write!(
            stream,
            "POST /api/v1/fleet/agent/report HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.address,
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    pub fn tell(&self, name: &str, release: &str) {
        self.done(&["agent", "tell", "api", "prod", name, release, "--reason", "to see it run"]);
    }

    /// Returns how many bytes of releases the server has given to agents so far.
    pub fn given(&self) -> u64 {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(&self.address).unwrap();
        let token = std::fs::read_to_string(self.dir().join("boss")).unwrap();
        write!(
            stream,
            "GET /metrics HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n",
            self.address
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let line = answer.lines().find_map(|it| it.strip_prefix("kiln_agent_content_bytes_total "));
        line.unwrap_or_else(|| panic!("{answer}")).trim().parse().unwrap()
    }

    fn agent(&self, name: &str, who: &str) -> Agent {
        self.agent_by(Command::new(env!("CARGO_BIN_EXE_kiln")), name, who, &[])
    }

    pub fn agent_with(&self, name: &str, who: &str, options: &[&str]) -> Agent {
        self.agent_by(Command::new(env!("CARGO_BIN_EXE_kiln")), name, who, options)
    }

    fn agent_by(&self, kiln: Command, name: &str, who: &str, options: &[&str]) -> Agent {
        // The directory is a relative path with a space in it, which the agent has to bear.
        let dir = format!("{name} here");
        let words = ["agent", "--service", "api", "--name", name, "--dir", &dir, "--key"];
        let everybody = Permissions::from_mode(0o777);
        std::fs::create_dir_all(self.dir().join(&dir)).unwrap();
        std::fs::set_permissions(self.dir().join(&dir), everybody).unwrap();
        let mut command = self.asking(kiln, who, &words);
        command.args(["release.pub", "--run", "./bin/app", "--label", "zone=a"]);
        command.args(["--repository", "team/app", "--health", "test -e \"$1/bin/app\""]);
        let said = std::fs::File::create(self.dir().join(format!("{name}.said"))).unwrap();
        let child = command.args(options).stdout(Stdio::null()).stderr(said).spawn().unwrap();
        let said = self.dir().join(format!("{name}.said"));
        Agent { child, dir: self.dir().join(dir), said }
    }
}

pub struct Agent {
    child: Child,
    dir: PathBuf,
    /// The path of the file with the agent's stderr.
    said: PathBuf,
}

impl Agent {
    /// Returns the address at which other agents reach this one, as the agent has printed it.
    pub fn peers(&self) -> String {
        let said = std::fs::read_to_string(&self.said).unwrap();
        let address = said.split("other agents reach this one at ").nth(1);
        address.and_then(|it| it.lines().next()).unwrap_or_else(|| panic!("{said}")).to_owned()
    }

    fn app(&self) -> String {
        std::fs::read_to_string(self.dir.join("current/bin/app")).unwrap_or_default()
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Returns the id of the process that the agent has started.
    fn process(&self) -> u64 {
        let note = std::fs::read_to_string(self.dir.join("process.json")).unwrap();
        serde_json::from_str::<Value>(&note).unwrap()["pid"].as_u64().unwrap()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").arg(pid).status();
        let _ = self.child.wait();
    }
}

fn is_alive(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z")
}

pub fn runs(version: &str) -> impl Fn(&Value) -> bool + '_ {
    move |it| it["running"] == *version && it["condition"] == "well"
}

#[test]
fn agents_run_what_they_are_told_and_survive_what_happens() {
    let mut house = House::new();
    let (one, two) = (house.release("team/app:1"), house.release("team/app:2"));
    let strange = house.release("team/strange:1");

    let first = house.agent("web-1", "web-1");
    let second = house.agent_by(house.as_nobody(), "web-2", "web-2", &[]);
    house.until("they register", 2, |it| it["condition"] == "unassigned");
    // Only a caller with the role for a service may report for its hosts, and nobody may report for a host whose name
    // belongs to somebody else.
    for (who, said) in
        [("other", "of the service api/prod"), ("reader", "role agent"), ("web-2", "somebody else")]
    {
        let answer = house.report(who);
        assert!(answer.starts_with("HTTP/1.1 403") && answer.contains(said), "{who}: {answer}");
    }
    let (code, text) = house.kiln("web-1", &["release", "list"]);
    assert!(code == 4 && text.contains("role read-cache is missing"), "{text}");
    let tell = |name: &str, release: &str| {
        house.done(&["agent", "tell", "api", "prod", name, release, "--reason", "to see it run"]);
    };
    for name in ["web-1", "web-2"] {
        tell(name, "team/app:1");
    }
    let agents = house.until("they run it", 2, runs(&one));
    assert_eq!(agents[0]["releases"], serde_json::json!(["team/app:1"]), "{agents:#?}");
    assert!(first.app().contains("team/app:1") && second.app().contains("team/app:1"));

    // The host accepts one repository. It refuses a release of another one, and what runs goes on.
    tell("web-2", "team/strange:1");
    let failed = |it: &Value| it["condition"] == "failed" && it["told"]["version"] == *strange;
    let agents = house.until("it is refused", 1, failed);
    assert_eq!(agents[1]["running"], *one, "{agents:#?}");

    // Both the agent and the server are killed with -9 while the server tells something new.
    let left = first.process();
    tell("web-1", "team/app:2");
    first.kill();
    house.kill();
    house.start();
    let first = house.agent("web-1", "web-1");
    house.until("it goes on", 1, runs(&two));
    assert!(first.app().contains("team/app:2"));
    assert!(left == first.process() || !is_alive(left), "nothing is left behind");

    let tell = |name: &str, release: &str| {
        house.done(&["agent", "tell", "api", "prod", name, release, "--reason", "back"]);
    };
    tell("web-2", "team/app:2");
    house.until("both run it", 2, runs(&two));
    let begun = Instant::now();
    tell("web-1", "team/app:1");
    house.until("the way back", 1, runs(&one));
    println!("from the command to the list that shows the way back: {:?}", begun.elapsed());

    let page = house.done(&["agent", "show", "api", "prod", "web-1"]);
    for part in ["team/app:1", "zone=a", "token web-1", "well"] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let log = house.done(&["audit", "log"]);
    assert_eq!(log.matches("fleet.tell").count(), 6, "{log}");
    let process = first.process();
    drop(first);
    assert!(!is_alive(process), "its program ends with the agent");
}

const DECLARED: &str = "\
name = \"api\"
targets = 3
labels = { zone = \"a\" }
steps = [34, 100]
bake = \"1s\"
soak = \"1s\"
settle = \"20s\"
tries = 1
watch = \"1s\"
";

#[test]
fn a_rollout_comes_to_all_agents_and_one_that_crashes_is_taken_back() {
    let house = House::new();
    std::fs::write(house.dir().join("rollout.toml"), DECLARED).unwrap();
    let good = house.release("team/app:1");
    house.release_of("team/app:2", "#!/bin/sh\nexit 7\n");
    let agents = ["web-1", "web-2", "web-3"].map(|name| house.agent(name, name));
    house.until("they register", 3, |it| it["condition"] == "unassigned");
    let roll_out = |release: &str| {
        let words = ["rollout", "start", "rollout.toml", "--release", release, "--env", "prod"];
        house.kiln("boss", &[&words[..], &["--reason", "June", "--wait"]].concat())
    };
    let (code, text) = roll_out("team/app:1");
    assert_eq!(code, 0, "{text}");
    house.until("all run it", 3, runs(&good));
    let (code, text) = roll_out("team/app:2");
    assert_eq!(code, 1, "{text}");
    house.until("all run what was there", 3, runs(&good));
    assert!(agents.iter().all(|it| it.app().contains("team/app:1")));
}
