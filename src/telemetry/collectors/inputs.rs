//! The cache of input roots of the workers in this process.

use std::fmt::Error;

use kiln_executor::input_root::InputStats;

use super::families::Families;

pub fn encode(families: &mut Families<'_>, stats: &InputStats) -> Result<(), Error> {
    let figures = stats.figures();
    families.counters(
        "kiln_input_roots",
        "Input roots of actions: cached, or built because they were not there as a whole.",
        [([("from", "cached")], figures.hits), ([("from", "built")], figures.built)],
    )?;
    families.gauge(
        "kiln_input_cache_used_bytes",
        "On disk for cached input roots.",
        figures.bytes,
    )?;
    families.gauge(
        "kiln_input_cache_max_bytes",
        "Most bytes of cached input roots; those in use are kept beyond it.",
        figures.max_bytes,
    )?;
    families.gauge(
        "kiln_input_cache_entries",
        "Files, directories and symlinks of cached input roots.",
        figures.entries,
    )?;
    families.counter(
        "kiln_input_cache_evicted_trees",
        "Directory trees of input roots evicted to make room.",
        figures.evicted,
    )
}
