//! Reads what stages do.

use std::time::Duration;

use kiln_net::toml::{Fields, TableError, time};

use super::command;
use super::command::{MAX_ARGUMENTS, paths};
use super::names::named;
use super::scope::Scope;
use crate::pipelines::stage::{
    Approval, Listed, Preview, PreviewAct, Promotion, Release, Rollout, Waited, Work,
};

const MAX_APPROVERS: usize = 100;
/// People whose approvals one stage may ask for.
const MAX_COUNT: u64 = 10;
/// How long an environment of a run is kept, if nobody says, and at most.
const KEEP: Duration = Duration::from_secs(2 * 3_600);
const LONGEST_KEEP: Duration = Duration::from_secs(7 * 86_400);

/// Names of all kinds of stages, as files write them.
pub const KINDS: [&str; 10] = [
    "command", "build", "test", "release", "promote", "rollout", "approve", "program", "preview",
    "wait",
];

/// Keys of a kind of stage.
pub fn keys(kind: &str) -> &'static [&'static str] {
    match kind {
        "release" => &["release", "from", "outputs"],
        "promote" => &["release", "to", "reason"],
        "rollout" => &["release", "to", "reason", "declaration", "supersede"],
        "approve" => &["count", "by", "own", "message"],
        "program" => &["program", "arguments"],
        "preview" => &["preview", "act", "keep"],
        "wait" => &["invocation", "gate"],
        "test" => &command::KEYS,
        _ => command::KEYS.split_last().map_or(&[][..], |(_, others)| others),
    }
}

pub fn read(fields: &Fields<'_>, kind: &str, scope: &Scope<'_>) -> Result<Work, TableError> {
    Ok(match kind {
        "build" => {
            let command = command::read(fields, scope)?;
            if command.outputs.is_empty() {
                let message = "a build leaves something: outputs = [\"dist\"]";
                return Err(fields.error(message.to_owned()));
            }
            Work::Build(command)
        }
        "test" => Work::Test(command::read(fields, scope)?),
        "release" => Work::Release(release(fields, scope)?),
        "promote" => {
            let (release, environment) = standing(fields, scope)?;
            Work::Promote(Promotion { release, environment, reason: reason(fields, scope)? })
        }
        "rollout" => Work::Rollout(rollout(fields, scope)?),
        "approve" => Work::Approve(approval(fields, scope)?),
        "program" => Work::Program(listed(fields, scope)?),
        "preview" => Work::Preview(preview(fields)?),
        "wait" => Work::Wait(Waited {
            invocation: scope.text(&fields.need("invocation")?)?,
            gate: fields.get("gate").map_or(Ok(false), |field| field.flag())?,
        }),
        _ => Work::Command(command::read(fields, scope)?),
    })
}

fn text(fields: &Fields<'_>, key: &str, scope: &Scope<'_>) -> Result<Option<String>, TableError> {
    fields.get(key).map(|field| scope.text(&field)).transpose()
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

/// The release that is to stand, and the place where it is to.
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
    let own = fields.get("own").map_or(Ok(false), |field| field.flag())?;
    Ok(Approval { count: u32::try_from(count).unwrap_or(1), by, own, message })
}

fn listed(fields: &Fields<'_>, scope: &Scope<'_>) -> Result<Listed, TableError> {
    let arguments = fields.get("arguments");
    let arguments = arguments.map(|field| scope.texts(&field, MAX_ARGUMENTS)).transpose()?;
    let name = named(&fields.need("program")?)?;
    Ok(Listed { name, arguments: arguments.unwrap_or_default() })
}

fn preview(fields: &Fields<'_>) -> Result<Preview, TableError> {
    let act = match fields.need("act")?.one_of(&["up", "check", "down"])? {
        "up" => PreviewAct::Up,
        "check" => PreviewAct::Check,
        _ => PreviewAct::Down,
    };
    let keep = time(fields, "keep")?.unwrap_or(KEEP);
    if let Some(field) = fields.get("keep").filter(|_| keep > LONGEST_KEEP || keep.is_zero()) {
        return Err(field.error("it is kept for a second to seven days"));
    }
    Ok(Preview { environment: named(&fields.need("preview")?)?, act, keep })
}
