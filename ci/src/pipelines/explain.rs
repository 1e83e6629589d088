//! What a run would do, before it does it.

use serde::Serialize;

use super::file::Declared;
use super::laid::Laid;
use super::order::{behind, order};
use super::stage::{On, RetryOn, Stage};

/// A pipeline in words and numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explained {
    pub name: String,
    pub group: Option<String>,
    pub stages: Vec<ExplainedStage>,
    /// Names of the stages, one behind the other, for which the run takes as long as it does at most: by their limits of time.
    pub critical: Vec<String>,
    /// Seconds after which these would have to have ended, all attempts and pauses counted.
    pub at_most_s: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExplainedStage {
    pub name: String,
    pub kind: &'static str,
    /// Stages that may run at the same time have the same number, from 1 on; 0: it is left out.
    pub wave: usize,
    pub needs: Vec<String>,
    pub critical: bool,
    pub left_out: Option<String>,
    pub notes: Vec<String>,
    /// Seconds that one attempt may take.
    pub timeout_s: u64,
}

/// What stages need, as indexes.
pub fn needs(stages: &[Stage]) -> Vec<Vec<usize>> {
    let index = |need: &u32| usize::try_from(*need).ok();
    stages.iter().map(|stage| stage.needs.iter().filter_map(index).collect()).collect()
}

pub fn explain(declared: &Declared, laid: &Laid) -> Explained {
    let needs = needs(&laid.stages);
    let weights: Vec<u64> = laid.stages.iter().map(longest).collect();
    let path = critical_path(&needs, &weights);
    let waves = waves(&needs, &laid.stages);
    let name = |at: &usize| laid.stages.get(*at).map(|it| it.name.clone());
    let on_path: std::collections::HashSet<usize> = path.iter().copied().collect();
    let stages = laid.stages.iter().enumerate().map(|(at, stage)| ExplainedStage {
        name: stage.name.clone(),
        kind: stage.work.kind(),
        wave: waves.get(at).copied().unwrap_or(0),
        needs: needs.get(at).into_iter().flatten().filter_map(name).collect(),
        critical: on_path.contains(&at),
        left_out: stage.left_out.clone(),
        notes: notes(stage),
        timeout_s: stage.timeout.as_secs(),
    });
    Explained {
        name: declared.name.clone(),
        group: laid.group.clone(),
        stages: stages.collect(),
        at_most_s: path.iter().filter_map(|at| weights.get(*at)).sum(),
        critical: path.iter().filter_map(name).collect(),
    }
}

/// Seconds that a stage may take with all its attempts.
fn longest(stage: &Stage) -> u64 {
    if stage.left_out.is_some() {
        return 0;
    }
    let attempts = u64::from(stage.retry.again) + 1;
    let pauses: u64 = (1..=stage.retry.again).map(|at| stage.retry.pause(at).as_secs()).sum();
    stage.timeout.as_secs().saturating_mul(attempts).saturating_add(pauses)
}

/// The way through stages that is the longest, from one that needs none to one that none needs. What weighs nothing is not on it.
pub fn critical_path(needs: &[Vec<usize>], weights: &[u64]) -> Vec<usize> {
    let Ok(order) = order(needs) else { return Vec::new() };
    let weight = |at: usize| weights.get(at).copied().unwrap_or(0);
    // How long it takes to the end of each, and through which one before it.
    let mut ends: Vec<(u64, Option<usize>)> = vec![(0, None); needs.len()];
    for at in order {
        let end = |need: &usize| (ends.get(*need).map_or(0, |it| it.0), *need);
        let before = needs.get(at).into_iter().flatten().map(end);
        // Of two that end at the same time the first one.
        let last = before.max_by_key(|(end, need)| (*end, std::cmp::Reverse(*need)));
        let (start, through) = last.map_or((0, None), |(end, need)| (end, Some(need)));
        if let Some(place) = ends.get_mut(at) {
            *place = (start.saturating_add(weight(at)), through);
        }
    }
    let last = (0..needs.len())
        .max_by_key(|at| (ends.get(*at).map_or(0, |it| it.0), std::cmp::Reverse(*at)));
    let mut path = Vec::new();
    let mut at = last;
    while let Some(here) = at {
        if weight(here) > 0 {
            path.push(here);
        }
        at = ends.get(here).and_then(|it| it.1);
    }
    path.reverse();
    path
}

/// How many stages are before each at least, itself counted; those that are left out do not count.
fn waves(needs: &[Vec<usize>], stages: &[Stage]) -> Vec<usize> {
    let mut waves = vec![0; stages.len()];
    let mut before = vec![0; stages.len()];
    let behind = behind(needs);
    for at in order(needs).unwrap_or_default() {
        let base = before.get(at).copied().unwrap_or(0);
        let is_there = stages.get(at).is_some_and(|it| it.left_out.is_none());
        let depth = base + usize::from(is_there);
        if let Some(wave) = waves.get_mut(at).filter(|_| is_there) {
            *wave = depth;
        }
        for next in behind.get(at).into_iter().flatten() {
            if let Some(it) = before.get_mut(*next) {
                *it = depth.max(*it);
            }
        }
    }
    waves
}

fn notes(stage: &Stage) -> Vec<String> {
    let mut notes = Vec::new();
    match stage.on {
        On::Success => {}
        On::Failure => notes.push("only if something it needs failed".to_owned()),
        On::Always => notes.push("whatever became of what it needs".to_owned()),
    }
    if stage.retry.again > 0 {
        let what = match stage.retry.on {
            RetryOn::Infrastructure => "where it could not be run",
            RetryOn::Any => "where it fails",
        };
        let pause = stage.retry.backoff.as_secs();
        notes.push(format!(
            "{} more attempts {what}, after {pause} s and longer",
            stage.retry.again
        ));
    }
    if stage.may_fail {
        notes.push("its failure is no failure of the run".to_owned());
    }
    if stage.work.command().is_some_and(|it| it.network) {
        notes.push("asks for the network".to_owned());
    }
    notes
}
