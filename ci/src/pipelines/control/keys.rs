//! Keys of the records in which runs are kept.
//!
//! | key | what |
//! | --- | --- |
//! | `pipelines/run/{id}` | what a run is: [`Run`](super::Run); never changes |
//! | `pipelines/stages/{id}/{part}` | its stages, in parts; they never change |
//! | `pipelines/head/{id}` | how long its history is, and a summary: each append expects the version that was read |
//! | `pipelines/log/{id}/{first}` | events that were appended together, by the number of the first |
//! | `pipelines/text/{id}/{stage}/{attempt}/{offset}` | what an attempt printed, in parts |
//! | `pipelines/active/{id}` | it has not ended |
//! | `pipelines/group/{hash}` | the runs that take turns |
//! | `pipelines/fired/{hash}` | up to when a schedule was looked at, or up to which number releases were |
//! | `pipelines/pushed/{time}-{commit}` | a push of which a forge told, for a day or until each pipeline that waits for it has a run of it |
//! | `pipelines/lease` | which frontend drives |

use crate::pipelines::file::Schedule;
use crate::pipelines::runner::TaskKey;

pub const RUNS: &str = "pipelines/run/";
pub const ACTIVE: &str = "pipelines/active/";
pub const GROUPS: &str = "pipelines/group/";
pub const PUSHED: &str = "pipelines/pushed/";
pub const LEASE: &str = "pipelines/lease";

pub fn run(id: &str) -> String {
    format!("{RUNS}{id}")
}

pub fn stages(id: &str) -> String {
    format!("pipelines/stages/{id}/")
}

pub fn part(id: &str, part: usize) -> String {
    format!("{}{part:06}", stages(id))
}

pub fn head(id: &str) -> String {
    format!("pipelines/head/{id}")
}

pub fn log(id: &str) -> String {
    format!("pipelines/log/{id}/")
}

pub fn events(id: &str, first: u64) -> String {
    format!("{}{first:012}", log(id))
}

/// How the keys begin of all that a run printed.
pub fn texts(id: &str) -> String {
    format!("pipelines/text/{id}/")
}

pub fn text(key: &TaskKey) -> String {
    format!("{}{:06}/{:06}/", texts(&key.run), key.stage, key.attempt)
}

pub fn chunk(key: &TaskKey, offset: u64) -> String {
    format!("{}{offset:016}", text(key))
}

/// The offset at which a chunk of a log begins, by its key.
pub fn offset(key: &str) -> Option<u64> {
    key.rsplit('/').next()?.parse().ok()
}

pub fn active(id: &str) -> String {
    format!("{ACTIVE}{id}")
}

pub fn group(name: &str) -> String {
    format!("{GROUPS}{}", hash(&[name]))
}

/// The key of what a trigger by releases has seen, which is known by the names that it waits for.
pub fn followed(pipeline: &str, names: &[String]) -> String {
    format!("pipelines/fired/{}", hash(&[pipeline, "release", &names.join("\n")]))
}

/// The key of what a schedule has begun, which is known by when it is due and what its runs are given: two that are due
/// alike and build different things are two.
pub fn scheduled(pipeline: &str, schedule: &Schedule) -> String {
    let mut parts = vec![pipeline, schedule.cron.text(), schedule.cron.zone()];
    let given = schedule.inputs.iter();
    parts.extend(given.flat_map(|(name, value)| [name.as_str(), value.as_str()]));
    format!("pipelines/fired/{}", hash(&parts))
}

/// Whether a text may be part of a key: what was made by [`kiln_net::id_at`].
pub fn is_id(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    !text.is_empty() && text.len() <= 32 && text.chars().all(plain)
}

/// Names of groups and schedules are hashed: anything may be in them.
fn hash(parts: &[&str]) -> String {
    let mut hash = blake3::Hasher::new_derive_key("kiln 2026 name of a record about a pipeline");
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().to_hex().chars().take(32).collect()
}
