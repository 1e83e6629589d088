//! Puts together what several sources know of one attempt.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::account::{Account, Gist};
use super::{Attempt, Known};
use crate::model::{Outcome, Time};

/// What must be equal for two attempts to be one. The configuration is not here: executions of older
/// clients do not know it. Parts are apart from what was put together of them: no client
/// tells of any of these.
type Place<'a> = (&'a str, &'a str, &'a str, u32, u32, bool);
type OwnedPlace = (String, String, String, u32, u32, bool);

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

fn place(it: &Attempt) -> Place<'_> {
    let test = &it.test;
    let (instance, label) = (test.instance.as_str(), test.label.as_str());
    (instance, label, it.invocation.as_str(), it.slot.run, it.slot.shard, it.is_part())
}

fn places(attempts: Vec<Attempt>) -> BTreeMap<OwnedPlace, Vec<Attempt>> {
    let mut places: BTreeMap<OwnedPlace, Vec<Attempt>> = BTreeMap::new();
    for it in attempts {
        let (instance, label, invocation, run, shard, is_part) = place(&it);
        let names = (instance.to_owned(), label.to_owned(), invocation.to_owned());
        let place = (names.0, names.1, names.2, run, shard, is_part);
        places.entry(place).or_default().push(it);
    }
    places
}

/// Splits accounts in three: those of which executions and clients both told, those of executions alone, and the
/// others.
fn by_source<A: Account>(accounts: Vec<A>) -> (Vec<A>, Vec<A>, Vec<A>) {
    let (both, rest): (Vec<A>, Vec<A>) =
        accounts.into_iter().partition(|it| is_run(it) && is_told(it));
    let (runs, told) = rest.into_iter().partition(is_run);
    (both, runs, told)
}

fn is_run<A: Account>(it: &A) -> bool {
    let known = it.gist().known;
    known.has(Known::EXECUTED) || known.has(Known::MERGED)
}

fn is_told<A: Account>(it: &A) -> bool {
    let known = it.gist().known;
    known.has(Known::REPORTED) || known.has(Known::IMPORTED)
}

/// Leaves out accounts that say the same again, and joins nothing: what is told of an invocation piece by
/// piece must not be matched before it is seen together. Where nothing is left out, attempts are lent as they are.
pub fn distinct(attempts: &[Attempt]) -> Vec<Cow<'_, Attempt>> {
    let mut by_place: Vec<&Attempt> = attempts.iter().collect();
    by_place.sort_by_key(|&it| place(it));
    by_place.chunk_by(|&a, &b| place(a) == place(b)).flat_map(distinct_at).collect()
}

/// Does for the accounts at one place what [`distinct`] does.
fn distinct_at<'a>(place: &[&'a Attempt]) -> Vec<Cow<'a, Attempt>> {
    let mut seen = HashSet::with_capacity(place.len());
    // Executions that no client has told of yet are known by their numbers alone.
    let is_new = |it: &&Attempt| is_run(*it) && !is_told(*it) && seen.insert(it.execution);
    if place.len() < 2 || place.iter().all(is_new) {
        return place.iter().map(|&it| Cow::Borrowed(it)).collect();
    }
    let (both, runs, told) = by_source(place.iter().map(|&it| it.clone()).collect());
    let both = fold(both, |a, b| same_execution(a, b) && same_number(a, b));
    let runs = fold(runs, same_execution);
    both.into_iter().chain(runs).chain(fold(told, same_number)).map(Cow::Owned).collect()
}

/// Leaves out what turned out to be no run of its own. Only for what is not joined with more any more.
pub fn settle(attempts: Vec<Attempt>) -> Vec<Attempt> {
    attempts.into_iter().filter(|it| !it.known.has(Known::MERGED)).collect()
}

/// Joins what is known of one run and shard of a test in one invocation, in whatever configurations.
pub fn join_place<A: Account>(mut accounts: Vec<A>) -> Vec<A> {
    if accounts.len() < 2 {
        number(&mut accounts);
        return accounts;
    }
    let (both, runs, told) = by_source(accounts);
    let mut joined = fold(both, |a, b| same_execution(a, b) && same_number(a, b));
    let runs = fold(runs, same_execution);
    let runs = absorb(&mut joined, runs, same_execution);
    let told = fold(told, same_number);
    let told = absorb(&mut joined, told, same_number);
    joined.extend(pair(runs, told));
    number(&mut joined);
    joined
}

fn same_execution<A: Account>(a: &A, b: &A) -> bool {
    a.gist().execution == b.gist().execution
}

fn same_number<A: Account>(a: &A, b: &A) -> bool {
    a.gist().attempt == b.gist().attempt && compatible(a, b)
}

