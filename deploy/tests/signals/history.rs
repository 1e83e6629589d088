//! A Prometheus with a past: blocks are made of values with times, so that nobody has to wait for them.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use kiln_test_servers::{Process, free_port, program};

pub struct Prometheus {
    pub process: Process,
    pub url: String,
    /// The end of its past, in Unix seconds.
    pub now: u64,
    _dir: tempfile::TempDir,
}

/// Seconds between two values of a series.
const STEP: u64 = 15;
/// Values of a series.
const VALUES: u64 = 80;

/// What a series has at each moment, counted from the last one back; `None`: nothing.
pub type Values = Box<dyn Fn(u64) -> Option<f64>>;

/// A metric: its name and type, and its series with their labels.
pub struct Metric {
    pub name: &'static str,
    pub kind: &'static str,
    pub series: Vec<(String, Values)>,
}

impl Prometheus {
    /// `None`: there is none, and the test is skipped.
    pub fn start(metrics: &[Metric]) -> Option<Self> {
        let promtool = program("KILN_PROMTOOL")?;
        let dir = tempfile::tempdir().unwrap();
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let now = since / STEP * STEP;
        let (text, data) = (dir.path().join("past"), dir.path().join("tsdb"));
        std::fs::write(&text, written(metrics, now)).unwrap();
        let made = Command::new(&promtool)
            .args(["tsdb", "create-blocks-from", "openmetrics"])
            .args([&text, &data])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let address = format!("127.0.0.1:{}", free_port());
        let process = start(&promtool.with_file_name("prometheus"), dir.path(), &address);
        Some(Self { process, url: format!("http://{address}"), now, _dir: dir })
    }
}

fn start(program: &Path, dir: &Path, address: &str) -> Process {
    std::fs::write(dir.join("prometheus.yml"), "").unwrap();
    let process = Process::spawn(
        // It logs to stderr.
        Command::new("sh")
            .args(["-c", "exec \"$@\" 2>&1", "sh"])
            .arg(program)
            .arg(format!("--config.file={}", dir.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", dir.join("tsdb").display()))
            .arg(format!("--web.listen-address={address}")),
    );
    process.wait_for("Server is ready").unwrap_or_else(|log| panic!("Prometheus ended: {log}"));
    process
}

/// The metrics in OpenMetrics' text format.
fn written(metrics: &[Metric], now: u64) -> String {
    let mut text = String::new();
    for Metric { name, kind, series } in metrics {
        writeln!(text, "# TYPE {} {kind}", name.trim_end_matches("_total")).unwrap();
        for (labels, values) in series {
            for back in (0..VALUES).rev() {
                if let Some(value) = values(back) {
                    writeln!(text, "{name}{{{labels}}} {value} {}", now - back * STEP).unwrap();
                }
            }
        }
    }
    text.push_str("# EOF\n");
    text
}
