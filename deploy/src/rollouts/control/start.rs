//! Begins rollouts.

use kiln_cas::records::{Expect, Write};
use kiln_cas::stores::audit::AuditEvent;
use kiln_net::id_at;

use super::asked::{Start, check_environment};
use super::error::{ControlError, unasked};
use super::fit::{Fit, made};
use super::kept::{self, Good, Head, Rollout};
use super::locks::check_reason;
use super::store::{Read, Store, decode, delete, put};
use super::{Control, keys, notice};
use crate::oci::ContentDigest;
use crate::releases::ReleaseName;
use crate::rollouts::machine::{Event, Logged, RolloutState};
use crate::rollouts::parts::{Place, Standing, Target};

const TRIES: usize = 16;

impl Control {
    /// Starts a rollout, or says everything that stands in the way. It is driven from then on, whoever goes away.
    pub async fn start(&self, ask: &Start) -> Result<Rollout, ControlError> {
        self.start_with(ask, None).await
    }

    /// `claim`: what is written in one step with it. Where that is written otherwise meanwhile, nothing begins.
    pub(super) async fn start_with(
        &self,
        ask: &Start,
        claim: Option<&Write>,
    ) -> Result<Rollout, ControlError> {
        check_reason(&ask.reason)?;
        check_environment(&ask.environment)?;
        let fit = self.fit(ask).await?;
        let place = Place {
            service: fit.declared.driving.service.clone(),
            environment: ask.environment.clone(),
        };
        let bad = keys::bad(&place, &fit.version.to_string());
        let overdue = if ask.drill { None } else { self.overdue(&fit.declared, &place).await? };
        if let Some(why) = overdue.as_ref().filter(|_| !ask.without_drill) {
            let hint = "run one (`kiln rollout drill`), or say --without-drill";
            return Err(ControlError::Refused(format!("{why}: {hint}")));
        }
        let may = ask.again || ask.drill;
        let before = self.store.get::<String>(&bad).await;
        let unknown = || Some("nobody can read why".to_owned());
        let before = self.store.readable(before)?.unwrap_or_else(unknown);
        if let Some(why) = before.filter(|_| !may) {
            return Err(ControlError::Refused(format!("it was reverted there before: {why}")));
        }
        for _ in 0..TRIES {
            let standing = self.stands_at(&place, ask).await?;
            self.has_room().await?;
            let expect = standing.expect();
            let mut standing = standing.value;
            let previous = self.previous(&fit, standing.good.clone(), ask).await?;
            // Last: what is refused reverts nobody.
            if let Some(newest) = &standing.newest {
                self.make_room(newest, ask, &fit).await?;
            }
            let now = self.now();
            let rollout = made(&fit, ask, previous, (id_at(now), now))?;
            standing.newest = Some(rollout.id.clone());
            let mut writes = vec![
                put(keys::place(&place), expect, &standing)?,
                put(keys::active(&rollout.id), Expect::Absent, &place)?,
            ];
            if !ask.drill {
                writes.push(delete(bad.clone()));
            }
            writes.extend(claim.cloned());
            let line = |why: &String| {
                let why = format!("{why}; {}", ask.reason);
                notice::line(&rollout, "rollout.override", &ask.by, &why, now)
            };
            let overridden = overdue.as_ref().map(line);
            if self.begin(&rollout, &fit.targets, (writes, overridden)).await? {
                if !ask.drill {
                    self.counters.start();
                }
                self.wake.notify_waiters();
                return Ok(rollout);
            }
            if let Some(claim) = claim
                && !self.holds(claim).await?
            {
                return Err(ControlError::NotNow("somebody else was faster".to_owned()));
            }
        }
        Err(ControlError::Restless)
    }

    /// What stands at a place. One whose record cannot be read is begun anew by whoever names what to return to, unless a
    /// rollout goes on there.
    async fn stands_at(
        &self,
        place: &Place,
        ask: &Start,
    ) -> Result<Read<kept::Standing>, ControlError> {
        let Some(stored) = self.store.records.get(&keys::place(place)).await? else {
            return Ok(Read { value: kept::Standing::default(), version: None });
        };
        let version = Some(stored.version);
        match decode(&stored) {
            Ok(value) => Ok(Read { value, version }),
            Err(error) if ask.previous.is_none() => Err(error),
            Err(error) => match self.running_at(place).await?.is_empty() {
                false => Err(error),
                true => Ok(Read { value: kept::Standing::default(), version }),
            },
        }
    }

    /// Sees to it that this release is not rolled out there again, unless a person says so.
    pub(super) async fn quarantine(
        &self,
        place: &Place,
        version: &str,
        why: &str,
    ) -> Result<(), ControlError> {
        let write = put(keys::bad(place, version), Expect::Anything, &why)?;
        self.store.commit(Vec::new(), vec![write]).await.map(drop)
    }

    async fn begin(
        &self,
        rollout: &Rollout,
        targets: &[Target],
        (mut writes, overridden): (Vec<Write>, Option<AuditEvent>),
    ) -> Result<bool, ControlError> {
        let started = Logged { at: rollout.at, event: Event::Started };
        let mut state = RolloutState::new(rollout.spec.clone());
        state.apply(&started);
        writes.push(put(keys::run(&rollout.id), Expect::Absent, rollout)?);
        let head = Head::of(&state, rollout.at);
        writes.push(put(keys::head(&rollout.id), Expect::Absent, &head)?);
        let events = [started];
        writes.push(put(keys::events(&rollout.id, 0), Expect::Absent, &events)?);
        writes.extend(Store::keep_targets(&rollout.id, targets)?);
        let noted = notice::of_events(rollout, &rollout.by, &events, (0, ""));
        let (audit, notices): (Vec<AuditEvent>, Vec<_>) = noted.into_iter().unzip();
        if self.parts.tells {
            for told in &notices {
                let key = keys::notice(&rollout.id, told.number);
                writes.push(put(key, Expect::Absent, told)?);
            }
        }
        let audit = audit.into_iter().chain(overridden).collect();
        self.store.commit(audit, writes).await
    }

    pub(super) async fn standing(
        &self,
        release: &ReleaseName,
        environment: &str,
    ) -> Result<Standing, ControlError> {
        self.parts.releases.standing(release, environment).await.map_err(unasked)
    }

    /// The content of a release that has shown everything. `stands`: it has to stand in the environment.
    pub(super) async fn verified(
        &self,
        release: &ReleaseName,
        environment: &str,
        stands: bool,
    ) -> Result<ContentDigest, ControlError> {
        let verified = self.parts.releases.verify(release, environment, stands).await;
        verified.map_err(unasked)?.map_err(|why| ControlError::Refused(why.to_string()))
    }

    async fn previous(
        &self,
        fit: &Fit,
        good: Option<Good>,
        ask: &Start,
    ) -> Result<Option<Good>, ControlError> {
        let previous = match (good, &ask.previous) {
            (Some(good), None) => Some(good),
            (None, None) => None,
            (_, Some(named)) => {
                // Targets get it without another question: it shows as much as what begins.
                let version = self.verified(named, &ask.environment, false).await?;
                Some(Good { release: named.clone(), version: version.to_string().into() })
            }
        };
        if ask.drill && previous.is_none() {
            let message =
                "a drill needs a release to return to: roll one out first, or name --previous";
            return Err(ControlError::Refused(message.to_owned()));
        }
        if previous.as_ref().is_some_and(|it| *it.version == *fit.version.to_string()) {
            let message = format!("{} is what finished its rollout there last", ask.release);
            return Err(ControlError::Refused(message));
        }
        Ok(previous)
    }
}
