//! Blobs and action results.

use std::fmt::Error;

use kiln_cas::stores::StorageSnapshot;

use super::families::Families;

pub fn encode(families: &mut Families<'_>, storage: &StorageSnapshot) -> Result<(), Error> {
    families.gauge("kiln_storage_blobs", "Blobs stored.", storage.blobs)?;
    families.gauge(
        "kiln_storage_used_bytes",
        "Bytes on disk for blobs, headers and dead space included.",
        storage.used_bytes,
    )?;
    families.gauge(
        "kiln_storage_reserved_bytes",
        "Bytes that writes in progress have set aside.",
        storage.reserved_bytes,
    )?;
    families.gauge(
        "kiln_storage_max_bytes",
        "Most bytes of blobs on disk (storage.max_size).",
        storage.max_bytes,
    )?;
    families.gauge(
        "kiln_storage_promised_bytes",
        "Bytes of blobs that must not be evicted, because clients were told that they are there.",
        storage.promised_bytes,
    )?;
    families.gauge(
        "kiln_storage_pinned_blobs",
        "Blobs that stay until somebody lets go of them, of the whole fleet.",
        storage.pinned_blobs,
    )?;
    families.gauge(
        "kiln_storage_pinned_bytes",
        "Bytes of blobs that stay until somebody lets go of them, of the whole fleet.",
        storage.pinned_bytes,
    )?;
    families.gauge(
        "kiln_storage_lost_pins",
        "Blobs that should have stayed and are gone.",
        storage.lost_pins,
    )?;
    families.counter(
        "kiln_storage_evicted_blobs",
        "Blobs evicted to make room.",
        storage.evicted_blobs_total,
    )?;
    families.counter(
        "kiln_storage_evicted_bytes",
        "Bytes of blobs evicted to make room.",
        storage.evicted_bytes_total,
    )?;
    families.counter(
        "kiln_storage_corrupt_blobs",
        "Blobs dropped because their bytes on disk had changed.",
        storage.corrupt_blobs_total,
    )?;
    families.counter(
        "kiln_storage_refused_writes",
        "Writes refused because everything stored was promised.",
        storage.refused_writes_total,
    )?;
    families.counter(
        "kiln_storage_cut_promises",
        "Blobs promised to builds that are over which made room before their lease ended.",
        storage.cut_blobs_total,
    )?;
    families.counter(
        "kiln_storage_cut_bytes",
        "Bytes promised to builds that are over which made room before their lease ended.",
        storage.cut_bytes_total,
    )?;
    families.gauge(
        "kiln_storage_wanted_bytes",
        "The storage.max_size with which every promise since the start would have been kept.",
        storage.wanted_bytes,
    )?;
    families.gauge(
        "kiln_storage_running_invocations",
        "Builds that run as far as the store knows: their promises are never cut short.",
        storage.running_invocations,
    )
}

pub fn encode_results(families: &mut Families<'_>, storage: &StorageSnapshot) -> Result<(), Error> {
    families.gauge("kiln_action_cache_entries", "Action results stored.", storage.actions)?;
    families.gauge(
        "kiln_action_cache_used_bytes",
        "Bytes on disk for action results.",
        storage.action_cache_used_bytes,
    )?;
    families.gauge(
        "kiln_action_cache_max_bytes",
        "Most bytes of action results on disk (storage.action_cache_max_size).",
        storage.action_cache_max_bytes,
    )?;
    families.counter(
        "kiln_action_cache_evicted_entries",
        "Action results evicted to make room.",
        storage.evicted_actions_total,
    )
}
