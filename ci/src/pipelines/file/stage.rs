//! Reads stages out of a pipeline's file.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kiln_net::toml::{Field, Fields, TableError, nearest, time};

use super::declared::{DeclaredStage, Input};
use super::names::named;
use super::scope::{Scope, Stages};
use super::{condition, matrix, work};
use crate::pipelines::MAX_STAGES;
use crate::pipelines::order;
use crate::pipelines::stage::{On, Retry, RetryOn};

/// What stages need, all together.
const MAX_NEEDS: usize = 100_000;
/// Cells of all matrices, those counted that are excluded.
const MAX_CELLS: usize = 2 * MAX_STAGES;
/// Attempts after the first.
const MAX_RETRIES: u64 = 20;
const BACKOFF: Duration = Duration::from_secs(10);
const TIMEOUT: Duration = Duration::from_secs(3_600);
/// How long people are waited for.
const PATIENCE: Duration = Duration::from_secs(7 * 86_400);
/// Stages of a circle that a message names.
const SHOWN: usize = 20;

/// Keys of each stage.
const KNOWN: [&str; 11] = [
    "name", "kind", "needs", "on", "when", "matrix", "retries", "backoff", "retry_on", "timeout",
    "may_fail",
];

pub fn read(
    list: &[Field<'_>],
    stages: &Stages,
    inputs: &BTreeMap<String, Input>,
) -> Result<Vec<DeclaredStage>, TableError> {
    let (mut read, mut needed, mut cells) = (Vec::with_capacity(list.len()), 0, 0usize);
    for item in list {
        let fields = item.fields()?;
        let stage = one(&fields, stages, inputs)?;
        needed += stage.needs.len();
        if needed > MAX_NEEDS {
            return Err(item.error(&format!("stages need more than {MAX_NEEDS} others in all")));
        }
        cells = cells.saturating_add(matrix::size(&stage.matrix));
        if cells > MAX_CELLS {
            return Err(item.error(&format!("matrices have more than {MAX_CELLS} cells in all")));
        }
        read.push(stage);
    }
    acyclic(list, &read, stages)?;
    Ok(read)
}

fn one(
    fields: &Fields<'_>,
    stages: &Stages,
    inputs: &BTreeMap<String, Input>,
) -> Result<DeclaredStage, TableError> {
    let kind = fields.get("kind").map_or(Ok("command"), |field| field.one_of(&work::KINDS))?;
    fields.only(&[&KNOWN[..], work::keys(kind)].concat())?;
    let name = fields.need("name")?;
    let needs = needs(fields, name.text()?, stages)?;
    let matrix = matrix::read(fields)?;
    let scope = Scope {
        inputs: inputs.keys().map(String::as_str).collect(),
        axes: matrix.axes.iter().map(|(name, _)| name.as_str()).collect(),
        needs: needs.iter().map(String::as_str).collect(),
        stages: Some(stages),
    };
    let work = work::read(fields, kind, &scope)?;
    let patience = if kind == "approve" { PATIENCE } else { TIMEOUT };
    Ok(DeclaredStage {
        on: on(fields)?,
        when: condition::read(fields, inputs)?,
        retry: retry(fields, kind)?,
        timeout: time(fields, "timeout")?.filter(|it| !it.is_zero()).unwrap_or(patience),
        may_fail: fields.get("may_fail").map_or(Ok(false), |field| field.flag())?,
        name: named(&name)?,
        needs,
        matrix,
        work,
    })
}

fn needs(fields: &Fields<'_>, own: &str, stages: &Stages) -> Result<Vec<String>, TableError> {
    let Some(field) = fields.get("needs") else { return Ok(Vec::new()) };
    let mut needs = BTreeSet::new();
    for item in field.list(MAX_STAGES)? {
        let name = item.text()?;
        if !stages.contains_key(name) {
            // Among very many names nobody is helped by the nearest one.
            let hint = nearest(name, stages.keys().map(String::as_str).take(1_000));
            let hint = hint.map(|it| format!("; did you mean {it:?}?")).unwrap_or_default();
            return Err(item.error(&format!("there is no stage {name:?}{hint}")));
        }
        if name == own {
            return Err(item.error("a stage cannot need itself"));
        }
        if !needs.insert(name.to_owned()) {
            return Err(item.error("this stage stands there twice"));
        }
    }
    Ok(needs.into_iter().collect())
}

fn on(fields: &Fields<'_>) -> Result<On, TableError> {
    let words = ["success", "failure", "always"];
    let Some(field) = fields.get("on") else { return Ok(On::Success) };
    let on = match field.one_of(&words)? {
        "failure" => On::Failure,
        "always" => On::Always,
        _ => On::Success,
    };
    match on == On::Failure && fields.get("needs").is_none() {
        true => Err(field.error("it needs no stage that could fail")),
        false => Ok(on),
    }
}

fn retry(fields: &Fields<'_>, kind: &str) -> Result<Retry, TableError> {
    for key in ["retries", "backoff", "retry_on"] {
        if let Some(field) = fields.get(key).filter(|_| kind == "approve") {
            return Err(field.error("nobody is asked again for an approval"));
        }
    }
    let again = fields.get("retries").map_or(Ok(0), |field| field.number(0..=MAX_RETRIES))?;
    let words = ["infrastructure", "any"];
    let on = match fields.get("retry_on").map(|field| field.one_of(&words)).transpose()? {
        Some("any") => RetryOn::Any,
        _ => RetryOn::Infrastructure,
    };
    let backoff = time(fields, "backoff")?.unwrap_or(BACKOFF);
    Ok(Retry { again: u32::try_from(again).unwrap_or(0), backoff, on })
}

fn acyclic(list: &[Field<'_>], read: &[DeclaredStage], stages: &Stages) -> Result<(), TableError> {
    let index = |name: &String| stages.get(name).map(|it| it.index);
    let needs = |stage: &DeclaredStage| stage.needs.iter().filter_map(index).collect::<Vec<_>>();
    let needs: Vec<_> = read.iter().map(needs).collect();
    let Err(circle) = order::order(&needs) else { return Ok(()) };
    let name = |at: &usize| read.get(*at).map(|it| it.name.as_str());
    let mut names: Vec<_> = circle.iter().filter_map(name).take(SHOWN).collect();
    names.extend(if circle.len() > SHOWN { Some("...") } else { names.first().copied() });
    let message = format!("stages need each other in a circle: {}", names.join(" needs "));
    let first = circle.first().and_then(|at| list.get(*at));
    match first {
        Some(item) => Err(item.fields()?.need("name")?.error(&message)),
        None => Ok(()),
    }
}
