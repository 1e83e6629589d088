//! `kiln status`.

use std::time::Duration;

use clap::Args;
use kiln_scheduler::queue::platform::is_of_every_worker;
use kiln_scheduler::snapshot::WorkerView;
use serde::Deserialize;

use super::api::{self, Api};
use super::text::{self, Look, Table};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use kiln_web::format::{bytes, count, counted, duration, percent, short};
use kiln_web::json::{BuildCounts, FailedReload, Shared, Status, Unserved};

const MAX_WORKERS: usize = 50;
/// Characters of a worker's properties on a terminal; elsewhere there are all.
const MAX_PROPERTIES: usize = 120;

/// Show what the server is doing: actions, workers, cache, storage.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln status
  kiln status --watch
  kiln --server http://build.example:8980 status --json | jq .queued")]
pub struct StatusCommand {
    /// Go on showing it, every two seconds; with --json, one line each time
    #[arg(long)]
    watch: bool,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// How long `--watch` waits between two looks.
const EVERY: Duration = Duration::from_secs(2);

#[derive(Deserialize)]
struct Workers {
    workers: Vec<WorkerView>,
}

impl StatusCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let api = Api::new(target)?;
        if !self.watch {
            text::print(&self.look(&api).await?)?;
            return Ok(Exit::Done);
        }
        // The first look tells whether there is a server at all; later it may come back.
        let mut seen = self.look(&api).await?;
        loop {
            match text::is_terminal() && !self.json {
                true => text::print_again(&seen)?,
                false => text::print(&seen)?,
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                _ = tokio::signal::ctrl_c() => return Ok(Exit::Done),
            }
            match self.look(&api).await {
                Ok(now) => seen = now,
                Err(error) if self.json => return Err(error),
                Err(error) => seen = format!("{}\n", text::look(Look::Bad, &error.message)),
            }
        }
    }

    async fn look(&self, api: &Api) -> Result<String, CliError> {
        let mut answer = api.get("/status").await?;
        let workers = api.get("/workers").await?;
        if self.json {
            answer["worker_list"] = workers["workers"].clone();
            return Ok(if self.watch { format!("{answer}\n") } else { format!("{answer:#}\n") });
        }
        let status: Status = api::read(answer)?;
        let Workers { workers } = api::read(workers)?;
        Ok(head(&status, api.base())
            + &not_in_force(&status)
            + &waits_in_vain(&status)
            + &worker_rows(&workers))
    }
}

/// Lines about files whose change is not in force, because they cannot be read.
fn not_in_force(status: &Status) -> String {
    let line = |failed: &FailedReload| {
        let text = format!("a change of {} is not in force: {}", failed.what, failed.error);
        format!("  {}\n", text::look(Look::Bad, &text))
    };
    status.failed_reloads.iter().map(line).collect()
}

/// Lines about actions that no worker can take, and why; empty where there are none.
fn waits_in_vain(status: &Status) -> String {
    let line = |unserved: &Unserved| {
        let waiting = counted(unserved.queued as u64, "waiting action");
        let text = format!("no worker can take {waiting}: {}", unserved.reason);
        format!("  {}\n", text::look(Look::Bad, &text))
    };
    status.unserved.iter().map(line).collect()
}

/// The first lines; `asked` is the address by which this command reaches the server.
fn head(status: &Status, asked: &str) -> String {
    let uptime = duration(status.uptime_seconds.saturating_mul(1_000_000_000));
    let draining = if status.draining { ", draining" } else { "" };
    let waits = status.oldest_queued_ms.map_or_else(String::new, |ms| {
        format!(", the oldest for {}", duration(ms.saturating_mul(1_000_000)))
    });
    format!(
        "kiln {} at {}, up {uptime}{draining}\n\
         \x20 actions   {} running, {} queued{waits}; {} on {}\n{}",
        status.version,
        asked,
        status.running,
        status.queued,
        counted(status.slots, "slot"),
        counted(status.workers as u64, "worker"),
        match &status.shared {
            None => alone(status),
            Some(shared) => of_a_fleet(status, shared),
        },
    )
}

fn alone(status: &Status) -> String {
    let storage = &status.storage;
    let evicted = match storage.evicted_blobs_total {
        0 => String::new(),
        evicted => format!(", {} evicted", count(evicted)),
    };
    let small = match storage.cut_blobs_total {
        0 => String::new(),
        cut => format!(
            "\x20           too small: {} promised to builds that are over made room early; \
             storage.max_size of {} would have been enough\n",
            counted(cut, "blob"),
            bytes(storage.wanted_bytes),
        ),
    };
    let pinned = match storage.pinned_bytes {
        0 => String::new(),
        pinned => format!(", {} of them pinned", bytes(pinned)),
    };
    format!(
        "\x20 served    {}\n\
         \x20 storage   {} of {} in {}{pinned}{evicted}\n\
         {small}\
         \x20 cache     {}, {}\n",
        counts(&status.journal.since_start),
        bytes(storage.used_bytes),
        bytes(storage.max_bytes),
        counted(storage.blobs, "blob"),
        counted(storage.actions, "action result"),
        bytes(storage.action_cache_used_bytes),
    )
}

