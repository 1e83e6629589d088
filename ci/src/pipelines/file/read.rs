//! Reads a whole file.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use kiln_net::toml::{Field, Fields, FileError, TableError, file, time};

use super::declared::{Busy, Concurrency, Declared, Input};
use super::names::{is_word, named};
use super::scope::{Known, Scope, Stages};
use super::{stage, triggers};
use crate::pipelines::MAX_STAGES;

/// Bytes of a file.
pub const MAX_BYTES: usize = 1 << 20;
const MAX_INPUTS: usize = 50;
/// Values that an input may have.
const MAX_VALUES: usize = 100;
const MAX_DESCRIPTION: usize = 1_000;

const TIMEOUT: Duration = Duration::from_secs(24 * 3_600);

/// Reads a declaration. It is whole: each stage that is needed is there, and none needs itself.
pub fn read(text: &str) -> Result<Declared, FileError> {
    file(text, ("a pipeline", MAX_BYTES), declared)
}

fn declared(top: &Fields<'_>) -> Result<Declared, TableError> {
    top.only(&["name", "description", "inputs", "trigger", "concurrency", "timeout", "stage"])?;
    let name = named(&top.need("name")?)?;
    let description = top.get("description").map_or(Ok(""), |field| field.text())?;
    let inputs = inputs(top)?;
    let list = top.need("stage")?.list(MAX_STAGES)?;
    if list.is_empty() {
        return Err(top.error("there is no [[stage]]".to_owned()));
    }
    let stages = known(&list)?;
    let scope = Scope { inputs: inputs.keys().map(String::as_str).collect(), ..Scope::default() };
    Ok(Declared {
        triggers: triggers::read(top, &inputs)?,
        concurrency: concurrency(top, &scope)?,
        timeout: time(top, "timeout")?.unwrap_or(TIMEOUT),
        stages: stage::read(&list, &stages, &inputs)?,
        name,
        description: description.chars().take(MAX_DESCRIPTION).collect(),
        inputs,
    })
}

fn inputs(top: &Fields<'_>) -> Result<BTreeMap<String, Input>, TableError> {
    let Some(field) = top.get("inputs") else { return Ok(BTreeMap::new()) };
    let mut inputs = BTreeMap::new();
    for (name, field) in field.fields()?.entries(MAX_INPUTS)? {
        if !is_word(&name) {
            let message =
                "an input is called by small letters, digits and _, and a letter is first";
            return Err(field.error(message));
        }
        let fields = field.fields()?;
        fields.only(&["default", "values"])?;
        let default = fields.get("default").map(|it| it.text().map(str::to_owned)).transpose()?;
        let values = fields.get("values").map_or(Ok(Vec::new()), |it| it.texts(MAX_VALUES))?;
        if let Some(default) = default.as_ref().filter(|it| !allows(&values, it)) {
            return Err(field.error(&format!("the default {default:?} is not among its values")));
        }
        inputs.insert(name, Input { default, values });
    }
    Ok(inputs)
}

fn allows(values: &[String], value: &String) -> bool {
    values.is_empty() || values.contains(value)
}

fn concurrency(top: &Fields<'_>, scope: &Scope<'_>) -> Result<Option<Concurrency>, TableError> {
    let Some(field) = top.get("concurrency") else { return Ok(None) };
    let fields = field.fields()?;
    fields.only(&["group", "busy"])?;
    let group = fields.need("group")?;
    let text = scope.text(&group)?;
    if text.is_empty() || text.len() > 300 {
        return Err(group.error("a group has 1 to 300 characters"));
    }
    let busy = match fields.get("busy").map(|it| it.one_of(&["queue", "supersede"])).transpose()? {
        Some("supersede") => Busy::Supersede,
        _ => Busy::Queue,
    };
    Ok(Some(Concurrency { group: text, busy }))
}

/// What stages there are, before any of them is read.
fn known(list: &[Field<'_>]) -> Result<Stages, TableError> {
    let mut known: Stages = HashMap::new();
    for (index, item) in list.iter().enumerate() {
        let fields = item.fields()?;
        let name = fields.need("name")?;
        let kind = fields.get("kind").map_or(Ok("command"), |field| field.text())?;
        let has_matrix = fields.get("matrix").is_some();
        let stage = Known { index, has_matrix, builds: kind == "build" };
        if known.insert(named(&name)?, stage).is_some() {
            return Err(name.error("there is a stage of this name before it"));
        }
    }
    Ok(known)
}
