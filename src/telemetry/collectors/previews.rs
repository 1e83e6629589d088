//! Environments that are brought up for runs of pipelines.

use std::fmt::Error;

use kiln_ci::ephemeral::PreviewCounts;

use super::families::Families;

pub fn encode(families: &mut Families<'_>, counts: PreviewCounts) -> Result<(), Error> {
    families.gauges(
        "kiln_previews",
        "Environments that were brought up for runs of pipelines, by their phase.",
        [
            ([("phase", "coming")], counts.coming),
            ([("phase", "up")], counts.up),
            ([("phase", "going")], counts.going),
        ],
    )?;
    families.gauge(
        "kiln_previews_stuck",
        "Environments that are still up and could not be taken down.",
        counts.stuck,
    )
}
