//! A build in sums, and words for how it goes.

use crate::cli::status::counts;
use crate::cli::text::{Look, Table, look, one_line};
use kiln_web::format::{count, counted, duration, now, short, utc};
use kiln_web::json::Build;

/// The state of a build that runs, was cancelled or is lost, in words; empty for one that has ended
/// by itself.
pub fn state(build: &Build) -> String {
    match &*build.state {
        "running" => look(Look::Busy, &format!("{} open", count(build.open))),
        "cancelled" => look(Look::Dim, "cancelled"),
        "lost" => look(Look::Bad, &format!("{} lost", count(build.lost))),
        _ => String::new(),
    }
}

/// A number of failures; any but none stands out.
pub fn failures(failed: u64) -> String {
    if failed == 0 { "0".to_owned() } else { look(Look::Bad, &count(failed)) }
}

/// Nanoseconds from the first request to the last answer, or to `now`.
pub fn elapsed(build: &Build, now: i64) -> u64 {
    span(build.first_at, if build.state == "running" { now } else { build.last_at })
}

fn span(start: i64, end: i64) -> u64 {
    u64::try_from(end.saturating_sub(start)).unwrap_or(0)
}

pub fn tool(name: &str, version: &str) -> String {
    short(one_line(&format!("{name} {version}")).trim(), 40)
}

/// The sums of a build, and those of each mnemonic.
pub fn summary(build: &Build) -> String {
    let sum = &build.counts;
    let time = duration(elapsed(build, now()));
    let (time, going) = match &*build.state {
        "running" => {
            let verb = if build.open == 1 { "runs or waits" } else { "run or wait" };
            let open = look(Look::Busy, &format!("{} {verb}", counted(build.open, "action")));
            (format!("for {time} now"), format!("  {open}\n"))
        }
        "cancelled" => {
            let how = "the last of it was stopped: cancelled, or its client went away";
            (format!("took {time}"), format!("  {}\n", look(Look::Dim, how)))
        }
        "lost" => {
            let how =
                format!("{} will never end: their server is gone", counted(build.lost, "action"));
            (format!("took {time}"), format!("  {}\n", look(Look::Bad, &how)))
        }
        _ => (format!("took {time}"), String::new()),
    };
    let mut text = format!(
        "{}\n  {} at {}, {}, {}\n{}  {}\n  in sum: {} running, {} waiting for a worker\n",
        look(Look::Bold, &format!("build {}", one_line(&build.invocation_id))),
        tool(&build.tool_name, &build.tool_version),
        utc(build.first_at),
        time,
        counted(build.targets, "target"),
        going,
        counts(sum),
        duration(sum.run_ns),
        duration(sum.queue_ns),
    );
    let mut table =
        Table::new(&["mnemonic", "executed", "cached", "failed", "ran for"], &[1, 2, 3, 4]);
    for mnemonic in &build.mnemonics {
        let name = if mnemonic.mnemonic.is_empty() { "(none)" } else { &mnemonic.mnemonic };
        table.row([
            short(name, 60),
            count(mnemonic.counts.executed),
            count(mnemonic.counts.cache_hits),
            failures(mnemonic.counts.failed),
            duration(mnemonic.counts.run_ns),
        ]);
    }
    if !build.mnemonics.is_empty() {
        text.push_str(&table.text("  "));
    }
    text
}
