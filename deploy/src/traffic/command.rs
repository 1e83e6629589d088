//! A program that stands for a balancer. It is given one JSON document and prints another:
//!
//! - `{"do":"set","place":{..},"generation":{"fence":1,"change":2},"pools":[{"side":"canary","share":10.0,
//!   "members":[{"name":"a","address":"h:80"}]}]}` -> `{"applied":"now"}` when new requests are split so, or
//!   `{"stale":{"fence":2,"change":0}}` if this newer generation was set before;
//! - `{"do":"observe","place":{..}}` -> what is set, `{"generation":{..},"pools":[..]}`, or `null`.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use super::error::TrafficError;
use super::split::check;
use crate::programs::Program;
use crate::rollouts::machine::Generation;
use crate::rollouts::parts::{Applied, PartError, Place, Split, Traffic};

/// Whoever reads shares needs no weights: the finest that are checked for.
const MOST: u32 = 10_000;

pub struct CommandTraffic(pub Program);

#[derive(Serialize)]
#[serde(tag = "do", rename_all = "lowercase")]
enum Request<'a> {
    Set {
        place: &'a Place,
        #[serde(flatten)]
        split: &'a Split,
    },
    Observe {
        place: &'a Place,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
enum SplitAnswer {
    Applied(Now),
    Stale(Generation),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Now {
    Now,
}

impl CommandTraffic {
    async fn ask<T: for<'de> Deserialize<'de>>(
        &self,
        request: &Request<'_>,
    ) -> Result<T, TrafficError> {
        let unreadable = |error: serde_json::Error| TrafficError::Answer(error.to_string());
        let request = serde_json::to_vec(request).map_err(unreadable)?;
        let answer = self.0.ask(&request).await?;
        serde_json::from_slice(&answer).map_err(unreadable)
    }

    async fn set_split(&self, place: &Place, split: &Split) -> Result<Applied, TrafficError> {
        check(place, split, MOST)?;
        match self.ask(&Request::Set { place, split }).await? {
            SplitAnswer::Applied(Now::Now) => Ok(Applied::Now),
            SplitAnswer::Stale(newer) if newer > split.generation => Ok(Applied::Stale(newer)),
            SplitAnswer::Stale(older) => {
                let text = format!("{older:?} is not newer than what it was told");
                Err(TrafficError::Answer(text))
            }
        }
    }

    async fn in_force(&self, place: &Place) -> Result<Option<Split>, TrafficError> {
        let found: Option<Split> = self.ask(&Request::Observe { place }).await?;
        let Some(split) = found else { return Ok(None) };
        // What it says is believed no more than what it is told.
        check(place, &split, MOST).map_err(|error| TrafficError::Answer(error.to_string()))?;
        Ok(Some(split))
    }
}

#[async_trait]
impl Traffic for CommandTraffic {
    async fn set(&self, place: &Place, split: &Split) -> Result<Applied, PartError> {
        Ok(self.set_split(place, split).await?)
    }

    async fn observe(&self, place: &Place) -> Result<Option<Split>, PartError> {
        Ok(self.in_force(place).await?)
    }
}
