//! Forges: what they sent, and whether they are told.

use std::fmt::Error;

use kiln_ci::forges::ForgeFigures;

use super::families::Families;

pub fn encode(families: &mut Families<'_>, forges: &[ForgeFigures]) -> Result<(), Error> {
    let each = |of: fn(&ForgeFigures) -> [(&'static str, u64); 5]| {
        forges.iter().flat_map(move |it| {
            of(it).map(|(outcome, count)| {
                ([("forge", it.name.as_str()), ("outcome", outcome)], count)
            })
        })
    };
    families.counters(
        "kiln_forge_deliveries",
        "Webhooks of forges, by what came of them.",
        each(|it| {
            [
                ("asked", it.asked),
                ("known", it.known),
                ("ignored", it.ignored),
                ("refused", it.refused),
                ("failed", it.failed),
            ]
        }),
    )?;
    let told = forges.iter().flat_map(|it| {
        let forge = ("forge", it.name.as_str());
        [([forge, ("outcome", "taken")], it.told), ([forge, ("outcome", "refused")], it.untold)]
    });
    families.counters(
        "kiln_forge_notices",
        "Statuses and comments that forges were told, by whether they took them.",
        told,
    )?;
    families.gauges(
        "kiln_forge_failures",
        "Tries in a row that a forge did not take.",
        forges.iter().map(|it| ([("forge", it.name.as_str())], it.failures)),
    )
}
