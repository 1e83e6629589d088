//! Reads what begins runs.

use std::collections::BTreeMap;

use kiln_net::toml::{Fields, TableError};

use super::condition::patterns;
use super::declared::{Input, Missed, Origin, Schedule, Trigger};
use crate::pipelines::cron::{Cron, CronError};

const MAX_TRIGGERS: usize = 100;

pub fn read(
    top: &Fields<'_>,
    inputs: &BTreeMap<String, Input>,
) -> Result<Vec<Trigger>, TableError> {
    let list = top.get("trigger").map_or(Ok(Vec::new()), |field| field.list(MAX_TRIGGERS))?;
    list.iter().map(|item| one(&item.fields()?, inputs)).collect()
}

fn one(fields: &Fields<'_>, inputs: &BTreeMap<String, Input>) -> Result<Trigger, TableError> {
    let on = fields.need("on")?;
    let kind = on.one_of(&["push", "schedule", "release", "webhook"])?;
    let own: &[&str] = match kind {
        "push" => &["branches", "forge", "repository"],
        "schedule" => &["cron", "timezone", "missed", "inputs"],
        "release" => &["names"],
        _ => &[],
    };
    fields.only(&[&["on"][..], own].concat())?;
    // Nobody is there who could give what has no default.
    let given = match fields.get("inputs") {
        Some(field) => values(&field.fields()?, inputs)?,
        None => BTreeMap::new(),
    };
    let lacks =
        |(name, input): &(&String, &Input)| input.default.is_none() && !given.contains_key(*name);
    let origin = origin(fields)?;
    let calls = matches!(kind, "push" | "webhook") && origin.is_none();
    // A release gives its name.
    let mut lacking =
        inputs.iter().filter(lacks).filter(|(name, _)| kind != "release" || *name != "release");
    if let Some((name, _)) = lacking.next().filter(|_| !calls) {
        return Err(on.error(&format!("nobody gives the input {name:?}: it needs a default")));
    }
    Ok(match kind {
        "push" => Trigger::Push { branches: patterns(&fields.need("branches")?)?, origin },
        "schedule" => Trigger::Schedule(schedule(fields, given)?),
        "release" => Trigger::Release { names: patterns(&fields.need("names")?)? },
        _ => Trigger::Webhook,
    })
}

/// The repository of whose pushes a forge tells, if one does.
fn origin(fields: &Fields<'_>) -> Result<Option<Origin>, TableError> {
    if fields.get("forge").is_none() && fields.get("repository").is_none() {
        return Ok(None);
    }
    let (forge, repository) = (fields.need("forge")?, fields.need("repository")?);
    if !repository.text()?.contains('/') {
        return Err(repository.error("expected a repository's path, as in owner/name"));
    }
    let (forge, repository) = (forge.text()?.to_owned(), repository.text()?.to_owned());
    Ok(Some(Origin { forge, repository }))
}

fn schedule(fields: &Fields<'_>, inputs: BTreeMap<String, String>) -> Result<Schedule, TableError> {
    let zone = fields.get("timezone");
    let named = zone.as_ref().map_or(Ok("UTC"), |field| field.text())?;
    let expression = fields.need("cron")?;
    let wrong = |error: CronError| {
        let of_zone = zone.as_ref().filter(|_| matches!(error, CronError::Zone(_)));
        of_zone.unwrap_or(&expression).error(&error.to_string())
    };
    let cron = Cron::read(expression.text()?, named).map_err(wrong)?;
    let missed = match fields.get("missed").map(|it| it.one_of(&["once", "skip"])).transpose()? {
        Some("skip") => Missed::Skip,
        _ => Missed::Once,
    };
    Ok(Schedule { cron, missed, inputs })
}

/// Values of inputs, each of which is one that it may have.
fn values(
    fields: &Fields<'_>,
    inputs: &BTreeMap<String, Input>,
) -> Result<BTreeMap<String, String>, TableError> {
    let known: Vec<_> = inputs.keys().map(String::as_str).collect();
    fields.only(&known)?;
    let mut values = BTreeMap::new();
    for (name, field) in fields.entries(inputs.len())? {
        let value = field.text()?.to_owned();
        if inputs.get(&name).is_some_and(|it| !it.values.is_empty() && !it.values.contains(&value))
        {
            return Err(field.error("it is not among the values of this input"));
        }
        values.insert(name, value);
    }
    Ok(values)
}
