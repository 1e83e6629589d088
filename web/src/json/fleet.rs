//! What agents and their servers say to each other, and what is shown of agents. Times are RFC 3339 in UTC. Either may
//! be the newer one: what an agent says that is not known here is left out.

use std::collections::BTreeMap;

use kiln_deploy::agent::{Health, Order, Report, Speaker, Status};
use kiln_deploy::fleet::{KeptOrder, Listed};
use kiln_deploy::oci::{ContentDigest, DigestError};
use kiln_deploy::rollouts::machine::Generation;
use kiln_deploy::rollouts::parts::Place;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rfc3339;

/// How new an order is: `fence` is the token of the deploy lock under which it was given, and `change` counts what the
/// rollout changed. Later orders compare greater, `fence` first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FleetGeneration {
    pub fence: u64,
    pub change: u64,
}

/// Which agent speaks: its service, environment and name.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentSpeaker {
    pub service: String,
    pub environment: String,
    pub name: String,
    /// A random text that was made with the agent's directory: two hosts of one name differ in it.
    pub identity: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentHealth {
    /// The state of the service on this host: `well`, `unwell` or `unknown`.
    pub state: String,
    /// Why the service is unwell, in words; null: it is not, or nobody says.
    #[serde(default)]
    pub why: Option<String>,
}

/// What `POST /api/v1/fleet/agent/report` is given: what runs at an agent, and how it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentReport {
    pub from: AgentSpeaker,
    /// `host:port` under which the service is reached.
    #[serde(default)]
    pub address: Option<String>,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The version of the agent itself.
    pub software: String,
    /// The digest of the version that really runs; null: none does.
    pub running: Option<String>,
    pub previous: Option<String>,
    /// The newest order that was accepted, and the newest that was carried out or given up.
    pub accepted: FleetGeneration,
    pub settled: FleetGeneration,
    pub failed: Option<String>,
    pub health: AgentHealth,
    pub crashes: u64,
    pub free_bytes: u64,
}

/// What a report is answered with.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentHeard {
    /// Seconds within which the agent's next report is expected.
    pub heartbeat_s: u64,
}

/// What `POST /api/v1/fleet/agent/order` is given: an agent asks what it is to run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentQuestion {
    pub from: AgentSpeaker,
    /// The answer is one with another generation, or none after `wait_s` seconds.
    pub known: FleetGeneration,
    pub wait_s: u64,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentAnswer {
    pub order: Option<AgentOrder>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentOrder {
    /// The digest of the release's manifest, which names the version to run.
    pub version: String,
    pub generation: FleetGeneration,
}

/// What `POST /api/v1/fleet/agent/content`, `/blob` and `/pieces` are given: which content of a version an agent
/// fetches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentFetch {
    pub from: AgentSpeaker,
    /// The version that the agent was told to run.
    pub version: String,
    /// The digest of a blob of this version; only for `/blob`.
    #[serde(default)]
    pub blob: Option<String>,
    /// How many of the blob's first bytes are left out.
    #[serde(default)]
    pub start: u64,
    /// How many bytes are wanted; null: all that follow.
    #[serde(default)]
    pub length: Option<u64>,
}

/// `POST /api/v1/fleet/tell`: what an agent is to run from now on, whatever a rollout has said before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FleetTelling {
    pub service: String,
    pub environment: String,
    pub name: String,
    /// The release that the agent is to run, such as `team/app:1.4.2`.
    pub release: String,
    pub reason: String,
}

/// What `POST /api/v1/fleet/remove` is given: the agent that is forgotten.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FleetRemoval {
    pub service: String,
    pub environment: String,
    pub name: String,
}

/// The order that an agent was given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FleetOrder {
    pub version: String,
    /// The names of releases that have this version; empty: none of them is here.
    pub releases: Vec<String>,
    pub generation: FleetGeneration,
    /// The rollout that says so, or the person.
    pub by: String,
    pub at: Option<String>,
}

/// An agent as it is shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FleetAgent {
    pub service: String,
    pub environment: String,
    pub name: String,
    /// `silent`, `untruthful`, `drifted`, `failed`, `behind`, `flapping`, `unwell`, `unassigned` or `well`.
    pub condition: String,
    pub address: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub software: String,
    /// Whose credentials registered the agent; empty: it was registered while nobody was asked who calls.
    pub account: String,
    pub registered: Option<String>,
    pub heard: Option<String>,
    /// Digest of what really runs, what releases are called that are this, and since when.
    pub running: Option<String>,
    pub releases: Vec<String>,
    pub since: Option<String>,
    pub previous: Option<String>,
    pub told: Option<FleetOrder>,
    pub settled: FleetGeneration,
    pub failed: Option<String>,
    pub health: AgentHealth,
    pub crashes: u64,
    pub free_bytes: u64,
}

/// What `GET /api/v1/fleet` answers: agents, and what is known of each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FleetAgents {
    pub agents: Vec<FleetAgent>,
    /// The value of `after` that asks for the next page; `null` on the last one.
    pub next_after: Option<String>,
}

