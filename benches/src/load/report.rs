//! Medians, ratios, the table and the JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::burst::{Burst, Idle};
use super::spawn::SpawnFloor;
use super::works::Measure;

#[derive(Debug, Serialize)]
pub struct Report {
    /// The name of the target that ratios refer to; `None`: there are no ratios.
    pub floor: Option<String>,
    pub rows: Vec<Row>,
    pub spawn_floor: Option<SpawnFloor>,
    pub notes: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct Row {
    pub work: String,
    pub measure: Measure,
    pub cells: Vec<Cell>,
}

#[derive(Debug, Serialize)]
pub struct Cell {
    pub target: String,
    pub outcome: Outcome,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Measured(Vec<Burst>),
    Idle(Idle),
    /// The server does not offer what was to be measured; the text is its error.
    Unsupported(String),
    /// A call failed, or was answered wrongly: no speed is reported.
    Failed(String),
}

impl Report {
    pub fn new(floor: Option<String>) -> Self {
        Self { floor, rows: Vec::new(), spawn_floor: None, notes: Vec::new() }
    }

    pub fn is_clean(&self) -> bool {
        let failed = |cell: &Cell| matches!(cell.outcome, Outcome::Failed(_));
        !self.rows.iter().flat_map(|row| &row.cells).any(failed)
    }

    pub fn table(&self) -> String {
        let mut lines = vec![
            ["work", "target", "median", "spread", "p50", "p99", "server cpu", "ratio"]
                .map(str::to_owned)
                .to_vec(),
        ];
        let mut remarks = self.notes.clone();
        for row in &self.rows {
            let floor = self.floor_cell(row);
            for cell in &row.cells {
                lines.push(cell.line(row, floor, &mut remarks));
            }
        }
        let mut text = align(&lines);
        if let Some(spawn) = self.spawn_floor {
            let _ = writeln!(
                text,
                "\nStarting /bin/true on this machine, p50: {:.2} ms; in new namespaces {:.2} ms; \
                 with a network namespace {:.2} ms.",
                spawn.plain_ms, spawn.namespaces_ms, spawn.with_network_ms
            );
        }
        for remark in remarks {
            let _ = writeln!(text, "note: {remark}");
        }
        text
    }

    fn floor_cell<'a>(&self, row: &'a Row) -> Option<&'a Cell> {
        row.cells.iter().find(|cell| Some(&cell.target) == self.floor.as_ref())
    }
}

impl Cell {
    fn line(&self, row: &Row, floor: Option<&Cell>, remarks: &mut Vec<String>) -> Vec<String> {
        let mut line = vec![row.work.clone(), self.target.clone()];
        match &self.outcome {
            Outcome::Measured(bursts) => line.extend(row.measure.columns(bursts)),
            Outcome::Idle(idle) => {
                line.push(format!("{:.1} % cpu", idle.cpu_percent));
                let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
                let (own, tree) = (mib(idle.memory.resident), mib(idle.memory.tree));
                line.push(format!("{own:.0} MiB, {tree:.0} with children"));
            }
            Outcome::Unsupported(_) => line.push("-".to_owned()),
            Outcome::Failed(why) => {
                line.push("FAILED".to_owned());
                remarks.push(format!("{} on {}: {why}", row.work, self.target));
            }
        }
        if let Some(ratio) = floor.and_then(|floor| row.measure.ratio(self, floor)) {
            line.resize(7, String::new());
            line.push(format!("{ratio:.2}"));
        }
        line
    }

    fn bursts(&self) -> &[Burst] {
        match &self.outcome {
            Outcome::Measured(bursts) => bursts,
            _ => &[],
        }
    }
}

impl Measure {
    fn value(self, burst: &Burst) -> f64 {
        match self {
            Self::PerSecond => burst.per_second(),
            Self::MegabytesPerSecond => burst.megabytes_per_second(),
            Self::Latency => burst.p50_ms,
        }
    }

