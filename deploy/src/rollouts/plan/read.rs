//! Rollouts as files: TOML. What is wrong is told with its line and column, and a key that nobody knows
//! with the nearest known one. docs/rollouts.md has the format.

use std::collections::HashSet;
use std::time::Duration;

use super::declared::{By, Declared, Ring, Rounding, Step, Strategy, Targets};
use super::{drilling, driving, judging, pace, sets};
use crate::toml::{Field, Fields, FileError, TableError, file, time};

/// Bytes of a declaration.
pub const MAX_BYTES: usize = 1 << 20;
pub const MAX_STEPS: usize = 100;
pub const MAX_TARGETS: usize = 100_000;

const BAKE: Duration = Duration::from_secs(10 * 60);
const SOAK: Duration = Duration::from_secs(60 * 60);
const DEADLINE: Duration = Duration::from_secs(24 * 60 * 60);
/// Percent, where no steps are declared.
const SHARES: [f64; 4] = [1.0, 10.0, 50.0, 100.0];

/// Reads the declaration of a rollout.
pub fn read(text: &str) -> Result<Declared, FileError> {
    file(text, ("a rollout", MAX_BYTES), declared)
}

fn declared(top: &Fields<'_>) -> Result<Declared, TableError> {
    let own = [
        "name", "strategy", "by", "rounding", "steps", "step", "ring", "targets", "bake", "gate",
        "soak", "deadline", "metric", "judge", "drill",
    ];
    top.only(&[&own[..], &driving::KNOWN, &pace::KNOWN, &sets::KNOWN].concat())?;
    let bake = time(top, "bake")?.unwrap_or(BAKE);
    let strategy = match top.get("strategy") {
        None => "canary",
        Some(field) => field.one_of(&["canary", "blue-green", "rings"])?,
    };
    for (key, of) in [
        ("by", "canary"),
        ("rounding", "canary"),
        ("steps", "canary"),
        ("step", "canary"),
        ("ring", "rings"),
        ("gate", "blue-green"),
    ] {
        if let Some(field) = top.get(key).filter(|_| strategy != of) {
            return Err(
                field.error(&format!("is for strategy = \"{of}\", and this is \"{strategy}\""))
            );
        }
    }
    let (strategy, targets) = match strategy {
        "rings" => {
            let rings = rings(top, bake)?;
            let named = rings.iter().flat_map(|ring| ring.targets.clone()).collect();
            if let Some(field) = top.get("targets") {
                return Err(field.error("each ring names its targets"));
            }
            (Strategy::Rings(rings), Targets::Named(named))
        }
        "blue-green" => {
            let gate = top.get("gate").map_or(Ok(false), |field| field.flag())?;
            (Strategy::BlueGreen { bake, gate }, targets(&top.need("targets")?)?)
        }
        _ => (canary(top, bake)?, targets(&top.need("targets")?)?),
    };
    let name = top.get("name").map_or(Ok("rollout"), |field| field.text())?.to_owned();
    let judging = judging::read(top)?;
    beside_or_not(top, &strategy, judging.fresh)?;
    Ok(Declared {
        driving: driving::read(top, &name)?,
        judging,
        drilling: drilling::read(top)?,
        pace: pace::read(top)?,
        sets: sets::read(top, strategy.is_beside())?,
        name,
        strategy,
        targets,
        soak: time(top, "soak")?.unwrap_or(SOAK),
        deadline: time(top, "deadline")?.unwrap_or(DEADLINE),
    })
}

/// What means nothing where the new version is installed beside what serves.
fn beside_or_not(top: &Fields<'_>, strategy: &Strategy, fresh: bool) -> Result<(), TableError> {
    if !strategy.is_beside() {
        return Ok(());
    }
    for key in pace::KNOWN {
        if let Some(field) = top.get(key) {
            return Err(field.error("nothing that serves is restarted here"));
        }
    }
    if let Some(field) = top.get("judge").filter(|_| fresh) {
        return Err(field.error("baseline = \"fresh\": nothing that serves is restarted here"));
    }
    match top.get("targets") {
        Some(field) if field.list(MAX_TARGETS).is_ok() => {
            Err(field.error("of two sets it is said how many targets each has"))
        }
        _ => Ok(()),
    }
}

fn targets(field: &Field<'_>) -> Result<Targets, TableError> {
    if let Ok(count) = field.number(1..=MAX_TARGETS as u64) {
        return Ok(Targets::Count(count as usize));
    }
    let wrong = || field.error("expected a number of targets from 1 on, or a list of their names");
    let names = field.list(MAX_TARGETS).map_err(|_| wrong())?;
    if names.is_empty() {
        return Err(wrong());
    }
    named(&names, &mut HashSet::new()).map(Targets::Named)
}