/// Whether both may be of one configuration.
fn compatible<A: Account>(a: &A, b: &A) -> bool {
    let (a, b) = (a.configuration(), b.configuration());
    a == b || a.is_empty() || b.is_empty()
}

/// Accounts in an order that does not depend on how they came.
fn sorted<A: Account>(mut accounts: Vec<A>) -> Vec<A> {
    accounts.sort_by(|a, b| {
        let rest = |it: &A| (it.gist().known, it.richness());
        by_number(a)
            .cmp(&by_number(b))
            .then_with(|| a.configuration().cmp(b.configuration()))
            .then_with(|| rest(a).cmp(&rest(b)))
    });
    accounts
}

/// The order of attempts that are numbered.
fn by_number<A: Account>(it: &A) -> (u32, Time, u64) {
    let gist = it.gist();
    (gist.attempt, gist.started, gist.execution)
}

/// The order in which executions began.
fn by_start<A: Account>(it: &A) -> (Time, u64) {
    let gist = it.gist();
    (gist.started, gist.execution)
}

/// Puts together accounts of the same attempt, which `same` recognises, so that it counts once.
fn fold<A: Account>(accounts: Vec<A>, same: impl Fn(&A, &A) -> bool) -> Vec<A> {
    let mut out: Vec<A> = Vec::new();
    for it in sorted(accounts) {
        match out.iter_mut().find(|known| same(known, &it)) {
            Some(known) => merge(known, it),
            None => out.push(it),
        }
    }
    out
}

/// What the joined ones have taken up already goes to them; the others are given back.
fn absorb<A: Account>(joined: &mut [A], accounts: Vec<A>, same: impl Fn(&A, &A) -> bool) -> Vec<A> {
    let mut left = Vec::new();
    for it in accounts {
        match joined.iter_mut().find(|known| same(known, &it)) {
            Some(known) => merge(known, it),
            None => left.push(it),
        }
    }
    left
}

/// Runs in the order in which they began, and what was told in the order of its numbers.
fn pair<A: Account>(mut runs: Vec<A>, mut told: Vec<A>) -> Vec<A> {
    // Whether an execution and what was told are one attempt.
    let rules: [fn(&A, &A) -> bool; 3] = [A::shares_log, same_outcome, both_say_something];
    runs.sort_by_key(by_start);
    let mut joined = Vec::new();
    for rule in rules {
        let mut left = Vec::new();
        for it in told {
            match runs.iter().position(|run| compatible(run, &it) && rule(run, &it)) {
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

/// Whether the outcome is one, of accounts whose logs do not say that they are of two attempts.
fn same_outcome<A: Account>(a: &A, b: &A) -> bool {
    a.gist().outcome == b.gist().outcome && !(a.has_log() && b.has_log())
}

fn both_say_something<A: Account>(a: &A, b: &A) -> bool {
    let says_something = |it: &A| it.gist().outcome != Outcome::Infrastructure;
    says_something(a) && says_something(b)
}

/// Numbers attempts by configuration. Those that nobody numbered come behind those that somebody did, in the order in
/// which they began.
fn number<A: Account>(accounts: &mut [A]) {
    accounts.sort_by(|a, b| a.configuration().cmp(b.configuration()));
    for own in accounts.chunk_by_mut(|a, b| a.configuration() == b.configuration()) {
        number_configuration(own);
    }
}

fn number_configuration<A: Account>(accounts: &mut [A]) {
    let numbered = accounts.iter().filter(|it| is_told(*it));
    let mut next = numbered.map(|it| it.gist().attempt).max().unwrap_or(0);
    accounts.sort_by_key(by_start);
    for it in accounts.iter_mut() {
        if !is_told(it) {
            next = next.saturating_add(1);
            let gist = it.gist();
            it.set_gist(Gist { attempt: next, ..gist });
        }
    }
    accounts.sort_by_key(by_number);
}

/// Executions know times, worker and inputs; the client knows which attempt it was and what it made of it.
fn merge<A: Account>(into: &mut A, mut other: A) {
    let is_executed = |it: &A| it.gist().known.has(Known::EXECUTED);
    // What stays is what the better witness of what happened says.
    if is_executed(&other) && !is_executed(into) {
        std::mem::swap(into, &mut other);
    }
    let (mut gist, more) = (into.gist(), other.gist());
    if is_told(&other) && !is_told(into) {
        gist.outcome = more.outcome;
        gist.attempt = more.attempt;
    }
    gist.known |= more.known;
    gist.execution = gist.execution.max(more.execution);
    if gist.started == Time(0) {
        gist.started = more.started;
    }
    into.set_gist(gist);
    into.fill(other);
}

#[cfg(test)]
mod tests;
