//! Keys of the records in which rollouts are kept.
//!
//! | key | what |
//! | --- | --- |
//! | `rollouts/run/{id}` | what is to be done: [`Rollout`](super::Rollout); never changes |
//! | `rollouts/targets/{id}/{part}` | its targets, in parts |
//! | `rollouts/head/{id}` | how long the log is, and a summary: each append expects the version that was read |
//! | `rollouts/log/{id}/{first}` | events that were appended together, by the number of the first |
//! | `rollouts/judgement/{id}/{length}` | what the judge said, and of what |
//! | `rollouts/latest/{id}` | what was measured last |
//! | `rollouts/active/{id}` | it is driven |
//! | `rollouts/place/{environment}/{service}` | the newest rollout there, and the last good release |
//! | `rollouts/lock/{environment}/{service}` | the deploy lock |
//! | `rollouts/bad/{environment}/{service}/{digest}` | why a release was reverted there, until a person rolls it out again |
//! | `rollouts/drill/{environment}/{service}/{which}` | the `last` drill there, and the last that `passed` |
//! | `rollouts/schedule/{environment}/{service}` | when drills begin there by themselves |
//! | `rollouts/lease` | which frontend drives |
//! | `rollouts/notice/{id}/{number}` | what is yet to be told |

use crate::rollouts::parts::Place;

pub const RUNS: &str = "rollouts/run/";
pub const ACTIVE: &str = "rollouts/active/";
pub const PLACES: &str = "rollouts/place/";
pub const LOCKS: &str = "rollouts/lock/";
pub const LEASE: &str = "rollouts/lease";
pub const SCHEDULES: &str = "rollouts/schedule/";
pub const NOTICES: &str = "rollouts/notice/";

pub fn run(id: &str) -> String {
    format!("{RUNS}{id}")
}

pub fn targets(id: &str) -> String {
    format!("rollouts/targets/{id}/")
}

pub fn part(id: &str, part: usize) -> String {
    format!("{}{part:06}", targets(id))
}

pub fn head(id: &str) -> String {
    format!("rollouts/head/{id}")
}

pub fn log(id: &str) -> String {
    format!("rollouts/log/{id}/")
}

pub fn events(id: &str, first: u64) -> String {
    format!("{}{first:012}", log(id))
}

pub fn judgements(id: &str) -> String {
    format!("rollouts/judgement/{id}/")
}

pub fn judgement(id: &str, length: u64) -> String {
    format!("{}{length:012}", judgements(id))
}

pub fn latest(id: &str) -> String {
    format!("rollouts/latest/{id}")
}

pub fn active(id: &str) -> String {
    format!("{ACTIVE}{id}")
}

pub fn place(place: &Place) -> String {
    format!("{PLACES}{}/{}", place.environment, place.service)
}

pub fn lock(place: &Place) -> String {
    format!("{LOCKS}{}/{}", place.environment, place.service)
}

pub fn notice(id: &str, number: u64) -> String {
    format!("{NOTICES}{id}/{number:012}")
}

pub fn bad(place: &Place, version: &str) -> String {
    format!("rollouts/bad/{}/{}/{version}", place.environment, place.service)
}

pub fn drill(place: &Place, which: &str) -> String {
    format!("rollouts/drill/{}/{}/{which}", place.environment, place.service)
}

pub fn schedule(place: &Place) -> String {
    format!("{SCHEDULES}{}/{}", place.environment, place.service)
}
