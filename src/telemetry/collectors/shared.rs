//! Metrics of what this process does with the stores that a fleet shares: Redis, S3, and the blobs
//! in them.

use std::fmt::Error;

use kiln_cas::redis::RedisStats;
use kiln_cas::stores::SharedSnapshot;
use kiln_cas::stores::indexed::IndexedStats;
use kiln_cas::stores::s3::{S3_METHODS, S3_OUTCOMES, S3Stats};

use super::families::Families;
use crate::telemetry::redis::RedisTimes;

pub fn encode(
    families: &mut Families<'_>,
    shared: &SharedSnapshot,
    times: &RedisTimes,
) -> Result<(), Error> {
    redis(families, &shared.redis, times)?;
    s3(families, &shared.s3)?;
    blobs(families, &shared.blobs)?;
    upkeep(families, &shared.blobs)
}

fn redis(families: &mut Families<'_>, stats: &RedisStats, times: &RedisTimes) -> Result<(), Error> {
    families.counter(
        "kiln_redis_round_trips",
        "Pipelines of calls that were sent to Redis.",
        stats.round_trips,
    )?;
    families.counter("kiln_redis_calls", "Scripts and commands in them.", times.calls())?;
    families.counter(
        "kiln_redis_unanswered",
        "Pipelines that Redis did not answer in time.",
        times.failed(),
    )?;
    families.histogram(
        "kiln_redis_duration_seconds",
        "From sending a pipeline to its answer.",
        times.durations(),
    )?;
    families.counter(
        "kiln_redis_connections",
        "Connections to Redis that were made, subscriptions left aside.",
        stats.connections,
    )?;
    families.counter(
        "kiln_redis_changes",
        "Connections to a Redis process that was not known: the first, a restart, a failover.",
        stats.changes,
    )
}

fn s3(families: &mut Families<'_>, stats: &S3Stats) -> Result<(), Error> {
    let sent = S3_METHODS.iter().zip(stats.sent);
    families.counters(
        "kiln_s3_requests",
        "Requests to S3, repetitions included, by method.",
        sent.map(|(method, count)| ([("method", *method)], count)),
    )?;
    let ended = S3_OUTCOMES.iter().zip(stats.ended);
    families.counters(
        "kiln_s3_answers",
        "What became of requests to S3, repetitions included.",
        ended.map(|((_, outcome), count)| ([("outcome", *outcome)], count)),
    )
}

fn blobs(families: &mut Families<'_>, blobs: &IndexedStats) -> Result<(), Error> {
    families.gauge(
        "kiln_shared_pending_blobs",
        "Small blobs that this process is still to write to S3.",
        blobs.pending_blobs,
    )?;
    families.gauge("kiln_shared_pending_bytes", "Their bytes.", blobs.pending_bytes)?;
    families.gauge(
        "kiln_shared_used_bytes",
        "Bytes of all blobs in S3 as last counted; 0 without s3.max_size.",
        blobs.used_bytes,
    )?;
    families.gauge(
        "kiln_shared_max_bytes",
        "Most bytes of all blobs in S3 (s3.max_size); 0: no limit.",
        blobs.max_bytes,
    )?;
    families.gauge(
        "kiln_shared_index_incomplete",
        "1 while blobs are in S3 that the index does not know: kiln index rebuild.",
        u64::from(blobs.index_incomplete),
    )
}

fn upkeep(families: &mut Families<'_>, blobs: &IndexedStats) -> Result<(), Error> {
    for (name, help, value) in [
        (
            "kiln_shared_evicted_blobs",
            "Blobs that this process deleted from S3 as garbage.",
            blobs.evicted_blobs_total,
        ),
        ("kiln_shared_evicted_bytes", "Their bytes.", blobs.evicted_bytes_total),
        (
            "kiln_shared_cut_short_blobs",
            "Of these, blobs whose promise was cut short: it was made to a build that is over.",
            blobs.cut_short_blobs_total,
        ),
        ("kiln_shared_cut_short_bytes", "Their bytes.", blobs.cut_short_bytes_total),
        (
            "kiln_shared_orphans",
            "Objects that this process deleted because no blob is in them.",
            blobs.orphans_total,
        ),
        (
            "kiln_shared_healed_blobs",
            "Blobs that the index did not know and a reader found in S3 (read repair).",
            blobs.repaired_blobs_total,
        ),
        (
            "kiln_shared_adopted_blobs",
            "Small blobs taken over from processes that are gone.",
            blobs.adopted_blobs_total,
        ),
        (
            "kiln_shared_refused_writes",
            "Writes refused because everything in S3 was promised.",
            blobs.refused_writes_total,
        ),
    ] {
        families.counter(name, help, value)?;
    }
    Ok(())
}
