//! Finds the releases that rollouts need: what is delivered, what it returns to, what was delivered last, and what
//! drills deliver.

use kiln_cas::records::{Record, SharedRecords};

use super::error::ControlError;
use super::kept::{Rollout, Standing};
use super::keys::{self, PLACES, SCHEDULES};
use super::scheduled::Scheduled;
use super::store::decode;
use crate::rollouts::machine::Version;

/// Places that are read together.
const PAGE: usize = 100;

/// A release that a rollout needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Needed {
    pub version: Version,
    /// The place that needs it, `ENVIRONMENT/SERVICE`.
    pub place: String,
}

/// All releases that rollouts need, over all places.
pub async fn needed(records: &SharedRecords) -> Result<Vec<Needed>, ControlError> {
    let (mut all, mut after) = (Vec::new(), None::<String>);
    loop {
        let page = records.list(PLACES, after.as_deref(), false, PAGE).await?;
        let Some(last) = page.last() else { return Ok(all) };
        after = Some(last.key.clone());
        for record in &page {
            let place = record.key.strip_prefix(PLACES).unwrap_or_default();
            let mut versions = versions(records, record).await?;
            // A place has the same name among those with a schedule.
            if let Some(record) = records.get(&format!("{SCHEDULES}{place}")).await? {
                versions.extend(decode::<Scheduled>(&record)?.version);
            }
            all.extend(
                versions.into_iter().map(|version| Needed { version, place: place.to_owned() }),
            );
        }
    }
}

async fn versions(records: &SharedRecords, place: &Record) -> Result<Vec<Version>, ControlError> {
    let Standing { newest, good } = decode(place)?;
    let mut versions: Vec<Version> = good.into_iter().map(|it| it.version).collect();
    let newest = match newest {
        Some(id) => records.get(&keys::run(&id)).await?,
        None => None,
    };
    if let Some(record) = newest {
        let rollout: Rollout = decode(&record)?;
        versions.push(rollout.spec.new.clone());
        versions.extend(rollout.spec.old.clone());
    }
    Ok(versions)
}