/// Lines about the storage of a fleet; what is only this server's says so.
fn of_a_fleet(status: &Status, shared: &Shared) -> String {
    let incomplete = if shared.index_incomplete {
        "\x20           the index is incomplete: run `kiln index rebuild`\n"
    } else {
        ""
    };
    format!(
        "\x20 shared    {} in {}, {} of them still to be written to S3\n{incomplete}\
         \x20 here      {}\n\
         \x20           copies of {}, {} of {}\n",
        bytes(shared.bytes),
        counted(shared.blobs, "blob"),
        count(shared.pending),
        counts(&status.journal.since_start),
        counted(status.storage.blobs, "blob"),
        bytes(status.storage.used_bytes),
        bytes(status.storage.max_bytes),
    )
}

/// `12 executed, 38 from the cache (76.0 %), 0 merged, 1 failed`, with what no worker ran where there is any.
pub fn counts(counts: &BuildCounts) -> String {
    let ran = counts.executed + counts.refused + counts.ran_at_client;
    let all = ran + counts.cache_hits + counts.merged;
    let share = match all {
        0 => String::new(),
        all => format!(" ({})", percent(counts.cache_hits as f64 / all as f64)),
    };
    let others = [(counts.refused, "refused"), (counts.ran_at_client, "run by clients")];
    let others = others.iter().filter(|(count, _)| *count > 0);
    let others: String = others.map(|(n, what)| format!(", {} {what}", count(*n))).collect();
    let failed = format!("{} failed", count(counts.failed));
    let failed = if counts.failed > 0 { text::look(Look::Bad, &failed) } else { failed };
    let cancelled = match counts.cancelled {
        0 => String::new(),
        cancelled => format!(", {} cancelled", count(cancelled)),
    };
    format!(
        "{} executed, {} from the cache{share}, {} merged{others}, {failed}{cancelled}",
        count(counts.executed),
        count(counts.cache_hits),
        count(counts.merged),
    )
}

/// The properties of a worker that the operator configured, and how many more it has from Kiln
/// itself, in at most `most` characters.
fn properties(all: &[(String, String)], most: Option<usize>) -> String {
    let (kilns, own): (Vec<_>, Vec<_>) =
        all.iter().partition(|(name, value)| is_of_every_worker(name, value));
    let own: Vec<_> = own.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let own = own.join(" ");
    let own = most.map_or_else(|| own.clone(), |most| short(&own, most));
    match kilns.len() {
        0 => own,
        kilns if own.is_empty() => format!("{kilns} of Kiln's own"),
        kilns => format!("{own} and {kilns} of Kiln's own"),
    }
}

fn worker_rows(workers: &[WorkerView]) -> String {
    if workers.is_empty() {
        return "  no workers: actions wait until one joins with `kiln worker --server URL`\n"
            .into();
    }
    let mut table = Table::new(&["worker", "slots", "host", "version", "properties"], &[]);
    for worker in workers.iter().take(MAX_WORKERS) {
        let draining = if worker.draining { " draining" } else { "" };
        let paused = if worker.paused.is_some() { " paused" } else { "" };
        table.row([
            worker.id.clone(),
            format!("{}/{}{draining}{paused}", worker.occupied, worker.slots),
            worker.host_name.clone(),
            worker.version.clone(),
            properties(&worker.properties, text::is_terminal().then_some(MAX_PROPERTIES)),
        ]);
    }
    let more = workers.len().saturating_sub(MAX_WORKERS);
    let more = if more > 0 { format!("  and {more} more\n") } else { String::new() };
    let why = |worker: &WorkerView| {
        Some(format!("  {} takes nothing for now: {}\n", worker.id, worker.paused.as_ref()?))
    };
    let paused: String = workers.iter().filter_map(why).take(MAX_WORKERS).collect();
    let mut lacking: Vec<_> = workers.iter().flat_map(|worker| &worker.not_enforced).collect();
    lacking.sort_unstable();
    lacking.dedup();
    let lacking = lacking.iter().map(|what| format!("  not enforced: {what}\n"));
    table.text("  ") + &more + &paused + &lacking.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_properties_come_first_and_are_cut_for_terminals_alone() {
        let pair = |(name, value): (&str, &str)| (name.to_owned(), value.to_owned());
        let of_kiln = [("kiln-root", "*"), ("container-image", "none")].map(pair);
        let own: Vec<_> = (0..30).map(|i| pair(("pool", &i.to_string()))).collect();
        let all = [&of_kiln[..], &own].concat();
        let whole = properties(&all, None);
        assert!(whole.starts_with("pool=0 pool=1 "), "{whole}");
        assert!(whole.ends_with("pool=29 and 2 of Kiln's own"), "{whole}");
        let cut = properties(&all, Some(20));
        assert!(cut.starts_with("pool=0 ") && !cut.contains("pool=29"), "{cut}");
        assert_eq!(properties(&of_kiln, None), "2 of Kiln's own");
        assert_eq!(properties(&own[..1], None), "pool=0");
        let offered = [true, false].into_iter().flat_map(|on| {
            let host =
                kiln_executor::platform::offers(&kiln_executor::sandbox::RootFs::Host, on, on);
            let strict = kiln_executor::sandbox::RootFs::Empty;
            host.chain(kiln_executor::platform::offers(&strict, on, on)).collect::<Vec<_>>()
        });
        for (name, value) in offered {
            assert!(is_of_every_worker(&name, &value), "{name}={value}");
        }
    }
}
