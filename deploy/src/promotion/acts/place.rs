//! Releases that come, and those that are returned to.

use super::{About, Refusal, changed, check_reason};
use crate::oci::ContentDigest;
use crate::promotion::change::{Change, ChangeKind};
use crate::promotion::decision::Record;
use crate::promotion::facts::Known;
use crate::promotion::pipeline::Environment;
use crate::promotion::world::{Actor, How, MAX_WAITING, Past, Placed, Waiting, World, kept};
use crate::releases::ReleaseName;
use crate::timestamp::Timestamp;

/// What is returned to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Return {
    pub to: Placed,
    /// Whether the release stood here for as long as the policy wants of a good one. Where nothing did, the latest is
    /// taken.
    pub settled: bool,
}

fn named(placed: &Placed) -> String {
    format!("{} ({}, generation {})", placed.release, placed.digest, placed.generation)
}

fn put(
    world: &mut World,
    environment: &str,
    (release, digest): (&ReleaseName, &ContentDigest),
    (kind, how): (ChangeKind, How),
    (by, reason, now): (&Actor, &str, Timestamp),
) -> (Placed, Change) {
    let place = world.places.entry(environment.to_owned()).or_default();
    let before = place.current.as_ref().map(named);
    let (release, digest, by_name) = (release.clone(), digest.clone(), by.name.clone());
    let comes = Placed { release, digest, generation: 0, at: now, by: by_name, how };
    let placed = place.put(comes, how == How::RolledBack);
    let about = About {
        environment,
        subject: placed.release.to_string(),
        digest: Some(placed.digest.to_string()),
        before,
        after: Some(named(&placed)),
    };
    // Whoever waited for this environment waited for one that was as before.
    world.waiting.retain(|it| it.environment != environment);
    (placed, changed(world, kind, by, (reason, now), about))
}

/// Puts a release into an environment. That it may be there was decided before.
pub fn place(
    world: &mut World,
    environment: &str,
    release: &Known,
    by: &Actor,
    (reason, now): (&str, Timestamp),
) -> (Placed, Change) {
    let what = (&release.name, &release.digest);
    let done =
        put(world, environment, what, (ChangeKind::Promoted, How::Promoted), (by, reason, now));
    // They were for this, and are kept with it in the audit log.
    world.approvals.retain(|it| it.environment != environment || it.digest != release.digest);
    world.overrides.retain(|it| it.environment != environment || it.digest != release.digest);
    done
}

/// What a rollback returns to: what was named, else the newest that settled here and is not known to be bad.
pub fn target(
    world: &World,
    environment: &Environment,
    to: Option<&ReleaseName>,
    by: &Actor,
    (record, now): (&dyn Fn(&ContentDigest) -> Record, Timestamp),
) -> Result<Return, Refusal> {
    let name = &environment.name;
    let place = world.place(name);
    let current = place.current.as_ref().ok_or_else(|| Refusal::Empty(name.clone()))?;
    if by.automation && current.how == How::RolledBack {
        return Err(Refusal::Twice(name.clone()));
    }
    let settled = |past: &Past| {
        place.stood(&past.placed.digest, now).is_some_and(|it| it >= environment.settle)
    };
    let chosen = |past: &Past| Return { to: past.placed.clone(), settled: settled(past) };
    let others = place.past.iter().filter(|it| it.placed.digest != current.digest);
    if let Some(to) = to {
        if current.release == *to {
            return Err(Refusal::Current(to.clone()));
        }
        let never = || Refusal::NeverHere { release: to.clone(), environment: name.clone() };
        let past = others.clone().find(|it| it.placed.release == *to).ok_or_else(never)?;
        return match record(&past.placed.digest).rejected {
            Some(_) => Err(Refusal::Rejected(to.clone())),
            None => Ok(chosen(past)),
        };
    }
    let good = others.filter(|it| !it.rolled_back).filter(|it| {
        let record = record(&it.placed.digest);
        record.rejected.is_none() && !record.rolled_back.contains_key(name)
    });
    let good: Vec<&Past> = good.collect();
    let best = good.iter().find(|it| settled(it)).or(good.first());
    best.map(|it| chosen(it)).ok_or_else(|| Refusal::NoPredecessor(name.clone()))
}

/// Returns to what stood here. It waits for nothing. The release that it replaces is the bad one.
pub fn roll_back(
    world: &mut World,
    environment: &str,
    to: &Placed,
    by: &Actor,
    (reason, now): (&str, Timestamp),
) -> Result<(Placed, Change), Refusal> {
    check_reason(reason)?;
    let what = (&to.release, &to.digest);
    let kind = (ChangeKind::RolledBack, How::RolledBack);
    Ok(put(world, environment, what, kind, (by, reason, now)))
}

/// Lets a promotion wait. One waits for each environment: the one that was asked for last.
pub fn wait(world: &mut World, mut waiting: Waiting, now: Timestamp) -> Result<Change, Refusal> {
    let same = world.waiting.iter().position(|it| it.environment == waiting.environment);
    let before = same.map(|at| world.waiting.remove(at).release.to_string());
    if world.waiting.len() >= MAX_WAITING {
        return Err(Refusal::Full("promotions that wait"));
    }
    let (by, reason) = (waiting.by.clone(), waiting.reason.clone());
    let environment = waiting.environment.clone();
    let about = About {
        environment: &environment,
        subject: waiting.release.to_string(),
        digest: Some(waiting.digest.to_string()),
        before,
        after: Some(format!("until {}", waiting.until)),
    };
    waiting.reason = kept(&waiting.reason);
    world.waiting.push(waiting);
    Ok(changed(world, ChangeKind::Waits, &by, (&reason, now), about))
}

/// Has a promotion wait no more; `None`: it does not wait. Whoever asked for the same anew waits on.
pub fn give_up(
    world: &mut World,
    waiting: &Waiting,
    by: &Actor,
    (reason, now): (&str, Timestamp),
) -> Option<Change> {
    let at = world.waiting.iter().position(|it| it.is_same(waiting))?;
    world.waiting.remove(at);
    let about = About {
        environment: &waiting.environment,
        subject: waiting.release.to_string(),
        digest: Some(waiting.digest.to_string()),
        before: None,
        after: None,
    };
    Some(changed(world, ChangeKind::GaveUp, by, (reason, now), about))
}
