//! What a server needs to know to carry a rollout out.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::rollouts::machine::Limits;
use crate::toml::{Fields, TableError, time};

/// Keys of a declaration that are read here.
pub const KNOWN: [&str; 14] = [
    "service",
    "from",
    "labels",
    "traffic",
    "watch",
    "settle",
    "tries",
    "lost",
    "extensions",
    "rollback",
    "lock_retry",
    "drill_every",
    "drill_budget",
    "supersede",
];
/// Labels that select targets.
const MAX_LABELS: usize = 32;
/// The name of the source that targets come from, if nothing else is said.
pub const AGENTS: &str = "agents";

#[derive(Debug, Clone, PartialEq)]
pub struct Driving {
    /// The service that is rolled out: together with the environment it names what only one rollout at a time may
    /// change. Where the declaration does not say it, it is the declaration's own name.
    pub service: String,
    /// The source of the targets, by the name that the operator gives it.
    pub from: String,
    pub labels: BTreeMap<String, String>,
    /// The balancer that splits requests, by the name that the operator gives it; `None`: nothing splits them.
    pub traffic: Option<String>,
    /// How often signals are looked at for what needs no judge: limits, crashes.
    pub watch: Duration,
    pub limits: Limits,
    /// How old the last drill that passed may be; `None`: none is needed.
    pub drill_every: Option<Duration>,
    /// The time within which a drill has to be reverted.
    pub drill_budget: Duration,
    /// Whether a newer release takes the place of a rollout that runs there.
    pub supersede: bool,
}

pub fn read(top: &Fields<'_>, name: &str) -> Result<Driving, TableError> {
    let text = |key: &str, default: &str| match top.get(key) {
        None => Ok(default.to_owned()),
        Some(field) => field.text().map(str::to_owned),
    };
    let traffic = top.get("traffic").map(|field| field.text().map(str::to_owned)).transpose()?;
    let service = text("service", name)?;
    if !is_name(&service) {
        let wrong = "a service has 1 to 100 letters, digits, `-`, `_` and `.`";
        return Err(top
            .get("service")
            .or(top.get("name"))
            .map_or_else(|| top.error(wrong.to_owned()), |field| field.error(wrong)));
    }
    Ok(Driving {
        service,
        from: text("from", AGENTS)?,
        labels: labels(top)?,
        traffic,
        watch: time(top, "watch")?.unwrap_or(Duration::from_secs(15)).max(Duration::from_secs(1)),
        limits: limits(top)?,
        drill_every: time(top, "drill_every")?,
        drill_budget: time(top, "drill_budget")?.unwrap_or(Duration::from_secs(60)),
        supersede: top.get("supersede").map_or(Ok(false), |field| field.flag())?,
    })
}

/// What stands in keys of records and in addresses.
pub fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=100).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with('.')
}

fn labels(top: &Fields<'_>) -> Result<BTreeMap<String, String>, TableError> {
    let Some(field) = top.get("labels") else { return Ok(BTreeMap::new()) };
    let entries = field.fields()?.entries(MAX_LABELS)?;
    entries.into_iter().map(|(name, value)| Ok((name, value.text()?.to_owned()))).collect()
}

fn limits(top: &Fields<'_>) -> Result<Limits, TableError> {
    let millis = |key: &str, default: u64| -> Result<u64, TableError> {
        let read = time(top, key)?.map(|it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX));
        Ok(read.unwrap_or(default))
    };
    let number = |key: &str, default: u64, range: std::ops::RangeInclusive<u64>| {
        top.get(key).map_or(Ok(default), |field| field.number(range))
    };
    Ok(Limits {
        settle: millis("settle", 120_000)?.max(1_000),
        tries: u32::try_from(number("tries", 3, 1..=100)?).unwrap_or(3),
        lost: usize::try_from(number("lost", 0, 0..=100_000)?).unwrap_or(0),
        extensions: u32::try_from(number("extensions", 3, 0..=1_000)?).unwrap_or(3),
        rollback: millis("rollback", 600_000)?.max(1_000),
        lock_retry: millis("lock_retry", 5_000)?.max(1_000),
    })
}
