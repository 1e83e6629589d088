//! The steps that follow from what was declared.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::declared::{By, Declared, Rounding, Step, Strategy, Targets};

/// One step of a plan. Numbers of targets are all that have the new version in it, not only those that are new.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlannedStep {
    pub name: String,
    pub targets: usize,
    /// How many of these get it in this step.
    pub added: usize,
    /// Names of these targets, where they are known.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// Percent of the requests that the new version gets; `None`: whatever its targets get.
    pub traffic: Option<f64>,
    /// How many canary targets are compared with as many of the old version; 0 where none are left.
    pub compared: usize,
    /// How many of the old version are started anew in this step, to be compared with.
    pub fresh: usize,
    /// How many waves it takes at least to tell the targets of the step; 0: it tells none.
    pub waves: usize,
    pub gate: bool,
    pub begins_s: u64,
    pub bake_s: u64,
    /// What was rounded, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub name: String,
    pub strategy: String,
    pub targets: usize,
    pub steps: Vec<PlannedStep>,
    /// How many targets may be down or switching at once; null: all of a step.
    pub unavailable: Option<usize>,
    /// The targets stand beside those that serve, and get their requests.
    pub beside: bool,
    pub soak_s: u64,
    /// Seconds from the first step to the end of the soak, without what gates and installing take.
    pub least_s: u64,
    pub deadline_s: u64,
    /// What its owner should know, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What would happen, if nothing went wrong.
pub fn plan(declared: &Declared) -> Plan {
    let targets = declared.targets.count();
    let mut warnings = Vec::new();
    let (strategy, mut steps) = match &declared.strategy {
        Strategy::Canary { by, rounding, steps } => {
            ("canary", canary(&declared.targets, *by, *rounding, steps, &mut warnings))
        }
        Strategy::BlueGreen { bake, gate } => ("blue-green", blue_green(targets, *bake, *gate)),
        Strategy::Rings(rings) => {
            let step = |ring: &super::declared::Ring| PlannedStep {
                names: ring.targets.clone(),
                ..step(ring.name.clone(), ring.targets.len(), ring.bake, ring.gate)
            };
            ("rings", rings.iter().map(step).collect())
        }
    };
    let begins = finish(&mut steps, targets);
    let beside = declared.strategy.is_beside();
    match beside {
        true => compare_sets(&mut steps, targets),
        false if declared.judging.fresh => start_anew(&mut steps),
        false => {}
    }
    let unavailable = declared.pace.allowed(targets).unwrap_or_else(|none| {
        warnings.push(none.to_string());
        None
    });
    cut_into_waves(&mut steps, unavailable);
    let soak_s = declared.soak.as_secs();
    let (least_s, deadline_s) = (begins + soak_s, declared.deadline.as_secs());
    if least_s >= deadline_s {
        warnings.push(format!(
            "it takes at least {least_s} s, and is reverted after {deadline_s} s: raise deadline"
        ));
    }
    let name = declared.name.clone();
    Plan {
        name,
        strategy: strategy.to_owned(),
        targets,
        steps,
        unavailable,
        beside,
        soak_s,
        least_s,
        deadline_s,
        warnings,
    }
}

/// Compares, where there are two sets, the whole of one with the other, as long as both get requests.
fn compare_sets(steps: &mut [PlannedStep], each: usize) {
    for step in steps {
        let shares = step.traffic.is_some_and(|share| share > 0.0 && share < 100.0);
        step.compared = if shares { each } else { 0 };
    }
}

/// Has as many targets started anew as are added to the baseline: those that get the release last, from the end.
fn start_anew(steps: &mut [PlannedStep]) {
    let mut before = 0;
    for step in steps {
        step.fresh = step.compared.saturating_sub(before);
        before = before.max(step.compared);
    }
}

fn cut_into_waves(steps: &mut [PlannedStep], unavailable: Option<usize>) {
    for step in steps {
        let told = step.added + step.fresh;
        step.waves = told.div_ceil(unavailable.unwrap_or(told).max(1));
    }
}