    fn show(self, value: f64) -> String {
        match self {
            Self::PerSecond if value >= 100.0 => format!("{value:.0}/s"),
            Self::PerSecond => format!("{value:.1}/s"),
            Self::MegabytesPerSecond => format!("{value:.0} MB/s"),
            Self::Latency => format!("{value:.3} ms"),
        }
    }

    /// The columns of a row: median, spread, p50, p99, and the server's processor time per
    /// operation.
    fn columns(self, bursts: &[Burst]) -> [String; 5] {
        let values: Vec<_> = bursts.iter().map(|burst| self.value(burst)).collect();
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(0.0, f64::max);
        let of = |value: fn(&Burst) -> f64| median(bursts.iter().map(value).collect());
        let server: Option<Vec<_>> = bursts.iter().map(|burst| burst.server_cpu_us).collect();
        [
            self.show(median(values)),
            format!("{}..{}", self.show(least), self.show(most)),
            format!("{:.3} ms", of(|burst| burst.p50_ms)),
            format!("{:.3} ms", of(|burst| burst.p99_ms)),
            server.map(|all| format!("{:.1} us", median(all))).unwrap_or_default(),
        ]
    }

    /// The median of the ratios of bursts that ran one after the other. Below 1: slower than
    /// the floor, except for latencies, where above 1 is slower.
    fn ratio(self, cell: &Cell, floor: &Cell) -> Option<f64> {
        let pairs = cell.bursts().iter().zip(floor.bursts());
        let ratios: Vec<_> =
            pairs.map(|(own, other)| self.value(own) / self.value(other)).collect();
        (!ratios.is_empty()).then(|| median(ratios))
    }
}

impl Serialize for Measure {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match self {
            Self::PerSecond => "operations_per_second",
            Self::MegabytesPerSecond => "megabytes_per_second",
            Self::Latency => "p50_ms",
        })
    }
}

/// The median of `values`; 0 where there are none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => 0.0,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

fn align(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|n| lines.iter().filter_map(|line| line.get(n)).map(String::len).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for line in lines {
        let cells: Vec<_> =
            line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(target: &str, rates: &[f64]) -> Cell {
        let burst = |rate: &f64| Burst {
            operations: *rate as u64,
            bytes: 0,
            seconds: 1.0,
            p50_ms: 1000.0 / rate,
            p99_ms: 2000.0 / rate,
            max_ms: 3000.0 / rate,
            server_cpu_us: None,
            client_cpu_us: 1.0,
        };
        Cell {
            target: target.to_owned(),
            outcome: Outcome::Measured(rates.iter().map(burst).collect()),
        }
    }

    fn report(measure: Measure) -> Report {
        let mut report = Report::new(Some("floor".to_owned()));
        let cells = vec![cell("floor", &[100.0, 200.0, 400.0]), cell("x", &[50.0, 90.0, 200.0])];
        report.rows.push(Row { work: "w".to_owned(), measure, cells });
        report
    }

    #[test]
    fn the_ratio_is_the_median_of_neighbours() {
        let rates = report(Measure::PerSecond);
        let row = &rates.rows[0];
        assert_eq!(row.measure.ratio(&row.cells[1], &row.cells[0]), Some(0.5));
        let latencies = report(Measure::Latency);
        let row = &latencies.rows[0];
        assert_eq!(row.measure.ratio(&row.cells[1], &row.cells[0]), Some(2.0));
    }

    #[test]
    fn a_failure_shows_and_has_no_speed() {
        let mut report = report(Measure::PerSecond);
        assert!(report.is_clean());
        report.rows[0].cells[1].outcome = Outcome::Failed("wrong answer: few bytes".to_owned());
        assert!(!report.is_clean());
        let table = report.table();
        assert!(table.contains("FAILED"), "{table}");
        assert!(table.contains("note: w on x: wrong answer: few bytes"), "{table}");
    }
}
