//! Agents as the targets of a rollout.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;

use super::Fleet;
use super::condition::Condition;
use super::error::FleetError;
use super::limits::MAX_AGENTS;
use super::listing::{Filter, Listed};
use crate::agent;
use crate::rollouts::parts::{
    Health, Observation, Order, PartError, Place, Selector, Target, Targets, Told,
};

/// Up to so many agents are looked up one by one; more are found by listing all of their place.
const FEW: usize = 16;

fn of_place(place: &Place) -> Filter {
    Filter {
        service: Some(place.service.clone()),
        environment: Some(place.environment.clone()),
        condition: None,
    }
}

/// What a rollout is told of an agent. One that is silent is not observed; nor is one that says what cannot be: what it
/// claims would end a rollout, or blame its release.
fn observation(listed: Listed) -> Option<Observation> {
    let Listed { agent, condition, order, .. } = listed;
    if matches!(condition, Condition::Silent | Condition::Untruthful) {
        return None;
    }
    let status = agent.status;
    let health = match (condition, status.health) {
        (Condition::Flapping, _) => {
            Health::Unwell("it turns from well to unwell and back, again and again".to_owned())
        }
        (_, agent::Health::Well) => Health::Well,
        (_, agent::Health::Unwell(why)) => Health::Unwell(why),
        (_, agent::Health::Unknown) => Health::Unknown,
    };
    Some(Observation {
        version: status.running,
        // What nobody wrote down was told by nobody, whatever it says that it obeys.
        generation: status.settled.min(order.map(|it| it.generation).unwrap_or_default()),
        health,
        seen: agent.heard,
        crashes: status.crashes,
        failed: status.failed,
    })
}

#[async_trait]
impl Targets for Fleet {
    async fn list(&self, selector: &Selector) -> Result<Vec<Target>, PartError> {
        let all = self.list_agents(&of_place(&selector.place), None, MAX_AGENTS as usize).await?;
        let labels = &selector.labels;
        let fits = |it: &Listed| {
            labels.iter().all(|(name, value)| it.agent.labels.get(name) == Some(value))
        };
        let target = |it: Listed| Target {
            name: it.name,
            address: it.agent.address,
            labels: it.agent.labels,
        };
        Ok(all.into_iter().filter(fits).map(target).collect())
    }

    async fn tell(&self, target: &str, order: &Order) -> Result<Told, PartError> {
        Ok(self.tell_agent(target, order).await?)
    }

    async fn observe(
        &self,
        place: &Place,
        targets: &[String],
    ) -> Result<Vec<Option<Observation>>, PartError> {
        let mut found: HashMap<String, Listed> = HashMap::new();
        if targets.len() <= FEW {
            for name in targets {
                let listed = match self.show_agent(place, name).await {
                    Err(FleetError::Unknown { .. }) => None,
                    // One that cannot be read is as one that is silent: the others are observed.
                    listed => self.store.readable(listed)?,
                };
                found.extend(listed.map(|it| (name.clone(), it)));
            }
        } else {
            let wanted: HashSet<_> = targets.iter().collect();
            let all = self.list_agents(&of_place(place), None, MAX_AGENTS as usize).await?;
            let asked = all.into_iter().filter(|it| wanted.contains(&it.name));
            found.extend(asked.map(|it| (it.name.clone(), it)));
        }
        Ok(targets.iter().map(|name| found.remove(name).and_then(observation)).collect())
    }
}
