//! An agent says how it is. Its first report registers it; from then on its name belongs to whoever registered it.

use std::time::Duration;

use kiln_cas::records::Write;

use super::error::FleetError;
use super::kept::{KeptAgent, MAX_TURNS};
use super::limits::{MAX_AGENTS, SILENT};
use super::names::{self, MAX_LABELS, NameProblem, check_agent, check_label};
use super::store::{MAX_ATTEMPTS, as_found, put};
use super::{Fleet, keys};
use crate::agent::{Health, MAX_SAID, Report, Speaker, short};
use crate::rollouts::machine::Millis;

/// The time between two reports of an agent when nothing changes.
pub const HEARTBEAT: Duration = Duration::from_secs(8);
/// Bytes of an identity, and of what an agent says of its own version.
const MAX_IDENTITY: usize = 64;
const MAX_SOFTWARE: usize = 100;

/// Whether everything in it is of a size and a form that can be kept and shown.
fn check(report: &Report) -> Result<(), NameProblem> {
    check_speaker(&report.from)?;
    if report.labels.len() > MAX_LABELS {
        return Err(NameProblem::Labels(report.labels.len()));
    }
    report.labels.iter().try_for_each(|(name, value)| check_label(name, value))?;
    report.address.as_deref().map_or(Ok(()), names::check_address)?;
    if report.software.len() > MAX_SOFTWARE {
        return Err(NameProblem::TooLong("the version of the agent"));
    }
    let said = [
        &report.status.failed,
        &match &report.status.health {
            Health::Unwell(why) => Some(why.clone()),
            Health::Well | Health::Unknown => None,
        },
    ];
    match said.into_iter().flatten().any(|it| it.len() > MAX_SAID) {
        true => Err(NameProblem::TooLong("a text of the report")),
        false => Ok(()),
    }
}

fn check_speaker(speaker: &Speaker) -> Result<(), NameProblem> {
    check_agent(&speaker.place, &speaker.name)?;
    match speaker.identity.len() {
        1..=MAX_IDENTITY => Ok(()),
        _ => Err(NameProblem::TooLong("the identity of the agent")),
    }
}

impl Fleet {
    /// Takes a report in. `account`: whose credentials came with it.
    pub async fn report(&self, report: &Report, account: &str) -> Result<(), FleetError> {
        check(report)?;
        let key = keys::agent(&report.from.place, &report.from.name);
        for _ in 0..MAX_ATTEMPTS {
            let (found, now) = (self.store.get::<KeptAgent>(&key).await?, self.now());
            let before = found.as_ref().map(|(it, _)| it);
            if let Some(before) = before {
                self.may_speak(&report.from, account, before, now)?;
            }
            let kept = kept(report, account, before, now);
            let mut writes = vec![put(key.clone(), as_found(&found), &kept)?];
            if found.is_none() {
                writes.push(self.counted(1).await?);
            }
            if self.store.commit(writes).await? {
                return Ok(());
            }
        }
        Err(FleetError::Restless)
    }

    /// Whether an agent that has registered may be spoken for.
    pub(super) async fn speaks(&self, speaker: &Speaker, account: &str) -> Result<(), FleetError> {
        check_speaker(speaker)?;
        let found = self.store.get(&keys::agent(&speaker.place, &speaker.name)).await?;
        let (kept, _) = found.ok_or_else(|| unknown(speaker))?;
        self.may_speak(speaker, account, &kept, self.now())
    }

    fn may_speak(
        &self,
        speaker: &Speaker,
        account: &str,
        kept: &KeptAgent,
        now: Millis,
    ) -> Result<(), FleetError> {
        let (place, name) = (speaker.place.clone(), speaker.name.clone());
        // What nobody in particular registered is taken over by the first who has a name.
        if !kept.account.is_empty() && kept.account != account {
            return Err(FleetError::Bound { place, name, by: kept.account.clone() });
        }
        let ago = Duration::from_millis(now.saturating_sub(kept.heard));
        if kept.identity != speaker.identity && ago < SILENT {
            return Err(FleetError::Twice { place, name, ago: ago.as_secs() });
        }
        Ok(())
    }

    /// The write that counts so many agents more, or fewer. Errors: there are too many.
    pub(super) async fn counted(&self, more: i64) -> Result<Write, FleetError> {
        let found = self.store.get::<u64>(keys::COUNT).await?;
        let count = found.as_ref().map_or(0, |(it, _)| *it).saturating_add_signed(more);
        if more > 0 && count > MAX_AGENTS {
            return Err(FleetError::Full);
        }
        put(keys::COUNT.to_owned(), as_found(&found), &count)
    }
}

pub(super) fn unknown(speaker: &Speaker) -> FleetError {
    FleetError::Unknown { place: speaker.place.clone(), name: speaker.name.clone() }
}

/// What is kept after a report.
fn kept(report: &Report, account: &str, before: Option<&KeptAgent>, now: Millis) -> KeptAgent {
    let status = report.status.clone();
    let same = before.is_some_and(|it| it.status.running == status.running);
    let mut turns = before.map(|it| it.turns.clone()).unwrap_or_default();
    if before.is_some_and(|it| has_turned(&it.status.health, &status.health)) {
        turns.push(now);
        turns.drain(..turns.len().saturating_sub(MAX_TURNS));
    }
    KeptAgent {
        account: account.to_owned(),
        identity: report.from.identity.clone(),
        address: report.address.clone(),
        labels: report.labels.clone(),
        software: short(&report.software),
        registered: before.map_or(now, |it| it.registered),
        heard: now,
        since: before.filter(|_| same).map_or(now, |it| it.since),
        status,
        turns,
    }
}

fn has_turned(before: &Health, after: &Health) -> bool {
    matches!((before, after), (Health::Well, Health::Unwell(_)) | (Health::Unwell(_), Health::Well))
}
