//! The gates of a promotion, one after the other. Each says how it stands, met or not.

use super::reasons::{Decision, Gate, Question, Standing};
use crate::promotion::facts::{Claim, Tests};
use crate::timestamp::Timestamp;

use Standing::{Met, Refused, Waits};

/// Seconds that clocks may be apart.
pub const MAX_SKEW: i64 = 60;

pub fn record(it: &Question<'_>, out: &mut Decision) {
    match it.record.rejected.as_ref().or(it.facts.release.rejected.as_ref()) {
        Some(why) => {
            let text = format!("rejected by {} at {}: {}", why.by, why.at, why.reason);
            out.note(Gate::Rejected, Refused, text);
        }
        None => out.note(Gate::Rejected, Met, "nobody has rejected it".to_owned()),
    }
    let Some(why) = it.record.rolled_back.get(&it.environment.name) else {
        return out.note(Gate::RolledBack, Met, "it was not rolled back here".to_owned());
    };
    let was = format!("rolled back here by {} at {}: {}", why.by, why.at, why.reason);
    match (it.by.automation, it.again) {
        (false, true) => out.note(Gate::RolledBack, Met, format!("{was}; a person wants it again")),
        (true, _) => {
            out.note(Gate::RolledBack, Refused, format!("{was}; a person may promote it again"))
        }
        (false, false) => {
            out.note(Gate::RolledBack, Refused, format!("{was}; say so to promote it again"))
        }
    }
}

/// A clock far behind what is written down would count times wrongly, and let windows through that are over.
pub fn clock(it: &Question<'_>, out: &mut Decision) {
    let last = it.world.clock.0;
    if it.now.plus(MAX_SKEW) < last {
        let text = format!("the clock says {}, and something was changed at {last}", it.now);
        return out.wait(Gate::Clock, Some(last), text);
    }
    out.note(Gate::Clock, Met, format!("it is {}", it.now));
}

pub fn upstream(it: &Question<'_>, out: &mut Decision) {
    let release = &it.facts.release;
    for before in &it.environment.after {
        let place = it.world.place(before);
        let others = place.past.iter().map(|it| &it.placed).chain(&place.current);
        let renamed = others
            .filter(|it| it.release == release.name && it.digest != release.digest)
            .map(|it| it.digest.clone())
            .next();
        if let Some(other) = renamed {
            let text = format!("in {before} {} is {other}, not {}", release.name, release.digest);
            out.note(Gate::Upstream, Refused, text);
            continue;
        }
        let bad = it.record.rolled_back.contains_key(before);
        let here = place.current.as_ref().is_some_and(|it| it.digest == release.digest);
        match place.stood(&release.digest, it.now) {
            None => out.wait(Gate::Upstream, None, format!("it was not in {before} yet")),
            Some(_) if bad => {
                out.note(Gate::Upstream, Refused, format!("it was rolled back in {before}"));
            }
            Some(stood) => {
                out.note(Gate::Upstream, Met, format!("{before} has or had the same content"));
                soak(it, before, (stood, here), out);
            }
        }
    }
}

fn soak(it: &Question<'_>, before: &str, (stood, here): (i64, bool), out: &mut Decision) {
    let (needed, left) = (it.environment.soak, it.environment.soak.saturating_sub(stood));
    if needed == 0 {
        return;
    }
    let text = format!("it stood in {before} for {stood} s of {needed} s");
    match (left > 0, here) {
        (false, _) => out.note(Gate::Soak, Met, text),
        (true, true) => out.wait(Gate::Soak, Some(it.now.plus(left)), text),
        (true, false) => {
            out.wait(Gate::Soak, None, format!("{text}, and something else stands there now"));
        }
    }
}

/// Every provenance that a named key has signed must say what is demanded.
pub fn provenance(it: &Question<'_>, out: &mut Decision) {
    let demands = &it.environment.demands;
    if !demands.provenance() {
        return;
    }
    let claims = it.facts.claims_of(&demands.signers);
    let by = match demands.signers.as_slice() {
        [] => "a trusted key".to_owned(),
        names => names.join(" or "),
    };
    if claims.is_empty() {
        let mut text = format!("no provenance of it is signed by {by}");
        if let Some(refused) = it.facts.refused.first() {
            text = format!("{text} ({refused})");
        }
        return out.note(Gate::Signature, Refused, text);
    }
    let signers: Vec<_> = claims.iter().map(|it| it.signer.as_str()).collect();
    out.note(Gate::Signature, Met, format!("provenance is signed by {}", signers.join(", ")));
    let mut same = |gate, what: &str, demanded: &Option<String>, of: fn(&Claim) -> &String| {
        let Some(demanded) = demanded else { return };
        match claims.iter().find(|it| of(it) != demanded) {
            Some(other) => {
                let text = format!("{what} is {:?}, not {demanded:?}", of(other));
                out.note(gate, Refused, text);
            }
            None => out.note(gate, Met, format!("{what} is {demanded:?}")),
        }
    };
    same(Gate::Builder, "the builder", &demands.builder, |it| &it.builder);
    same(Gate::Source, "the source", &demands.source, |it| &it.source);
    let branch = claims.first().map_or("the branch", |it| said(it));
    same(Gate::Branch, branch, &demands.branch, |it| &it.branch);
    if let Some(least) = demands.level {
        let level = claims.iter().map(|it| it.level).min().unwrap_or(0);
        let standing = if level >= least { Met } else { Refused };
        out.note(Gate::Level, standing, format!("SLSA build level {level}; {least} is demanded"));
    }
}

