//! Metrics of the agents of a fleet.

use std::fmt::Error;
use std::sync::atomic::Ordering;

use kiln_deploy::fleet::Condition;

use super::families::Families;
use crate::telemetry::observed::AgentCounts;

pub fn encode(families: &mut Families<'_>, agents: &AgentCounts) -> Result<(), Error> {
    let of = |(condition, name): (Condition, &'static str)| {
        ([("condition", name)], agents.conditions.get(&condition).copied().unwrap_or(0))
    };
    families.gauges(
        "kiln_agents",
        "Agents of hosts by how they are, as they were counted within the last minute.",
        Condition::ALL.map(of),
    )?;
    families.counter(
        "kiln_agent_content_bytes",
        "Bytes of releases that agents were given.",
        agents.given.load(Ordering::Relaxed),
    )
}