impl From<Generation> for FleetGeneration {
    fn from(Generation { fence, change }: Generation) -> Self {
        Self { fence, change }
    }
}

impl From<FleetGeneration> for Generation {
    fn from(FleetGeneration { fence, change }: FleetGeneration) -> Self {
        Self { fence, change }
    }
}

impl From<&Speaker> for AgentSpeaker {
    fn from(speaker: &Speaker) -> Self {
        Self {
            service: speaker.place.service.clone(),
            environment: speaker.place.environment.clone(),
            name: speaker.name.clone(),
            identity: speaker.identity.clone(),
        }
    }
}

impl From<AgentSpeaker> for Speaker {
    fn from(it: AgentSpeaker) -> Self {
        let place = Place { service: it.service, environment: it.environment };
        Self { place, name: it.name, identity: it.identity }
    }
}

impl From<&Health> for AgentHealth {
    fn from(health: &Health) -> Self {
        let (state, why) = match health {
            Health::Well => ("well", None),
            Health::Unwell(why) => ("unwell", Some(why.clone())),
            Health::Unknown => ("unknown", None),
        };
        Self { state: state.to_owned(), why }
    }
}

impl From<AgentHealth> for Health {
    /// A state that nobody here knows says nothing.
    fn from(health: AgentHealth) -> Self {
        match health.state.as_str() {
            "well" => Self::Well,
            "unwell" => Self::Unwell(health.why.unwrap_or_default()),
            _ => Self::Unknown,
        }
    }
}

impl From<&Report> for AgentReport {
    fn from(report: &Report) -> Self {
        let Report { from, address, labels, software, status } = report;
        let text = |it: &Option<ContentDigest>| it.as_ref().map(ToString::to_string);
        Self {
            from: from.into(),
            address: address.clone(),
            labels: labels.clone(),
            software: software.clone(),
            running: text(&status.running),
            previous: text(&status.previous),
            accepted: status.accepted.into(),
            settled: status.settled.into(),
            failed: status.failed.clone(),
            health: (&status.health).into(),
            crashes: status.crashes,
            free_bytes: status.free,
        }
    }
}

impl TryFrom<AgentReport> for Report {
    type Error = DigestError;

    fn try_from(it: AgentReport) -> Result<Self, DigestError> {
        let digest = |it: Option<String>| it.map(|it| it.parse::<ContentDigest>()).transpose();
        let status = Status {
            running: digest(it.running)?,
            previous: digest(it.previous)?,
            accepted: it.accepted.into(),
            settled: it.settled.into(),
            failed: it.failed,
            health: it.health.into(),
            crashes: it.crashes,
            free: it.free_bytes,
        };
        let (address, labels, software) = (it.address, it.labels, it.software);
        Ok(Self { from: it.from.into(), address, labels, software, status })
    }
}

impl From<&KeptOrder> for AgentOrder {
    fn from(order: &KeptOrder) -> Self {
        Self { version: order.version.to_string(), generation: order.generation.into() }
    }
}

impl TryFrom<AgentOrder> for Order {
    type Error = DigestError;

    fn try_from(it: AgentOrder) -> Result<Self, DigestError> {
        Ok(Self { version: it.version.parse()?, generation: it.generation.into() })
    }
}

/// A time as RFC 3339, of Unix milliseconds; `None`: it is 0, or no date can be so late.
fn time(at: u64) -> Option<String> {
    rfc3339(i64::try_from(at).ok()?.checked_mul(1_000_000)?)
}

impl FleetAgent {
    /// `releases`: what they are called that are a version.
    pub fn new(it: &Listed, releases: &dyn Fn(&ContentDigest) -> Vec<String>) -> Self {
        let (agent, status) = (&it.agent, &it.agent.status);
        let told = it.order.as_ref().map(|order| FleetOrder {
            version: order.version.to_string(),
            releases: releases(&order.version),
            generation: order.generation.into(),
            by: order.by.clone(),
            at: time(order.at),
        });
        Self {
            service: it.place.service.clone(),
            environment: it.place.environment.clone(),
            name: it.name.clone(),
            condition: it.condition.name().to_owned(),
            address: agent.address.clone(),
            labels: agent.labels.clone(),
            software: agent.software.clone(),
            account: agent.account.clone(),
            registered: time(agent.registered),
            heard: time(agent.heard),
            running: status.running.as_ref().map(ToString::to_string),
            releases: status.running.as_ref().map(releases).unwrap_or_default(),
            since: time(agent.since),
            previous: status.previous.as_ref().map(ToString::to_string),
            told,
            settled: status.settled.into(),
            failed: status.failed.clone(),
            health: (&status.health).into(),
            crashes: status.crashes,
            free_bytes: status.free,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_newer_agent_says_besides_is_left_out() {
        let mut said = serde_json::to_value(AgentReport::default()).unwrap();
        for place in ["", "/from", "/accepted", "/health"] {
            let place = said.pointer_mut(place).unwrap();
            place["new"] = true.into();
        }
        let read: AgentReport = serde_json::from_value(said).unwrap();
        assert_eq!(read, AgentReport::default());
    }
}
