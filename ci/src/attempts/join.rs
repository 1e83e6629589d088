//! Puts together what several sources know of one attempt.

use std::collections::{BTreeMap, HashMap};

use super::{Attempt, Known};
use crate::model::Outcome;

/// What must be equal for two attempts to be one. The configuration is not here: executions of older
/// clients do not know it.
type Place = (String, String, String, u32, u32);

/// Joins what is known of attempts, of one invocation or of several. The order of what is given does not
/// matter, and what was joined may be joined again, with more.
///
/// What a client reports of a slot belongs to the execution of that slot with the same log; where logs are
/// not known, to the first one with the same outcome; else to the first one that is left. Executions
/// that nobody reports are numbered behind those. All attempts of an invocation are of its commit, whoever told it.
pub fn join(attempts: Vec<Attempt>) -> Vec<Attempt> {
    let mut joined: Vec<_> = places(attempts).into_values().flat_map(join_place).collect();
    spread(&mut joined);
    joined
}

/// Executions know no commit and no branch: theirs are those of others of their invocation.
fn spread(attempts: &mut [Attempt]) {
    spread_field(attempts, |it| &mut it.commit);
    spread_field(attempts, |it| &mut it.branch);
}

/// Gives a field that some attempts of an invocation know to the others. Where those that know it disagree, the others
/// get nothing.
fn spread_field(
    attempts: &mut [Attempt],
    field: impl for<'a> Fn(&'a mut Attempt) -> &'a mut Option<String>,
) {
    // Instance and invocation.
    let build = |it: &Attempt| (it.test.instance.clone(), it.invocation.clone());
    let mut known: HashMap<(String, String), Option<String>> = HashMap::new();
    for it in attempts.iter_mut() {
        if let Some(told) = field(it).clone() {
            let same = |known: &String| *known == told;
            known
                .entry(build(it))
                .and_modify(|known| *known = known.take().filter(same))
                .or_insert(Some(told.clone()));
        }
    }
    if known.is_empty() {
        return;
    }
    for it in attempts.iter_mut() {
        if field(it).is_none() {
            let told = known.get(&build(it)).cloned().flatten();
            *field(it) = told;
        }
    }
}

fn places(attempts: Vec<Attempt>) -> BTreeMap<Place, Vec<Attempt>> {
    let mut places: BTreeMap<Place, Vec<Attempt>> = BTreeMap::new();
    for it in attempts {
        let test = &it.test;
        let place = (
            test.instance.clone(),
            test.label.clone(),
            it.invocation.clone(),
            it.slot.run,
            it.slot.shard,
        );
        places.entry(place).or_default().push(it);
    }
    places
}

/// Splits attempts in three: those of which executions and clients both told, those of executions alone, and the
/// others.
fn by_source(attempts: Vec<Attempt>) -> (Vec<Attempt>, Vec<Attempt>, Vec<Attempt>) {
    let is_run = |it: &Attempt| it.known.has(Known::EXECUTED) || it.known.has(Known::MERGED);
    let is_told = |it: &Attempt| it.known.has(Known::REPORTED) || it.known.has(Known::IMPORTED);
    let (both, rest): (Vec<_>, Vec<_>) =
        attempts.into_iter().partition(|it| is_run(it) && is_told(it));
    let (runs, told) = rest.into_iter().partition(is_run);
    (both, runs, told)
}

/// Leaves out accounts that say the same again, and joins nothing: what is told of an invocation piece by
/// piece must not be matched before it is seen together.
pub fn distinct(attempts: Vec<Attempt>) -> Vec<Attempt> {
    let distinct = |place: Vec<Attempt>| {
        let (both, runs, told) = by_source(place);
        let both = fold(both, |a, b| a.execution == b.execution && same_number(a, b));
        let runs = fold(runs, |a, b| a.execution == b.execution);
        both.into_iter().chain(runs).chain(fold(told, same_number))
    };
    places(attempts).into_values().flat_map(distinct).collect()
}

/// Leaves out what turned out to be no run of its own. Only for what is not joined with more any more.
pub fn settle(attempts: Vec<Attempt>) -> Vec<Attempt> {
    attempts.into_iter().filter(|it| !it.known.has(Known::MERGED)).collect()
}

fn join_place(attempts: Vec<Attempt>) -> Vec<Attempt> {
    let (both, runs, told) = by_source(attempts);
    let mut joined = fold(both, |a, b| a.execution == b.execution && same_number(a, b));
    let runs = absorb(&mut joined, fold(runs, |a, b| a.execution == b.execution), |a, b| {
        a.execution == b.execution
    });
    let told = absorb(&mut joined, fold(told, same_number), same_number);
    joined.extend(pair(runs, told));
    number(joined)
}

fn same_number(a: &Attempt, b: &Attempt) -> bool {
    a.slot.attempt == b.slot.attempt && compatible(a, b)
}

/// Whether both may be of one configuration.
fn compatible(a: &Attempt, b: &Attempt) -> bool {
    let (a, b) = (&a.test.configuration, &b.test.configuration);
    a == b || a.is_empty() || b.is_empty()
}

/// Attempts in an order that does not depend on how they came.
fn sorted(mut attempts: Vec<Attempt>) -> Vec<Attempt> {
    attempts.sort_by(|a, b| {
        let key = |it: &Attempt| (it.slot.attempt, it.started, it.execution);
        let rest = |it: &Attempt| (it.test.configuration.clone(), it.known, richness(it));
        key(a).cmp(&key(b)).then_with(|| rest(a).cmp(&rest(b)))
    });
    attempts
}

