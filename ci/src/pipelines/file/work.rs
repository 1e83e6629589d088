//! Reads what stages do.

use std::collections::BTreeMap;

use kiln_net::toml::{Field, Fields, TableError};

use super::names::{is_name, is_variable};
use super::scope::Scope;
use crate::pipelines::stage::{Approval, Command, Program, Promotion, Release, Rollout, Work};

const MAX_ARGUMENTS: usize = 1_000;
const MAX_VARIABLES: usize = 200;
const MAX_SECRETS: usize = 50;
const MAX_PATHS: usize = 100;
const MAX_FROM: usize = 100;
const MAX_APPROVERS: usize = 100;
/// People whose approvals one stage may ask for.
const MAX_COUNT: u64 = 10;

const COMMAND: [&str; 10] = [
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
];
const TEST: [&str; 11] = [
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

/// Keys of a kind of stage.
pub fn keys(kind: &str) -> &'static [&'static str] {
    match kind {
        "test" => &TEST,
        "release" => &["release", "from", "outputs"],
        "promote" => &["release", "to", "reason"],
        "rollout" => &["release", "to", "reason", "declaration", "supersede"],
        "approve" => &["count", "by", "message"],
        _ => &COMMAND,
    }
}

pub fn read(fields: &Fields<'_>, kind: &str, scope: &Scope<'_>) -> Result<Work, TableError> {
    Ok(match kind {
        "build" => {
            let command = command(fields, scope)?;
            if command.outputs.is_empty() {
                let message = "a build leaves something: outputs = [\"dist\"]";
                return Err(fields.error(message.to_owned()));
            }
            Work::Build(command)
        }
        "test" => Work::Test(command(fields, scope)?),
        "release" => Work::Release(release(fields, scope)?),
        "promote" => {
            let (release, environment) = standing(fields, scope)?;
            Work::Promote(Promotion { release, environment, reason: reason(fields, scope)? })
        }
        "rollout" => Work::Rollout(rollout(fields, scope)?),
        "approve" => Work::Approve(approval(fields, scope)?),
        _ => Work::Command(command(fields, scope)?),
    })
}

fn text(fields: &Fields<'_>, key: &str, scope: &Scope<'_>) -> Result<Option<String>, TableError> {
    fields.get(key).map(|field| scope.text(&field)).transpose()
}

fn command(fields: &Fields<'_>, scope: &Scope<'_>) -> Result<Command, TableError> {
    let texts = |key: &str| {
        let paths = fields.get(key).map(|field| paths(&field, scope)).transpose()?;
        Ok::<_, TableError>(paths.unwrap_or_default())
    };
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
        image: text(fields, "image", scope)?,
        platform: pairs(fields, "platform", MAX_VARIABLES, |name, field| match name.is_empty() {
            true => Err(field.error("a property has a name")),
            false => scope.text(field),
        })?,
        environment: pairs(fields, "environment", MAX_VARIABLES, |name, field| {
            variable(name, field)?;
            scope.text(field)
        })?,
        secrets: pairs(fields, "secrets", MAX_SECRETS, |name, field| {
            variable(name, field)?;
            secret(field)
        })?,
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

fn paths(field: &Field<'_>, scope: &Scope<'_>) -> Result<Vec<String>, TableError> {
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

/// The name of a secret. Its value never stands in a file.
fn secret(field: &Field<'_>) -> Result<String, TableError> {
    let name = field.text()?;
    let wrong = || field.error("expected the name of a secret that the server's operator declares");
    is_name(name).then(|| name.to_owned()).ok_or_else(wrong)
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

fn release(fields: &Fields<'_>, scope: &Scope<'_>) -> Result<Release, TableError> {
    let from = fields.need("from")?;
    let name = from.text()?;
    scope.stage(name).map_err(|message| from.error(&message))?;
    if !scope.stages.and_then(|it| it.get(name)).is_some_and(|it| it.builds) {
        return Err(from.error("a release is made of a stage with kind = \"build\""));
    }
    Ok(Release {
        name: scope.text(&fields.need("release")?)?,
        from: name.to_owned(),
        outputs: fields.get("outputs").map_or(Ok(Vec::new()), |field| paths(&field, scope))?,
    })
}

/// What, and where.
fn standing(fields: &Fields<'_>, scope: &Scope<'_>) -> Result<(String, String), TableError> {
    Ok((scope.text(&fields.need("release")?)?, scope.text(&fields.need("to")?)?))
}

fn reason(fields: &Fields<'_>, scope: &Scope<'_>) -> Result<String, TableError> {
    let said = text(fields, "reason", scope)?;
    Ok(said.unwrap_or_else(|| "the pipeline ${run.pipeline}, run ${run.id}".to_owned()))
}

fn rollout(fields: &Fields<'_>, scope: &Scope<'_>) -> Result<Rollout, TableError> {
    let (release, environment) = standing(fields, scope)?;
    Ok(Rollout {
        release,
        environment,
        // It is a file in itself: nothing is put into it.
        declaration: fields.need("declaration")?.text()?.to_owned(),
        reason: reason(fields, scope)?,
        supersede: fields.get("supersede").map_or(Ok(false), |field| field.flag())?,
    })
}

fn approval(fields: &Fields<'_>, scope: &Scope<'_>) -> Result<Approval, TableError> {
    let count = fields.get("count").map_or(Ok(1), |field| field.number(1..=MAX_COUNT))?;
    let by = fields.get("by").map_or(Ok(Vec::new()), |field| field.texts(MAX_APPROVERS))?;
    if let Some(field) = fields.get("by").filter(|_| (by.len() as u64) < count) {
        return Err(field.error(&format!("{count} approvals of {} accounts", by.len())));
    }
    let message = text(fields, "message", scope)?.unwrap_or_default();
    Ok(Approval { count: u32::try_from(count).unwrap_or(1), by, message })
}
