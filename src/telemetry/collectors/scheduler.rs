//! Queue, workers and what became of operations.

use std::collections::HashSet;
use std::fmt::Error;

use kiln_scheduler::Snapshot;
use kiln_scheduler::snapshot::PropertySetView;

use super::families::Families;

/// Sets of platform properties with series of their own; the rest are one, named `other`.
const MAX_PROPERTY_SETS: usize = 20;
/// Longest label made of properties, in bytes.
const MAX_LABEL: usize = 200;
const OTHER: &str = "other";
const MILLIS: f64 = 1e3;

/// `names_all`: whether properties that no worker offers, which are clients' words alone, are named.
pub fn encode(
    families: &mut Families<'_>,
    snapshot: &Snapshot,
    names_all: bool,
) -> Result<(), Error> {
    queue(families, snapshot)?;
    let offered: HashSet<&(String, String)> =
        snapshot.workers.iter().flat_map(|worker| &worker.properties).collect();
    let is_named = |set: &PropertySetView| {
        names_all || set.properties.iter().all(|property| offered.contains(property))
    };
    property_sets(families, &bounded(&snapshot.property_sets, is_named))?;
    workers(families, snapshot)?;
    events(families, snapshot)
}

fn queue(families: &mut Families<'_>, snapshot: &Snapshot) -> Result<(), Error> {
    families.gauge(
        "kiln_queue_depth",
        "Operations that wait for a worker.",
        snapshot.queue_depth as u64,
    )?;
    families.gauge(
        "kiln_queue_oldest_seconds",
        "How long the oldest operation in the queue has waited; 0 when none waits.",
        snapshot.oldest_queued_ms.unwrap_or(0) as f64 / MILLIS,
    )?;
    families.gauge(
        "kiln_operations_running",
        "Operations that occupy a slot.",
        snapshot.running_count as u64,
    )?;
    families.gauge(
        "kiln_slots_wanted",
        "Slots that would be busy if there were enough: operations that run or wait.",
        (snapshot.queue_depth + snapshot.running_count) as u64,
    )?;
    families.gauge(
        "kiln_scheduler_draining",
        "1 while the server takes no new operations because it is ending.",
        u64::from(snapshot.draining),
    )
}

/// Figures of one or more sets of properties.
#[derive(Debug, Default, PartialEq, Eq)]
struct Figures {
    properties: String,
    queued: u64,
    running: u64,
    wanted: u64,
    unserved: u64,
}

fn property_sets(families: &mut Families<'_>, sets: &[Figures]) -> Result<(), Error> {
    let series = |value: fn(&Figures) -> u64| {
        sets.iter().map(move |set| ([("properties", set.properties.as_str())], value(set)))
    };
    families.gauges(
        "kiln_property_set_queue_depth",
        "Operations that wait, by the platform properties that they require.",
        series(|set| set.queued),
    )?;
    families.gauges(
        "kiln_property_set_running",
        "Operations that occupy a slot, by the platform properties that they require.",
        series(|set| set.running),
    )?;
    families.gauges(
        "kiln_property_set_slots_wanted",
        "Slots that would be busy if there were enough, by required platform properties.",
        series(|set| set.wanted),
    )?;
    families.gauges(
        "kiln_property_set_unserved",
        "Sets of platform properties that operations wait for and no worker offers.",
        series(|set| set.unserved),
    )
}

/// The sets that want most slots, of those that may be named, and all others as one. No label twice.
fn bounded(sets: &[PropertySetView], is_named: impl Fn(&PropertySetView) -> bool) -> Vec<Figures> {
    let mut figures: Vec<Figures> = sets
        .iter()
        .map(|set| Figures {
            properties: if is_named(set) { label(&set.properties) } else { OTHER.to_owned() },
            queued: set.queued as u64,
            running: set.running as u64,
            wanted: set.slots_wanted as u64,
            unserved: u64::from(set.waits_in_vain()),
        })
        .collect();
    figures.sort_by(|a, b| (b.wanted, &a.properties).cmp(&(a.wanted, &b.properties)));
    let mut kept: Vec<Figures> = Vec::new();
    let mut other = Figures { properties: OTHER.to_owned(), ..Figures::default() };
    for set in figures {
        // Labels that were cut may have become the same.
        let taken = kept.iter().any(|one| one.properties == set.properties);
        if kept.len() < MAX_PROPERTY_SETS && !taken && set.properties != OTHER {
            kept.push(set);
        } else {
            other.queued += set.queued;
            other.running += set.running;
            other.wanted += set.wanted;
            other.unserved += set.unserved;
        }
    }
    if kept.len() < sets.len() {
        kept.push(other);
    }
    kept
}

/// `name=value,name=value`, cut where it is too long.
fn label(properties: &[(String, String)]) -> String {
    let pairs: Vec<String> =
        properties.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut label = pairs.join(",");
    label.truncate(label.floor_char_boundary(MAX_LABEL));
    label
}