/// Puts together accounts of the same attempt, which `same` recognises, so that it counts once.
fn fold(attempts: Vec<Attempt>, same: impl Fn(&Attempt, &Attempt) -> bool) -> Vec<Attempt> {
    let mut out: Vec<Attempt> = Vec::new();
    for it in sorted(attempts) {
        match out.iter_mut().find(|known| same(known, &it)) {
            Some(known) => merge(known, it),
            None => out.push(it),
        }
    }
    out
}

/// What the joined ones have taken up already goes to them; the others are given back.
fn absorb(
    joined: &mut [Attempt],
    attempts: Vec<Attempt>,
    same: impl Fn(&Attempt, &Attempt) -> bool,
) -> Vec<Attempt> {
    let mut left = Vec::new();
    for it in attempts {
        match joined.iter_mut().find(|known| same(known, &it)) {
            Some(known) => merge(known, it),
            None => left.push(it),
        }
    }
    left
}

/// Whether an execution and what was told are one attempt.
type Rule<'a> = &'a dyn Fn(&Attempt, &Attempt) -> bool;

/// Runs in the order in which they began, and what was told in the order of its numbers.
fn pair(mut runs: Vec<Attempt>, mut told: Vec<Attempt>) -> Vec<Attempt> {
    runs.sort_by_key(|it| (it.started, it.execution));
    let same_log = |a: &Attempt, b: &Attempt| a.log.is_some() && a.log == b.log;
    let both_logs = |a: &Attempt, b: &Attempt| a.log.is_some() && b.log.is_some();
    let mut joined = Vec::new();
    let rules: [Rule<'_>; 3] =
        [&same_log, &|a, b| a.outcome == b.outcome && !both_logs(a, b), &|a, b| {
            let says_nothing = |it: &Attempt| it.outcome == Outcome::Infrastructure;
            !says_nothing(a) && !says_nothing(b)
        }];
    for rule in rules {
        let mut left = Vec::new();
        for it in told {
            let fits = |run: &Attempt| compatible(run, &it) && rule(run, &it);
            match runs.iter().position(fits) {
                Some(at) => {
                    let mut run = runs.remove(at);
                    merge(&mut run, it);
                    joined.push(run);
                }
                None => left.push(it),
            }
        }
        told = left;
    }
    joined.extend(runs);
    joined.extend(told);
    joined
}

/// Numbers attempts by configuration. Those that nobody numbered come behind those that somebody did, in the order in
/// which they began.
fn number(attempts: Vec<Attempt>) -> Vec<Attempt> {
    let mut by_configuration: BTreeMap<String, Vec<Attempt>> = BTreeMap::new();
    for it in attempts {
        by_configuration.entry(it.test.configuration.clone()).or_default().push(it);
    }
    by_configuration.into_values().flat_map(number_configuration).collect()
}

fn number_configuration(attempts: Vec<Attempt>) -> Vec<Attempt> {
    let is_numbered = |it: &Attempt| it.known.has(Known::REPORTED) || it.known.has(Known::IMPORTED);
    let (mut numbered, mut rest): (Vec<_>, Vec<_>) = attempts.into_iter().partition(is_numbered);
    let mut next = numbered.iter().map(|it| it.slot.attempt).max().unwrap_or(0);
    rest.sort_by_key(|it| (it.started, it.execution));
    for it in &mut rest {
        next = next.saturating_add(1);
        it.slot.attempt = next;
    }
    numbered.append(&mut rest);
    numbered.sort_by_key(|it| (it.slot.attempt, it.started, it.execution));
    numbered
}

/// What of two accounts of one attempt says more.
fn richness(it: &Attempt) -> (usize, bool, bool) {
    (it.cases.len(), it.failure.is_some(), it.log.is_some())
}

/// Executions know times, worker and inputs; the client knows which attempt it was and what it made of it.
fn merge(into: &mut Attempt, other: Attempt) {
    let executed = |it: &Attempt| it.known.has(Known::EXECUTED);
    let told = |it: &Attempt| it.known.has(Known::REPORTED) || it.known.has(Known::IMPORTED);
    let (mut one, mut two) = (std::mem::replace(into, placeholder(&other)), other);
    // `one` is the better witness of what happened.
    if executed(&two) && !executed(&one) {
        std::mem::swap(&mut one, &mut two);
    }
    if told(&two) && !told(&one) {
        one.outcome = two.outcome;
        one.slot.attempt = two.slot.attempt;
    }
    one.known |= two.known;
    fill(&mut one.test.configuration, two.test.configuration);
    fill(&mut one.worker, two.worker);
    fill(&mut one.strategy, two.strategy);
    one.shards = one.shards.max(two.shards);
    one.execution = one.execution.max(two.execution);
    if one.started.0 == 0 {
        one.started = two.started;
    }
    one.duration = one.duration.or(two.duration);
    one.set_up = one.set_up.or(two.set_up);
    one.action = one.action.or(two.action);
    one.identity = one.identity.or(two.identity);
    one.seed = one.seed.or(two.seed);
    one.log = one.log.or(two.log);
    one.failure = one.failure.or(two.failure);
    one.commit = one.commit.or(two.commit);
    one.branch = one.branch.or(two.branch);
    if two.cases.len() > one.cases.len() {
        one.cases = two.cases;
    }
    *into = one;
}

fn placeholder(it: &Attempt) -> Attempt {
    Attempt::new(it.test.clone(), "", it.slot, it.known)
}

fn fill(into: &mut String, other: String) {
    if into.is_empty() {
        *into = other;
    }
}

#[cfg(test)]
mod tests;
