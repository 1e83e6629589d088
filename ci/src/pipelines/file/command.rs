//! Reads commands, which run as sandboxed actions.

use std::collections::BTreeMap;

use kiln_net::toml::{Field, Fields, TableError};

use super::names::is_variable;
use super::scope::Scope;
use crate::pipelines::stage::{Command, Program};

pub const MAX_ARGUMENTS: usize = 1_000;
const MAX_VARIABLES: usize = 200;
const MAX_PATHS: usize = 100;
const MAX_FROM: usize = 100;

/// Keys of a command; `reports` is for tests.
pub static KEYS: [&str; 11] = [
    "command",
    "script",
    "directory",
    "image",
    "platform",
    "environment",
    "secrets",
    "network",
    "outputs",
    "from",
    "reports",
];

pub fn read(fields: &Fields<'_>, scope: &Scope<'_>) -> Result<Command, TableError> {
    let texts = |key: &str| {
        let paths = fields.get(key).map(|field| paths(&field, scope)).transpose()?;
        Ok::<_, TableError>(paths.unwrap_or_default())
    };
    if let Some(field) = fields.get("secrets") {
        return Err(field.error(
            "a sandboxed action gets no secret, because what it is given is kept: use kind = \"program\"",
        ));
    }
    let directory = match fields.get("directory") {
        Some(field) => path(&field, scope)?,
        None => String::new(),
    };
    let outputs = texts("outputs")?;
    let reports = texts("reports")?;
    if let Some(field) = fields.get("reports").filter(|_| {
        reports.iter().any(|report| !outputs.iter().any(|output| below(report, output)))
    }) {
        return Err(field.error("reports are among what a test leaves: name them in outputs too"));
    }
    Ok(Command {
        program: program(fields, scope)?,
        directory,
        image: fields.get("image").map(|field| scope.text(&field)).transpose()?,
        platform: pairs(fields, "platform", MAX_VARIABLES, |name, field| match name.is_empty() {
            true => Err(field.error("a property has a name")),
            false => scope.text(field),
        })?,
        environment: pairs(fields, "environment", MAX_VARIABLES, |name, field| {
            variable(name, field)?;
            scope.text(field)
        })?,
        secrets: BTreeMap::new(),
        network: fields.get("network").map_or(Ok(false), |field| field.flag())?,
        outputs,
        from: from(fields, scope)?,
        reports,
    })
}

/// Whether a path is another one, or below it.
fn below(path: &str, other: &str) -> bool {
    let rest = path.strip_prefix(other.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn program(fields: &Fields<'_>, scope: &Scope<'_>) -> Result<Program, TableError> {
    match (fields.get("command"), fields.get("script")) {
        (Some(_), Some(script)) => Err(script.error("either command or script, not both")),
        (Some(command), None) => {
            let arguments = scope.texts(&command, MAX_ARGUMENTS)?;
            match arguments.first().is_none_or(String::is_empty) {
                true => Err(command.error("there is no program in it")),
                false => Ok(Program::Arguments(arguments)),
            }
        }
        (None, Some(script)) => {
            let text = script.text()?;
            // A branch may be called `$(reboot)`: what others wrote never becomes part of a program.
            let wrong = ["matrix.", "input.", "run.", "stages."];
            if let Some(it) = wrong.iter().find(|it| text.contains(&format!("${{{it}"))) {
                return Err(script.error(&format!(
                    "no value is put into a script, and ${{{it}... would be one: set a variable in `environment` and use that"
                )));
            }
            match text.trim().is_empty() {
                true => Err(script.error("there is nothing in it")),
                false => Ok(Program::Script(text.to_owned())),
            }
        }
        (None, None) => Err(fields.error("command = [...] or script = \"\" is missing".to_owned())),
    }
}

pub fn paths(field: &Field<'_>, scope: &Scope<'_>) -> Result<Vec<String>, TableError> {
    field.list(MAX_PATHS)?.iter().map(|item| path(item, scope)).collect()
}

/// A path that stays below where it begins.
fn path(field: &Field<'_>, scope: &Scope<'_>) -> Result<String, TableError> {
    let text = scope.text(field)?;
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    match text.trim_end_matches('/').split('/').all(plain) && !text.contains('\0') {
        true => Ok(text.trim_end_matches('/').to_owned()),
        false => Err(field.error("expected a relative path without . and ..")),
    }
}

fn pairs(
    fields: &Fields<'_>,
    key: &str,
    most: usize,
    read: impl Fn(&str, &Field<'_>) -> Result<String, TableError>,
) -> Result<BTreeMap<String, String>, TableError> {
    let Some(field) = fields.get(key) else { return Ok(BTreeMap::new()) };
    let entries = field.fields()?.entries(most)?;
    let pair = |(name, field): (String, Field<'_>)| {
        let value = read(&name, &field)?;
        Ok((name, value))
    };
    entries.into_iter().map(pair).collect()
}

fn variable(name: &str, field: &Field<'_>) -> Result<(), TableError> {
    let message = "a variable is called by letters, digits and _, and not KILN_...";
    if is_variable(name) { Ok(()) } else { Err(field.error(message)) }
}

/// Stages whose outputs are used.
fn from(fields: &Fields<'_>, scope: &Scope<'_>) -> Result<Vec<String>, TableError> {
    let Some(field) = fields.get("from") else { return Ok(Vec::new()) };
    let name = |item: &Field<'_>| {
        let name = item.text()?;
        scope.stage(name).map_err(|message| item.error(&message))?;
        Ok(name.to_owned())
    };
    field.list(MAX_FROM)?.iter().map(name).collect()
}