fn workers(families: &mut Families<'_>, snapshot: &Snapshot) -> Result<(), Error> {
    let (mut active, mut paused, mut draining) = (0_u64, 0, 0);
    for worker in &snapshot.workers {
        *match (worker.draining, &worker.paused) {
            (true, _) => &mut draining,
            (false, Some(_)) => &mut paused,
            (false, None) => &mut active,
        } += 1;
    }
    families.gauges(
        "kiln_workers",
        "Workers that are connected, by whether they take new operations.",
        [
            ([("state", "active")], active),
            ([("state", "paused")], paused),
            ([("state", "draining")], draining),
        ],
    )?;
    families.gauge(
        "kiln_workers_not_enforcing",
        "Workers whose machine cannot enforce everything that a sandbox promises.",
        snapshot.workers.iter().filter(|worker| !worker.not_enforced.is_empty()).count() as u64,
    )?;
    families.gauge("kiln_slots", "Slots of all connected workers.", snapshot.slots)?;
    families.gauge(
        "kiln_slots_occupied",
        "Slots of all connected workers that are busy.",
        snapshot.workers.iter().map(|worker| u64::from(worker.occupied)).sum::<u64>(),
    )
}

fn events(families: &mut Families<'_>, snapshot: &Snapshot) -> Result<(), Error> {
    let counters = &snapshot.counters;
    let events = [
        ("submitted", counters.submitted),
        ("merged", counters.merged),
        ("refused", counters.refused),
        ("dispatched", counters.dispatched),
        ("published", counters.published),
        ("cancelled", counters.cancelled),
        ("abandoned", counters.abandoned),
        ("unsatisfiable", counters.unsatisfiable),
        ("retries_exhausted", counters.retries_exhausted),
        ("poisoned", counters.poisoned),
        ("retried", counters.retries),
        ("worker_joined", counters.workers_joined),
        ("worker_lost", counters.workers_lost),
        ("lease_expired", counters.leases_expired),
        ("stale_result", counters.stale_results),
        ("returned", counters.returned),
        ("lease_refused", counters.leases_refused),
    ];
    families.counters(
        "kiln_scheduler_events",
        "What happened in the scheduler.",
        events.map(|(event, count)| ([("event", event)], count)),
    )?;
    let completed = snapshot.completed.iter().map(|(code, count)| {
        let code = if code == "Ok" { "OK" } else { code.as_str() };
        ([("code", code)], *count)
    });
    families.counters(
        "kiln_operations_completed",
        "Operations that ended, by gRPC code; a non-zero exit code is OK.",
        completed,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(value: &str, wanted: usize) -> PropertySetView {
        PropertySetView {
            properties: vec![("pool".into(), value.into())],
            queued: wanted,
            running: 0,
            slots_wanted: wanted,
            served: true,
        }
    }

    #[test]
    fn however_many_sets_there_are_the_series_are_few_and_add_up() {
        let sets: Vec<_> = (0..100).map(|number| set(&number.to_string(), number)).collect();
        let kept = bounded(&sets, |_| true);
        assert_eq!(kept.len(), MAX_PROPERTY_SETS + 1);
        assert_eq!(kept[0].properties, "pool=99");
        assert_eq!(kept.last().unwrap().properties, OTHER);
        assert_eq!(kept.iter().map(|set| set.wanted).sum::<u64>(), (0..100).sum::<u64>());
    }

    #[test]
    fn no_label_stands_twice() {
        let long = "x".repeat(2 * MAX_LABEL);
        let kept = bounded(&[set(&format!("{long}1"), 1), set(&format!("{long}2"), 2)], |_| true);
        assert_eq!(kept.len(), 2);
        assert_eq!(kept[1].properties, OTHER);
        let other = PropertySetView { properties: vec![], ..set("", 1) };
        assert_eq!(bounded(&[other], |_| true)[0].properties, "");
    }

    #[test]
    fn what_nobody_waits_for_lacks_no_worker() {
        let unserved = |queued| PropertySetView { served: false, queued, ..set("gpu", 1) };
        let figures = |queued| bounded(&[unserved(queued)], |_| true)[0].unserved;
        assert_eq!((figures(1), figures(0)), (1, 0));
        assert_eq!(bounded(&[set("big", 1)], |_| true)[0].unserved, 0);
    }

    #[test]
    fn what_may_not_be_named_counts_with_the_others() {
        let sets = [set("big", 2), set("password", 3)];
        let kept = bounded(&sets, |set| set.properties[0].1 == "big");
        let shown: Vec<_> = kept.iter().map(|set| (&*set.properties, set.wanted)).collect();
        assert_eq!(shown, [("pool=big", 2), (OTHER, 3)]);
    }
}
