//! Approvals, holds and overrides.

use std::collections::BTreeMap;

use super::{About, Refusal, changed, check_reason, person};
use crate::promotion::change::{Change, ChangeKind};
use crate::promotion::facts::Known;
use crate::promotion::pipeline::Pipeline;
use crate::promotion::world::{
    Actor, Approval, Hold, MAX_APPROVALS, MAX_HOLDS, MAX_OVERRIDES, Override, World, kept,
};
use crate::timestamp::Timestamp;

/// Seconds that an override lasts at most.
pub const MAX_OVERRIDE: i64 = 24 * 3_600;
/// Seconds that a hold lasts at most, where it is said to end.
const MAX_HOLD: i64 = 366 * 86_400;

fn about<'a>(environment: &'a str, release: &Known) -> About<'a> {
    About {
        environment,
        subject: release.name.to_string(),
        digest: Some(release.digest.to_string()),
        before: None,
        after: None,
    }
}

/// Binds an approval to the content, not to the name.
pub fn approve(
    world: &mut World,
    environment: &str,
    release: &Known,
    by: &Actor,
    (reason, now): (&str, Timestamp),
) -> Result<Change, Refusal> {
    person(by)?;
    if world.approvals_of(environment, &release.digest).any(|it| it.who == by.name) {
        return Err(Refusal::Approved(by.name.clone()));
    }
    if world.approvals.len() >= MAX_APPROVALS {
        forget_one(world, &by.name);
    }
    world.approvals.push(Approval {
        environment: environment.to_owned(),
        digest: release.digest.clone(),
        who: by.name.clone(),
        at: now,
        reason: kept(reason),
    });
    let about = about(environment, release);
    Ok(changed(world, ChangeKind::Approved, by, (reason, now), about))
}

/// The oldest approval of whoever has most of them, one more of `by` counted: nobody pushes out what others said by saying much.
fn forget_one(world: &mut World, by: &str) {
    let mut counts = BTreeMap::from([(by, 1_usize)]);
    for approval in &world.approvals {
        *counts.entry(approval.who.as_str()).or_default() += 1;
    }
    let most = counts.into_iter().max_by_key(|(who, count)| (*count, *who == by));
    let most = most.map(|(who, _)| who.to_owned());
    let oldest = world.approvals.iter().position(|it| Some(&it.who) == most.as_ref());
    if let Some(oldest) = oldest {
        world.approvals.remove(oldest);
    }
}

pub fn withdraw(
    world: &mut World,
    environment: &str,
    release: &Known,
    by: &Actor,
    (reason, now): (&str, Timestamp),
) -> Result<Change, Refusal> {
    person(by)?;
    let before = world.approvals.len();
    world.approvals.retain(|it| {
        it.environment != environment || it.digest != release.digest || it.who != by.name
    });
    if world.approvals.len() == before {
        return Err(Refusal::NotApproved(by.name.clone()));
    }
    let about = about(environment, release);
    Ok(changed(world, ChangeKind::Withdrawn, by, (reason, now), about))
}

/// Lets nothing be promoted until `until`, or until it is lifted.
pub fn hold(
    world: &mut World,
    environment: &str,
    by: &Actor,
    until: Option<Timestamp>,
    (reason, now): (&str, Timestamp),
) -> Result<Change, Refusal> {
    person(by)?;
    check_reason(reason)?;
    if until.is_some_and(|it| it <= now || it > now.plus(MAX_HOLD)) {
        return Err(Refusal::TooLong(MAX_HOLD));
    }
    world.tidy(now);
    let before = world.holds_of(environment, now).next().map(|it| it.reason.clone());
    world.holds.retain(|it| it.environment != environment || it.by != by.name);
    if world.holds.len() >= MAX_HOLDS {
        return Err(Refusal::Full("holds"));
    }
    world.holds.push(Hold {
        environment: environment.to_owned(),
        by: by.name.clone(),
        at: now,
        until,
        reason: kept(reason),
    });
    let after = Some(until.map_or("until it is lifted".to_owned(), |it| format!("until {it}")));
    let about = About { environment, subject: String::new(), digest: None, before, after };
    Ok(changed(world, ChangeKind::Held, by, (reason, now), about))
}

