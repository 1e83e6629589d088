//! A real Prometheus that scrapes a real Kiln tries the alert rules and the dashboard in examples/monitoring.

#![allow(clippy::panic)]

use crate::support;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use kiln_test_servers::{Process, free_port};
use serde_json::Value;
use support::reapi::{Client, Spec};
use support::server::Server;
use support::{client, root};

const WITHIN: Duration = Duration::from_secs(60);

fn example(file: &str) -> PathBuf {
    root().join("examples/monitoring").join(file)
}

fn promtool(tool: &Path, arguments: &[&str], file: &str) {
    let output = Command::new(tool).args(arguments).arg(example(file)).output().expect("it runs");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{file}: {said}");
}

#[test]
fn the_alert_rules_fire_when_they_should() {
    let Some(tool) = client("KILN_PROMTOOL") else { return };
    promtool(&tool, &["check", "config"], "prometheus.yml");
    promtool(&tool, &["check", "rules"], "alerts.yml");
    promtool(&tool, &["test", "rules"], "alerts_test.yml");
}

/// A Prometheus on a free port, which ends when the value is dropped.
struct Prometheus {
    process: Process,
    address: String,
}

impl Prometheus {
    /// Starts Prometheus with examples/monitoring/prometheus.yml, in which Kiln's address and the intervals are
    /// replaced.
    fn start(program: &Path, kiln: &str, dir: &Path) -> Self {
        let configuration = std::fs::read_to_string(example("prometheus.yml"))
            .expect("the example is there")
            .replace("127.0.0.1:8980", kiln)
            .replace("15s", "1s")
            .replace("alerts.yml", example("alerts.yml").to_str().expect("UTF-8"));
        let file = dir.join("prometheus.yml");
        std::fs::write(&file, configuration).expect("the configuration is written");
        let address = format!("127.0.0.1:{}", free_port());
        let process = Process::spawn(
            // Prometheus logs to stderr, but `Process` waits for words on stdout.
            Command::new("sh")
                .args(["-c", "exec \"$@\" 2>&1", "sh"])
                .arg(program)
                .arg(format!("--config.file={}", file.display()))
                .arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()))
                .arg(format!("--web.listen-address={address}")),
        );
        process.wait_for("Server is ready").unwrap_or_else(|log| panic!("Prometheus ended: {log}"));
        Self { process, address }
    }

    /// Sends `GET path` and returns the JSON of the answer. By HTTP/1.0 the answer comes in one piece.
    fn get(&self, path: &str) -> Value {
        use std::io::{Read, Write};
        let mut stream = std::net::TcpStream::connect(&self.address).expect("it accepts");
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").expect("the request is sent");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("the answer is UTF-8");
        let (_, body) = text.split_once("\r\n\r\n").expect("an answer with a body");
        serde_json::from_str(body).unwrap_or_else(|error| panic!("{error} in {text}"))
    }

    /// Returns the result of an instant query. Panics if Prometheus refuses the query.
    fn query(&self, query: &str) -> Vec<Value> {
        let mut encoded = String::new();
        for byte in query.bytes() {
            encoded.push_str(&format!("%{byte:02X}"));
        }
        let answer = self.get(&format!("/api/v1/query?query={encoded}"));
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        answer["data"]["result"].as_array().cloned().unwrap_or_default()
    }

    /// Waits until the query has a result.
    fn wait_for(&self, query: &str) {
        let start = Instant::now();
        while self.query(query).is_empty() {
            assert!(start.elapsed() < WITHIN, "{query} has no result");
            self.process.wait_a_moment();
        }
    }
}

fn expressions(panels: &[Value]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for panel in panels {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            found.push((text(&panel["title"]), text(&target["expr"])));
        }
    }
    found
}

/// The titles of panels that are empty until something goes wrong, or is evicted, or a test runs.
const QUIET: [&str; 4] = [
    "gRPC codes other than OK",
    "Waiting by platform properties",
    "Scheduler's events",
    "Red without retries",
];

#[test]
fn every_panel_and_rule_finds_what_it_asks_for() {
    let Some(tool) = client("KILN_PROMTOOL") else { return };
    let program = tool.with_file_name("prometheus");
    let dir = tempfile::tempdir().expect("a temporary directory");
    // The server has an environment, so that there are deployments to count.
    let policy = dir.path().join("environments.toml");
    std::fs::write(&policy, "[environments.prod]\n").expect("the policy is written");
    let data = dir.path().join("data");
    let mut command = support::server::command("127.0.0.1:0", &data, &["--workers", "1"]);
    command.env("KILN_PROMOTION_POLICY", &policy);
    let server = Server::spawn(command, &data);
    let prometheus = Prometheus::start(&program, &server.address, dir.path());
    prometheus.wait_for("kiln_build_info");

    // A rate needs two samples that differ. So an action runs and is looked up twice, with scrapes in between.
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    for round in 0..2 {
        runtime.block_on(async {
            let client = Client::connect(&server.url()).await;
            let spec = Spec::shell(&format!("echo {round} > out"), &["out"]);
            let action = client.prepare(&spec).await;
            client.execute(&spec).await.expect("it runs");
            assert!(client.cached(&action).await.is_some());
        });
        prometheus.wait_for(&format!("sum(kiln_actions_total{{origin=\"executed\"}}) > {round}"));
    }

    let dashboard: Value = serde_json::from_slice(
        &std::fs::read(example("grafana-dashboard.json")).expect("the dashboard is there"),
    )
    .expect("the dashboard is JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let expressions = expressions(panels);
    assert!(expressions.len() > 25, "{}", expressions.len());
    let mut empty = BTreeSet::new();
    for (title, expression) in &expressions {
        let query = expression.replace("$__rate_interval", "1m").replace("$instance", ".*");
        if prometheus.query(&query).is_empty() {
            empty.insert(title.as_str());
        }
    }
    let unexpected: Vec<_> = empty.iter().filter(|title| !QUIET.contains(title)).collect();
    assert!(unexpected.is_empty(), "these panels show nothing: {unexpected:?}");

    // A rule may ask for metrics that only a fleet has; the server of this test lacks those, so such a rule need not
    // have a result.
    let rules = prometheus.get("/api/v1/rules");
    for rule in rules["data"]["groups"][0]["rules"].as_array().expect("rules") {
        assert_ne!(rule["health"], "err", "{rule}");
        assert_ne!(rule["state"], "firing", "nothing is wrong here: {rule}");
    }
    documented(&example("alerts.yml"));
    documented(&example("grafana-dashboard.json"));
}

/// Asserts that docs/metrics.md has every metric that the file names.
fn documented(file: &Path) {
    let text = std::fs::read_to_string(file).expect("the example is there");
    let docs = std::fs::read_to_string(root().join("docs/metrics.md")).expect("the docs are there");
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    for metric in words.filter(|word| word.starts_with("kiln_") || word.starts_with("process_")) {
        let name = metric.trim_end_matches("_bucket");
        assert!(docs.contains(&format!("`{name}`")), "{}: {metric}", file.display());
    }
}
