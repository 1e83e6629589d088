//! A rollout begins.

use std::collections::HashMap;
use std::sync::Arc;

use kiln_cas::records::{Expect, Write};

use super::error::ControlError;
use super::kept::{Good, Head, Rollout};
use super::locks::check_reason;
use super::store::{Store, delete, put};
use super::{Control, drill, keys, notice};
use crate::oci::ContentDigest;
use crate::releases::ReleaseName;
use crate::rollouts::machine::{Event, Logged, Millis, Spec, State, StepSpec};
use crate::rollouts::parts::{PartError, Place, Selector, Standing, Target};
use crate::rollouts::plan::{self, Declared, Plan, Strategy};

const TRIES: usize = 16;
/// Targets of one rollout that a server drives.
pub const MAX_TARGETS: usize = 20_000;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The declaration, in TOML.
    pub declared: String,
    pub release: ReleaseName,
    pub environment: String,
    pub by: String,
    pub reason: String,
    /// A rollout that runs there is reverted first.
    pub supersede: bool,
    /// Although it was reverted there.
    pub again: bool,
    /// Only prove that its canary would be reverted.
    pub drill: bool,
    /// What it returns to, where no rollout has ended well there yet.
    pub previous: Option<ReleaseName>,
}

/// What has been found out before anything is written.
struct Fit {
    declared: Declared,
    plan: Plan,
    targets: Vec<Target>,
    version: ContentDigest,
    /// When it was made.
    made: Option<Millis>,
}

/// What is wrong with a place's name would be wrong in a key.
fn check_environment(name: &str) -> Result<(), ControlError> {
    let wrong = || ControlError::Unfit(format!("{:?} is no environment", notice::cut(name)));
    plan::is_name(name).then_some(()).ok_or_else(wrong)
}

/// Sorts by time, and is not guessed twice.
fn id(now: Millis) -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut number = u128::from(now) * 46_656 + u128::from(fastrand::u32(0..46_656));
    let mut text = Vec::new();
    while number > 0 || text.len() < 12 {
        let digit = usize::try_from(number % 36).unwrap_or(0);
        text.push(DIGITS.get(digit).copied().unwrap_or(b'0'));
        number /= 36;
    }
    text.reverse();
    String::from_utf8(text).unwrap_or_default()
}

impl Control {
    /// Starts a rollout, or says everything that stands in the way. It is driven from then on, whoever goes away.
    pub async fn start(&self, ask: &Start) -> Result<Rollout, ControlError> {
        check_reason(&ask.reason)?;
        check_environment(&ask.environment)?;
        let fit = self.fit(ask).await?;
        let place = Place {
            service: fit.declared.driving.service.clone(),
            environment: ask.environment.clone(),
        };
        let bad = keys::bad(&place, &fit.version.to_string());
        if !ask.drill {
            self.drilled(&fit.declared, &place).await?;
        }
        let may = ask.again || ask.drill;
        if let Some(why) = self.store.get::<String>(&bad).await?.filter(|_| !may) {
            return Err(ControlError::Refused(format!("it was reverted there before: {why}")));
        }
        for _ in 0..TRIES {
            let standing = self.store.standing(&place).await?;
            self.has_room().await?;
            let expect = standing.expect();
            let mut standing = standing.value;
            let previous = self.previous(&fit, standing.good.clone(), ask).await?;
            // Last: what is refused reverts nobody.
            if let Some(newest) = &standing.newest {
                self.make_room(newest, ask).await?;
            }
            let now = self.now();
            let rollout = made(&fit, ask, previous, (id(now), now));
            standing.newest = Some(rollout.id.clone());
            let mut writes = vec![
                put(keys::place(&place), expect, &standing)?,
                put(keys::active(&rollout.id), Expect::Absent, &place)?,
            ];
            if !ask.drill {
                writes.push(delete(bad.clone()));
            }
            if self.begin(&rollout, &fit.targets, writes).await? {
                if !ask.drill {
                    self.counters.start();
                }
                self.wake.notify_waiters();
                return Ok(rollout);
            }
        }
        Err(ControlError::Restless)
    }