/// Lifts all holds of an environment.
pub fn lift(
    world: &mut World,
    environment: &str,
    by: &Actor,
    (reason, now): (&str, Timestamp),
) -> Result<Change, Refusal> {
    person(by)?;
    check_reason(reason)?;
    let held = world.holds_of(environment, now).map(|it| format!("{}: {}", it.by, it.reason));
    let before: Vec<String> = held.collect();
    if before.is_empty() {
        return Err(Refusal::NotHeld(environment.to_owned()));
    }
    world.holds.retain(|it| it.environment != environment);
    let before = Some(before.join("; "));
    let about = About { environment, subject: String::new(), digest: None, before, after: None };
    Ok(changed(world, ChangeKind::Lifted, by, (reason, now), about))
}

fn may_override(pipeline: &Pipeline, environment: &str, by: &Actor) -> Result<(), Refusal> {
    person(by)?;
    let found = pipeline.environments.get(environment);
    let found = found.ok_or_else(|| Refusal::NoEnvironment(environment.to_owned()))?;
    let none = || Refusal::NoBreakGlass { environment: environment.to_owned() };
    let group = found.break_glass.as_ref().ok_or_else(none)?;
    let stranger = || Refusal::NotInGroup { who: by.name.clone(), group: group.clone() };
    pipeline.is_member(group, &by.name).then_some(()).ok_or_else(stranger)
}

/// Asks that one release may be promoted in spite of freezes and holds. Nothing follows before a second person confirms it.
pub fn ask_override(
    world: &mut World,
    (pipeline, environment): (&Pipeline, &str),
    release: &Known,
    (by, lasts): (&Actor, i64),
    (reason, now): (&str, Timestamp),
) -> Result<Change, Refusal> {
    may_override(pipeline, environment, by)?;
    check_reason(reason)?;
    if !(1..=MAX_OVERRIDE).contains(&lasts) {
        return Err(Refusal::TooLong(MAX_OVERRIDE));
    }
    world.tidy(now);
    world.overrides.retain(|it| it.environment != environment || it.digest != release.digest);
    if world.overrides.len() >= MAX_OVERRIDES {
        return Err(Refusal::Full("overrides"));
    }
    let until = now.plus(lasts);
    world.overrides.push(Override {
        environment: environment.to_owned(),
        digest: release.digest.clone(),
        by: by.name.clone(),
        at: now,
        until,
        reason: kept(reason),
        confirmed: None,
    });
    let about = About { after: Some(format!("until {until}")), ..about(environment, release) };
    Ok(changed(world, ChangeKind::OverrideAsked, by, (reason, now), about))
}

/// A second person stands for it as well.
pub fn confirm_override(
    world: &mut World,
    (pipeline, environment): (&Pipeline, &str),
    release: &Known,
    by: &Actor,
    (reason, now): (&str, Timestamp),
) -> Result<Change, Refusal> {
    may_override(pipeline, environment, by)?;
    let fits = |it: &&mut Override| {
        it.environment == environment && it.digest == release.digest && now < it.until
    };
    let found = world.overrides.iter_mut().find(fits);
    let found = found.ok_or_else(|| Refusal::NoOverride(environment.to_owned()))?;
    if found.by == by.name {
        return Err(Refusal::SamePerson(by.name.clone()));
    }
    found.confirmed = Some(by.name.clone());
    let before = Some(format!("{}: {}", found.by, found.reason));
    let after = Some(format!("until {}", found.until));
    let about = About { before, after, ..about(environment, release) };
    Ok(changed(world, ChangeKind::Overridden, by, (reason, now), about))
}
