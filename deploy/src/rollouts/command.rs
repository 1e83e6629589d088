//! Targets that a program of the operator drives. It is given one JSON document and prints another:
//!
//! - `{"do":"list","place":{"service":"api","environment":"prod"},"labels":{}}` ->
//!   `[{"name":"api-1","address":"10.0.0.1:80","labels":{}}]`;
//! - `{"do":"tell","target":"api-1","place":{..},"version":"sha256:..","generation":{"fence":1,"change":2},
//!   "rollout":".."}` -> `{"told":"accepted"}`, or `{"stale":{"fence":2,"change":0}}` if it obeys this newer generation;
//! - `{"do":"observe","place":{..},"targets":["api-1"]}` -> for each of them in the same order `null` (it is not heard), or
//!   `{"version":"sha256:..","generation":{..},"healthy":true}`, with `why` where it is not well, `crashes`, and `failed`
//!   where it did not do what it was told.

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::machine::{Generation, Millis};
use super::parts::{
    Health, MAX_TARGETS, Observation, Order, PartError, Place, Selector, Target, Targets, Told,
};
use crate::oci::ContentDigest;
use crate::programs::{Program, program};
use crate::toml::{Fields, TableError};

pub struct Command(Program);

#[derive(Serialize)]
#[serde(tag = "do", rename_all = "lowercase")]
enum Request<'a> {
    List {
        place: &'a Place,
        labels: &'a BTreeMap<String, String>,
    },
    Tell {
        target: &'a str,
        place: &'a Place,
        version: String,
        generation: Generation,
        rollout: &'a str,
    },
    Observe {
        place: &'a Place,
        targets: &'a [String],
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    name: String,
    #[serde(default)]
    address: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum OrderAnswer {
    Told(Accepted),
    Stale(Generation),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Accepted {
    Accepted,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    generation: Generation,
    #[serde(default)]
    healthy: Option<bool>,
    #[serde(default)]
    why: String,
    #[serde(default)]
    seen: Millis,
    #[serde(default)]
    crashes: u64,
    #[serde(default)]
    failed: Option<String>,
}

impl Command {
    /// `[targets.NAME]` of the file of a server's parts.
    pub fn read(fields: &Fields<'_>) -> Result<Self, TableError> {
        fields.only(&["kind", "command", "timeout_s"])?;
        let kind = fields.need("kind")?;
        match kind.text()? {
            "command" => Ok(Self(program(&fields.need("command")?, fields)?)),
            _ => Err(kind.error("expected command; agents are there without being named")),
        }
    }

    async fn ask<T: for<'de> Deserialize<'de>>(&self, asked: &Request<'_>) -> Result<T, PartError> {
        let answer = self.0.ask(&serde_json::to_vec(asked)?).await?;
        Ok(serde_json::from_slice(&answer)?)
    }
}

fn observation(seen: Seen) -> Result<Observation, PartError> {
    Ok(Observation {
        version: seen.version.map(|it| it.parse::<ContentDigest>()).transpose()?,
        generation: seen.generation,
        health: match seen.healthy {
            Some(true) => Health::Well,
            Some(false) => Health::Unwell(seen.why),
            None => Health::Unknown,
        },
        seen: seen.seen,
        crashes: seen.crashes,
        failed: seen.failed,
    })
}

#[async_trait]
impl Targets for Command {
    async fn list(&self, selector: &Selector) -> Result<Vec<Target>, PartError> {
        let Selector { place, labels } = selector;
        let listed: Vec<Listed> = self.ask(&Request::List { place, labels }).await?;
        if listed.len() > MAX_TARGETS {
            return Err(format!("it lists more than {MAX_TARGETS} targets").into());
        }
        let target = |it: Listed| Target { name: it.name, address: it.address, labels: it.labels };
        let mut targets: Vec<Target> = listed.into_iter().map(target).collect();
        targets.retain(|it| labels.iter().all(|(name, value)| it.labels.get(name) == Some(value)));
        targets.sort_by(|a, b| a.name.cmp(&b.name));
        let same = |pair: &[Target]| matches!(pair, [one, other] if one.name == other.name);
        match targets.windows(2).any(same) {
            true => Err("it lists a target twice".into()),
            false => Ok(targets),
        }
    }

    async fn tell(&self, target: &str, order: &Order) -> Result<Told, PartError> {
        let request = Request::Tell {
            target,
            place: &order.place,
            version: order.version.to_string(),
            generation: order.generation,
            rollout: &order.rollout,
        };
        match self.ask(&request).await? {
            OrderAnswer::Told(Accepted::Accepted) => Ok(Told::Accepted),
            OrderAnswer::Stale(newer) if newer > order.generation => Ok(Told::Stale(newer)),
            OrderAnswer::Stale(older) => {
                Err(format!("it says {older:?} is newer than what it was told").into())
            }
        }
    }

    async fn observe(
        &self,
        place: &Place,
        targets: &[String],
    ) -> Result<Vec<Option<Observation>>, PartError> {
        let seen: Vec<Option<Seen>> = self.ask(&Request::Observe { place, targets }).await?;
        if seen.len() != targets.len() {
            return Err(format!("{} answers for {} targets", seen.len(), targets.len()).into());
        }
        seen.into_iter().map(|it| it.map(observation).transpose()).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn of(script: &str) -> Command {
        let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
        Command(Program::new(argv, Duration::from_secs(30)).unwrap())
    }

    fn place() -> Place {
        Place { service: "api".to_owned(), environment: "prod".to_owned() }
    }

    #[tokio::test]
    async fn a_program_lists_tells_and_observes() {
        let selector = Selector { place: place(), labels: BTreeMap::new() };
        let listed = of("cat >/dev/null; echo '[{\"name\":\"b\"},{\"name\":\"a\"}]'");
        let names: Vec<_> =
            listed.list(&selector).await.unwrap().into_iter().map(|it| it.name).collect();
        assert_eq!(names, ["a", "b"]);
        let twice = of("cat >/dev/null; echo '[{\"name\":\"a\"},{\"name\":\"a\"}]'");
        assert!(twice.list(&selector).await.is_err());
        let order = Order {
            place: place(),
            version: ContentDigest::of(b"x"),
            generation: Generation { fence: 2, change: 1 },
            rollout: "r".to_owned(),
        };
        let told =
            of("grep -q '\"do\":\"tell\",\"target\":\"a\"' && echo '{\"told\":\"accepted\"}'");
        assert_eq!(told.tell("a", &order).await.unwrap(), Told::Accepted);
        let stale = of("cat >/dev/null; echo '{\"stale\":{\"fence\":1,\"change\":0}}'");
        assert!(stale.tell("a", &order).await.is_err(), "that is not newer");
        let seen = of("cat >/dev/null; echo '[null,{\"healthy\":false,\"why\":\"no\"}]'");
        let seen = seen.observe(&place(), &["a".to_owned(), "b".to_owned()]).await.unwrap();
        assert_eq!(seen[0], None);
        assert_eq!(seen[1].as_ref().unwrap().health, Health::Unwell("no".to_owned()));
        let few = of("cat >/dev/null; echo '[]'");
        assert!(few.observe(&place(), &["a".to_owned()]).await.is_err());
    }
}