/// Kiln sees no branches: it is named who says so.
fn said(claim: &Claim) -> &'static str {
    match claim.branch_by.as_str() {
        "release" => "the branch, as whoever made the release says,",
        "build-events" => "the branch, as whoever built it says,",
        _ => "the branch",
    }
}

pub fn tests(it: &Question<'_>, out: &mut Decision) {
    if !it.environment.demands.tests {
        return;
    }
    match &it.facts.tests {
        Tests::Green => out.note(Gate::Tests, Met, "the gate lets its build pass".to_owned()),
        Tests::Red(why) => out.note(Gate::Tests, Refused, format!("the gate is closed: {why}")),
        Tests::Undecided(why) => {
            out.wait(Gate::Tests, None, format!("the gate has not decided: {why}"));
        }
    }
}

/// Counts the approvals that a release needs: those of the group, each person once, and never the author's.
pub fn approvals(it: &Question<'_>, out: &mut Decision) {
    let Some(needed) = &it.environment.approvals else { return };
    let release = &it.facts.release;
    let given = it.world.approvals_of(&it.environment.name, &release.digest);
    let counts = |who: &str| {
        let member = needed.group.as_ref().is_none_or(|it_| it.pipeline.is_member(it_, who));
        member && who != release.author
    };
    let mut names: Vec<&str> = given.map(|it| it.who.as_str()).filter(|it| counts(it)).collect();
    names.sort_unstable();
    names.dedup();
    let of = needed.group.as_ref().map(|it| format!(" of {it}")).unwrap_or_default();
    let by = if names.is_empty() { String::new() } else { format!(": {}", names.join(", ")) };
    let text = format!("{} of {} approvals{of}{by}", names.len(), needed.count);
    match names.len() >= needed.count {
        true => out.note(Gate::Approvals, Met, text),
        false => out.wait(Gate::Approvals, None, text),
    }
}

/// Freezes and holds: each denies, whatever others allow, unless two people break the glass.
pub fn freezes(it: &Question<'_>, out: &mut Decision) {
    let name = &it.environment.name;
    let broken = it.world.override_of(name, &it.facts.release.digest, it.now);
    let broken = broken.and_then(|it| {
        let second = it.confirmed.as_ref()?;
        Some(format!("{} and {second} override it until {}: {}", it.by, it.until, it.reason))
    });
    let mut denied = |gate, until: Option<Timestamp>, text: String| match &broken {
        Some(by) => out.note(gate, Met, format!("{text}; {by}")),
        None => out.wait(gate, until, text),
    };
    let mut any = false;
    for freeze in it.pipeline.freezes_of(name) {
        let Some(end) = freeze.covers(it.now) else { continue };
        any = true;
        let text = format!("frozen by {} until {end}: {}", freeze.name, freeze.reason);
        denied(Gate::Freeze, Some(end), text);
    }
    for hold in it.world.holds_of(name, it.now) {
        any = true;
        let until = hold.until.map(|it| format!(" until {it}")).unwrap_or_default();
        let text = format!("held by {}{until}: {}", hold.by, hold.reason);
        denied(Gate::Hold, hold.until, text);
    }
    if !any {
        out.note(Gate::Freeze, Met, "nothing is frozen".to_owned());
    }
}

pub fn conditions(it: &Question<'_>, out: &mut Decision) {
    if it.environment.conditions.is_empty() {
        return;
    }
    let claims = it.facts.claims_of(&it.environment.demands.signers);
    let operands = it.facts.operands(&claims, &it.environment.name, it.now);
    for condition in &it.environment.conditions {
        let text = condition.text();
        let answers: Result<Vec<_>, _> = operands.iter().map(|it| condition.holds(it)).collect();
        match answers.map(|it| it.iter().all(|it| *it)) {
            Ok(true) => out.note(Gate::Condition, Met, text.to_owned()),
            Ok(false) => {
                let standing = if condition.asks_for_now() { Waits } else { Refused };
                out.note(Gate::Condition, standing, format!("not so: {text}"));
            }
            Err(error) => out.note(Gate::Condition, Refused, format!("{text}: {error}")),
        }
    }
}

pub fn checks(it: &Question<'_>, out: &mut Decision) {
    for (index, check) in it.environment.checks.iter().enumerate() {
        let name = &check.name;
        match it.checked.and_then(|it| it.get(index)) {
            Some(Ok(())) => out.note(Gate::Check, Met, format!("{name} passed")),
            Some(Err(why)) => out.note(Gate::Check, Refused, format!("{name} failed: {why}")),
            None => out.wait(Gate::Check, None, format!("{name} is asked last, and was not yet")),
        }
    }
}
