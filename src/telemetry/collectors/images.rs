//! Container images of the workers in this process.

use std::fmt::Error;

use kiln_executor::images::ImageStats;

use super::families::Families;

pub fn encode(families: &mut Families<'_>, stats: &ImageStats) -> Result<(), Error> {
    let figures = stats.figures();
    families.counters(
        "kiln_image_pulls",
        "Pulls of container images, by how they ended.",
        [
            ("pulled", figures.pulled),
            ("refused", figures.refused),
            ("failed", figures.failed),
            ("cancelled", figures.cancelled),
        ]
        .map(|(outcome, count)| ([("outcome", outcome)], count)),
    )?;
    families.counter(
        "kiln_image_pull_seconds",
        "Time that pulls took, unpacking included.",
        figures.pull_time.as_secs_f64(),
    )?;
    families.counter(
        "kiln_image_pulled_bytes",
        "Layers of pulled images, compressed.",
        figures.fetched_bytes,
    )?;
    families.counter(
        "kiln_image_hits",
        "Actions whose container image was there already.",
        figures.hits,
    )?;
    families.gauge("kiln_images", "Unpacked container images.", figures.stored as i64)?;
    families.gauge(
        "kiln_image_used_bytes",
        "On disk for unpacked container images.",
        figures.stored_bytes as i64,
    )
}