    /// This release is not rolled out there again, unless a person says so.
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
        mut writes: Vec<Write>,
    ) -> Result<bool, ControlError> {
        let started = Logged { at: rollout.at, event: Event::Started };
        let mut state = State::new(rollout.spec.clone());
        state.apply(&started);
        writes.push(put(keys::run(&rollout.id), Expect::Absent, rollout)?);
        let head = Head::of(&state, rollout.at);
        writes.push(put(keys::head(&rollout.id), Expect::Absent, &head)?);
        let events = [started];
        writes.push(put(keys::events(&rollout.id, 0), Expect::Absent, &events)?);
        writes.extend(Store::keep_targets(&rollout.id, targets)?);
        let noted = notice::of_events(rollout, &rollout.by, &events, 0);
        let (audit, notices): (Vec<_>, Vec<_>) = noted.into_iter().unzip();
        if self.parts.tells {
            for told in &notices {
                let key = keys::notice(&rollout.id, told.number);
                writes.push(put(key, Expect::Absent, told)?);
            }
        }
        self.store.commit(audit, writes).await
    }

    /// Reads the declaration, asks for the targets and after the release.
    async fn fit(&self, ask: &Start) -> Result<Fit, ControlError> {
        let declared = plan::read(&ask.declared)?;
        self.known(&declared)?;
        let version = match self.standing(&ask.release, &ask.environment).await? {
            Standing::Free(version) => version,
            Standing::Frozen(_, why) => return Err(ControlError::Frozen(why)),
            Standing::Refused(why) => return Err(ControlError::Refused(why)),
        };
        self.verified(&ask.release, &ask.environment, !ask.drill).await?;
        let targets = self.listed(&declared, &ask.environment).await?;
        let plan = plan::plan(&declared);
        // What a drill delivers was not promoted, and is bad on purpose.
        if ask.drill
            && plan.targets > 1
            && plan.steps.first().is_none_or(|it| it.targets >= plan.targets)
        {
            let message = "a drill needs a first step of fewer than all targets";
            return Err(ControlError::Refused(message.to_owned()));
        }
        let made = self.parts.releases.made(&ask.release).await.map_err(unasked)?;
        Ok(Fit { declared, plan, targets, version, made })
    }

    pub(super) async fn standing(
        &self,
        release: &ReleaseName,
        environment: &str,
    ) -> Result<Standing, ControlError> {
        self.parts.releases.standing(release, environment).await.map_err(unasked)
    }

    /// The content of a release that has shown everything. `stands`: it has to stand in the environment.
    async fn verified(
        &self,
        release: &ReleaseName,
        environment: &str,
        stands: bool,
    ) -> Result<ContentDigest, ControlError> {
        let verified = self.parts.releases.verify(release, environment, stands).await;
        verified.map_err(unasked)?.map_err(ControlError::Refused)
    }

    /// Everything that it names is there, and can be driven.
    fn known(&self, declared: &Declared) -> Result<(), ControlError> {
        let driving = &declared.driving;
        let unknown = |what: &str, name: &str, known: Vec<&String>| {
            let known = known.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let known = if known.is_empty() { "none".to_owned() } else { known };
            ControlError::NoPart(format!(
                "this server has no {what} {:?}; it has {known}",
                notice::cut(name)
            ))
        };
        if !self.parts.targets.contains_key(&driving.from) {
            let known = self.parts.targets.keys().collect();
            return Err(unknown("targets", &driving.from, known));
        }
        if let Some(name) =
            driving.traffic.as_ref().filter(|it| !self.parts.traffic.contains_key(*it))
        {
            return Err(unknown("traffic", name, self.parts.traffic.keys().collect()));
        }
        for asked in &declared.judging.asked {
            if !self.parts.signals.contains_key(&asked.source) {
                let known = self.parts.signals.keys().collect();
                return Err(unknown("signals", &asked.source, known));
            }
        }
        let unfit = |text: &str| Err(ControlError::Unfit(text.to_owned()));
        match &declared.strategy {
            Strategy::BlueGreen { .. } | Strategy::Canary { by: plan::By::Traffic, .. } => unfit(
                "a server drives rollouts by targets, by both, and in rings; for blue-green and by = \"traffic\" a target would have to run two versions at once",
            ),
            Strategy::Canary { by: plan::By::Both, .. } if driving.traffic.is_none() => {
                unfit("by = \"both\" needs traffic: who splits the requests")
            }
            _ => Ok(()),
        }
    }

    /// The targets that are there, in the order in which they get the release.
    async fn listed(
        &self,
        declared: &Declared,
        environment: &str,
    ) -> Result<Vec<Target>, ControlError> {
        let driving = &declared.driving;
        let place = Place { service: driving.service.clone(), environment: environment.to_owned() };
        let selector = Selector { place, labels: driving.labels.clone() };
        let Some(from) = self.parts.targets.get(&driving.from) else { return Ok(Vec::new()) };
        let listed = from.list(&selector).await.map_err(|source| ControlError::Part {
            what: format!("the targets of {:?}", driving.from),
            source,
        })?;
        if listed.len() > MAX_TARGETS {
            let message = format!("{} targets; at most {MAX_TARGETS} are driven", listed.len());
            return Err(ControlError::Unfit(message));
        }
        if listed.is_empty() && !driving.labels.is_empty() {
            let message = format!("no target of {} has all of these labels", selector.place);
            return Err(ControlError::Unfit(message));
        }
        match &declared.targets {
            plan::Targets::Count(count) if *count == listed.len() => Ok(listed),
            plan::Targets::Count(count) => Err(ControlError::Unfit(format!(
                "the declaration says {count} targets, and {:?} has {} of {}: name them, or correct the number",
                driving.from,
                listed.len(),
                selector.place,
            ))),
            plan::Targets::Named(names) => named(names, listed),
        }
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

fn unasked(source: PartError) -> ControlError {
    ControlError::Part { what: "the list of releases".to_owned(), source }
}

/// The targets of these names, each of which has to be there.
fn named(names: &[String], listed: Vec<Target>) -> Result<Vec<Target>, ControlError> {
    let mut known: HashMap<String, Target> =
        listed.into_iter().map(|it| (it.name.clone(), it)).collect();
    let missing =
        |name: &String| ControlError::Unfit(format!("there is no target {:?}", notice::cut(name)));
    names.iter().map(|name| known.remove(name).ok_or_else(|| missing(name))).collect()
}

fn made(fit: &Fit, ask: &Start, previous: Option<Good>, (id, at): (String, Millis)) -> Rollout {
    let place = Place {
        service: fit.declared.driving.service.clone(),
        environment: ask.environment.clone(),
    };
    let drill = ask.drill.then(|| {
        let budget = fit.declared.driving.drill_budget;
        u64::try_from(budget.as_millis()).unwrap_or(u64::MAX)
    });
    let whole = spec(fit, previous.as_ref());
    let spec = match drill {
        Some(budget) => drill::shortened(whole, budget),
        None => whole,
    };
    Rollout {
        id,
        place,
        release: ask.release.clone(),
        spec: Arc::new(spec),
        previous,
        steps: fit.plan.steps.iter().map(|step| step.name.clone()).collect(),
        declared: ask.declared.clone(),
        targets: fit.targets.len(),
        by: ask.by.clone(),
        reason: ask.reason.clone(),
        at,
        made: fit.made,
        drill,
    }
}

fn spec(fit: &Fit, previous: Option<&Good>) -> Spec {
    let millis = |seconds: u64| seconds.saturating_mul(1_000);
    let mut next = 0;
    let steps = fit.plan.steps.iter().map(|step| {
        let first = next;
        next += u32::try_from(step.added).unwrap_or(u32::MAX);
        StepSpec {
            targets: (first..next).collect(),
            bake: millis(step.bake_s),
            gate: step.gate,
            // From 0 to 10,000.
            traffic: step.traffic.map(|share| (share * 100.0).round().clamp(0.0, 10_000.0) as u32),
            fresh: Vec::new(),
        }
    });
    let steps = steps.collect();
    Spec {
        old: previous.map(|it| it.version.clone()),
        new: fit.version.to_string().into(),
        steps,
        soak: millis(fit.plan.soak_s),
        deadline: millis(fit.plan.deadline_s),
        limits: fit.declared.driving.limits,
        unavailable: None,
        beside: false,
    }
}