impl PlannedStep {
    /// Places in the list of targets of those that are started anew, of so many targets.
    pub fn anew(&self, all: usize) -> std::ops::Range<usize> {
        let first = all.saturating_sub(self.compared);
        first..first.saturating_add(self.fresh).min(all)
    }
}

fn step(name: String, added: usize, bake: Duration, gate: bool) -> PlannedStep {
    let bake_s = bake.as_secs();
    PlannedStep {
        name,
        targets: 0,
        added,
        names: Vec::new(),
        traffic: None,
        compared: 0,
        fresh: 0,
        waves: 0,
        gate,
        begins_s: 0,
        bake_s,
        note: None,
    }
}

/// Fills in what follows from the steps before. Returns when the last one ends.
fn finish(steps: &mut [PlannedStep], all: usize) -> u64 {
    let (mut begins, mut targets) = (0_u64, 0);
    for step in steps {
        targets += step.added;
        (step.targets, step.begins_s) = (targets, begins);
        step.compared = targets.min(all.saturating_sub(targets));
        begins = begins.saturating_add(step.bake_s);
    }
    begins
}

/// How many of `all` targets a share is, and what had to be rounded, in words.
fn share_of(all: usize, share: f64, rounding: Rounding) -> (usize, Option<String>) {
    // Multiplied first: 10 % of 30 are 3, whatever a tenth is in binary.
    let exact = all as f64 * share / 100.0;
    let count = match rounding {
        Rounding::Up => (exact - 1e-9).ceil().max(1.0),
        Rounding::Down => (exact + 1e-9).floor(),
    };
    let count = (count as usize).min(all);
    let real = 100.0 * count as f64 / all as f64;
    let rounded = (count as f64 - exact).abs() > 1e-6;
    let note = rounded.then(|| {
        format!(
            "{share} % of {all} targets are {}: {count}, which are {} %",
            short(exact),
            short(real)
        )
    });
    (count, note)
}

/// The value to two decimals at most.
fn short(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

fn canary(
    targets: &Targets,
    by: By,
    rounding: Rounding,
    shares: &[Step],
    warnings: &mut Vec<String>,
) -> Vec<PlannedStep> {
    if by == By::Traffic {
        return by_traffic(targets.count(), shares);
    }
    let all = targets.count();
    let (mut steps, mut before) = (Vec::new(), 0);
    for share in shares {
        let (count, note) = share_of(all, share.share, rounding);
        let name = format!("{} %", share.share);
        if count <= before {
            let same = if count == 0 { "no target" } else { "the targets of the step before it" };
            warnings.push(format!("the step of {name} has {same}, and is left out"));
            continue;
        }
        let names = match targets {
            Targets::Named(names) => names.get(before..count).unwrap_or_default().to_vec(),
            Targets::Count(_) => Vec::new(),
        };
        steps.push(PlannedStep {
            names,
            note,
            traffic: (by == By::Both).then_some(share.share),
            ..step(name, count - before, share.bake, share.gate)
        });
        before = count;
    }
    steps
}

/// All targets run both versions before the first request goes to the new one.
fn by_traffic(all: usize, shares: &[Step]) -> Vec<PlannedStep> {
    let step = |(at, share): (usize, &Step)| PlannedStep {
        traffic: Some(share.share),
        ..step(format!("{} %", share.share), if at == 0 { all } else { 0 }, share.bake, share.gate)
    };
    shares.iter().enumerate().map(step).collect()
}

fn blue_green(all: usize, bake: Duration, gate: bool) -> Vec<PlannedStep> {
    let green = step("install beside".to_owned(), all, bake, false);
    let switch = step("switch".to_owned(), 0, bake, gate);
    vec![
        PlannedStep { traffic: Some(0.0), ..green },
        PlannedStep { traffic: Some(100.0), ..switch },
    ]
}
