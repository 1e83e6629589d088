//! DORA's four figures, of promotions and of rollouts.

use std::collections::BTreeSet;
use std::fmt::Error;

use kiln_deploy::deployments::{Four, Fours, Times};
use prometheus_client::encoding::NoLabelSet;
use prometheus_client::metrics::MetricType;

use super::families::Families;

/// An environment, and how a release came there.
type Labels<'a> = [(&'static str, &'a str); 2];

pub fn encode(
    families: &mut Families<'_>,
    promotions: &Fours,
    rollouts: &Fours,
) -> Result<(), Error> {
    let all = labelled(promotions, rollouts);
    let counted = |of: fn(&Four) -> u64| all.iter().map(move |(labels, four)| (*labels, of(four)));
    families.counters(
        "kiln_deployments",
        "Releases that came to an environment, whether or not they stayed.",
        counted(|four| four.changes),
    )?;
    families.counters(
        "kiln_deployment_failures",
        "Releases that came to an environment and were reverted because they were bad.",
        counted(|four| four.failures),
    )?;
    times(
        families,
        "kiln_deployment_lead_time_seconds",
        "From when a release was made until it had come to an environment.",
        all.iter().map(|(labels, four)| (*labels, four.lead)),
    )?;
    times(
        families,
        "kiln_deployment_restore_time_seconds",
        "From when a bad release began to come to an environment until what was before was back.",
        all.iter().map(|(labels, four)| (*labels, four.restore)),
    )
}

/// Every environment that either knows, with both ways to come there.
fn labelled<'a>(promotions: &'a Fours, rollouts: &'a Fours) -> Vec<(Labels<'a>, Four)> {
    let names: BTreeSet<&String> = promotions.keys().chain(rollouts.keys()).collect();
    let mut all = Vec::with_capacity(2 * names.len());
    for name in names {
        for (how, of) in [("promotion", promotions), ("rollout", rollouts)] {
            let four = of.get(name).copied().unwrap_or_default();
            all.push(([("environment", name.as_str()), ("how", how)], four));
        }
    }
    all
}

fn times<'a>(
    families: &mut Families<'_>,
    name: &str,
    help: &str,
    values: impl Iterator<Item = (Labels<'a>, Times)>,
) -> Result<(), Error> {
    let mut family = families.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (labels, times) in values {
        family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(
            times.seconds(),
            times.count(),
            &times.buckets(),
            None,
        )?;
    }
    Ok(())
}