/// Names, none of which was there before.
fn named(fields: &[Field<'_>], known: &mut HashSet<String>) -> Result<Vec<String>, TableError> {
    let name = |field: &Field<'_>| {
        let name = field.text()?.to_owned();
        if name.is_empty() || !known.insert(name.clone()) {
            return Err(field.error(&format!("the target {name:?} is empty or stands there twice")));
        }
        Ok(name)
    };
    fields.iter().map(name).collect()
}

fn canary(top: &Fields<'_>, bake: Duration) -> Result<Strategy, TableError> {
    let by = match top
        .get("by")
        .map(|field| field.one_of(&["targets", "traffic", "both"]))
        .transpose()?
    {
        Some("traffic") => By::Traffic,
        Some("both") => By::Both,
        _ => By::Targets,
    };
    let rounding =
        match top.get("rounding").map(|field| field.one_of(&["up", "down"])).transpose()? {
            Some("down") => Rounding::Down,
            _ => Rounding::Up,
        };
    let steps = match (top.get("steps"), top.get("step")) {
        (Some(_), Some(step)) => {
            return Err(step.error("either steps = [...] or [[step]], not both"));
        }
        (Some(steps), None) => short_steps(&steps, bake)?,
        (None, Some(steps)) => long_steps(&steps, bake)?,
        (None, None) => SHARES.map(|share| Step { share, bake, gate: false }).to_vec(),
    };
    Ok(Strategy::Canary { by, rounding, steps })
}

fn short_steps(field: &Field<'_>, bake: Duration) -> Result<Vec<Step>, TableError> {
    let list = field.list(MAX_STEPS)?;
    let mut steps: Vec<Step> = Vec::new();
    for item in &list {
        let share = share(item, &steps)?;
        steps.push(Step { share, bake, gate: false });
    }
    whole(field, steps)
}

fn long_steps(field: &Field<'_>, bake: Duration) -> Result<Vec<Step>, TableError> {
    let mut steps: Vec<Step> = Vec::new();
    for item in &field.list(MAX_STEPS)? {
        let fields = item.fields()?;
        fields.only(&["percent", "bake", "gate"])?;
        let share = share(&fields.need("percent")?, &steps)?;
        let gate = fields.get("gate").map_or(Ok(false), |field| field.flag())?;
        steps.push(Step { share, bake: time(&fields, "bake")?.unwrap_or(bake), gate });
    }
    whole(field, steps)
}

/// A percentage that is above the one before it.
fn share(field: &Field<'_>, before: &[Step]) -> Result<f64, TableError> {
    let share =
        field.decimal().ok_or_else(|| field.error("expected percent, above 0 and at most 100"))?;
    let last = before.last().map_or(0.0, |step| step.share);
    if share <= last || share > 100.0 {
        return Err(field.error(&format!("expected percent, above {last} and at most 100")));
    }
    Ok(share)
}

fn whole(field: &Field<'_>, steps: Vec<Step>) -> Result<Vec<Step>, TableError> {
    match steps.last() {
        Some(last) if last.share == 100.0 => Ok(steps),
        Some(_) => {
            Err(field.error("the last step has to be 100 percent: nothing may stay half way"))
        }
        None => Err(field.error("there is no step")),
    }
}

fn rings(top: &Fields<'_>, bake: Duration) -> Result<Vec<Ring>, TableError> {
    let list = top.need("ring")?.list(MAX_STEPS)?;
    let (mut targets, mut names, mut rings) = (HashSet::new(), HashSet::new(), Vec::new());
    for item in &list {
        let fields = item.fields()?;
        fields.only(&["name", "targets", "bake", "gate"])?;
        let name = fields.need("name")?;
        if !names.insert(name.text()?.to_owned()) {
            return Err(name.error("there is a ring of this name before it"));
        }
        let members = fields.need("targets")?;
        let listed = named(&members.list(MAX_TARGETS)?, &mut targets)?;
        if listed.is_empty() {
            return Err(members.error("a ring has at least one target"));
        }
        rings.push(Ring {
            name: name.text()?.to_owned(),
            targets: listed,
            bake: time(&fields, "bake")?.unwrap_or(bake),
            gate: fields.get("gate").map_or(Ok(false), |field| field.flag())?,
        });
    }
    if rings.is_empty() { Err(top.error("there is no [[ring]]".to_owned())) } else { Ok(rings) }
}
