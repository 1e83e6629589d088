//! A pipeline out of its file.

use std::collections::{BTreeMap, BTreeSet};

use toml::de::DeTable;

use super::graph;
use super::{Approvals, Check, Demands, Environment, Pipeline};
use crate::oci::ContentDigest;
use crate::promotion::expression::Expression;
use crate::promotion::freeze::{Freeze, Schedule};
use crate::toml::{Field, Fields, TableError, error_at, nearest, places};

/// Bytes of the file.
pub const MAX_PIPELINE_BYTES: usize = 256 << 10;
const MAX_ENVIRONMENTS: usize = 32;
const MAX_GROUPS: usize = 64;
const MAX_MEMBERS: usize = 256;
const MAX_FREEZES: usize = 64;
const MAX_CONDITIONS: usize = 16;
const MAX_CHECKS: usize = 8;
const MAX_ARGUMENTS: usize = 64;
const MAX_APPROVALS: u64 = 16;
/// Characters of a name.
const MAX_NAME: usize = 40;
/// Seconds: a year of soaking, an hour of checking.
const MAX_SOAK: i64 = 366 * 86_400;
const MAX_TIMEOUT: i64 = 3_600;
const TIMEOUT: i64 = 300;

const TOP: [&str; 4] = ["instance", "environments", "groups", "freezes"];
const ENVIRONMENT: [&str; 14] = [
    "after",
    "automatic",
    "soak",
    "settle",
    "signers",
    "builder",
    "source",
    "branch",
    "level",
    "tests",
    "approvals",
    "break_glass",
    "conditions",
    "checks",
];
const FREEZE: [&str; 7] = ["reason", "environments", "zone", "start", "lasts", "rule", "except"];

#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    #[error(
        "a file of {0} bytes; at most {MAX_PIPELINE_BYTES} are taken: take out what is over, such as old freezes"
    )]
    TooLarge(usize),
    #[error(transparent)]
    Table(#[from] TableError),
}

/// A time such as `90m`, in seconds.
fn seconds(text: &str) -> Option<i64> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let plain = !number.is_empty() && number.len() <= 9;
    let number: i64 = number.parse().ok().filter(|it| plain && *it >= 0)?;
    let unit = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    Some(number * unit)
}

fn time(field: &Field<'_>, most: i64) -> Result<i64, TableError> {
    let read = seconds(field.text()?).filter(|it| *it <= most);
    read.ok_or_else(|| {
        field.error("expected a time such as 90s, 30m, 24h or 7d, and not that long")
    })
}

fn is_name(name: &str) -> bool {
    let of_names = |it: u8| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-';
    (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(of_names) && !name.starts_with('-')
}

fn name(field: &Field<'_>, name: &str) -> Result<(), TableError> {
    let expected = "a name has 1 to 40 lowercase letters, digits and dashes";
    is_name(name).then_some(()).ok_or_else(|| field.error(expected))
}

/// Errors: `name` is none of the names that there are.
fn known<T>(
    field: &Field<'_>,
    name: &str,
    what: &str,
    names: &BTreeMap<String, T>,
) -> Result<(), TableError> {
    if names.contains_key(name) {
        return Ok(());
    }
    let hint = nearest(name, names.keys().map(String::as_str));
    let hint = hint.map(|it| format!("; did you mean {it:?}?")).unwrap_or_default();
    Err(field.error(&format!("there is no {what} {name:?}{hint}")))
}

fn optional<T>(
    fields: &Fields<'_>,
    key: &str,
    read: impl FnOnce(&Field<'_>) -> Result<T, TableError>,
) -> Result<Option<T>, TableError> {
    fields.get(key).as_ref().map(read).transpose()
}

fn owned(field: &Field<'_>) -> Result<String, TableError> {
    field.text().map(str::to_owned)
}

impl Pipeline {
    /// Reads the file of an operator.
    pub fn read(text: &str) -> Result<Self, PipelineError> {
        if text.len() > MAX_PIPELINE_BYTES {
            return Err(PipelineError::TooLarge(text.len()));
        }
        let table = DeTable::parse(text).map_err(|error| {
            let at = error.span().map_or(0, |it| it.start);
            error_at(text, at, error.message().to_owned())
        })?;
        let top = Fields::top(text, &table);
        top.only(&TOP)?;
        let groups = read_groups(&top)?;
        let list = top.need("environments")?.fields()?;
        let entries = list.entries(MAX_ENVIRONMENTS)?;
        let mut environments = BTreeMap::new();
        for (key, field) in &entries {
            name(field, key)?;
            environments.insert(key.clone(), environment(key, &field.fields()?, &groups)?);
        }
        if environments.is_empty() {
            return Err(list.error("there is no environment".to_owned()).into());
        }
        for (_, field) in &entries {
            if let Some(after) = field.fields()?.get("after") {
                let mut seen = BTreeSet::new();
                for it in after.list(MAX_ENVIRONMENTS)? {
                    let name = it.text()?;
                    known(&it, name, "environment", &environments)?;
                    if !seen.insert(name) {
                        return Err(it.error(&format!("{name:?} is named twice")).into());
                    }
                }
            }
        }
        let after = environments.iter().map(|(name, it)| (name.clone(), it.after.clone()));
        let order = graph::order(&after.collect()).map_err(|circle| {
            let at = circle.first().and_then(|it| places(&list).get(it).copied()).unwrap_or(0);
            let message =
                format!("environments follow each other in a circle: {}", circle.join(", "));
            error_at(text, at, message)
        })?;
        let freezes = freezes(&top, &environments)?;
        let digest = ContentDigest::of(text.as_bytes());
        let instance = optional(&top, "instance", owned)?.unwrap_or_default();
        Ok(Self { instance, environments, order, groups, freezes, digest })
    }
}

fn read_groups(top: &Fields<'_>) -> Result<BTreeMap<String, BTreeSet<String>>, TableError> {
    let Some(groups) = top.get("groups") else { return Ok(BTreeMap::new()) };
    let mut read = BTreeMap::new();
    for (key, field) in groups.fields()?.entries(MAX_GROUPS)? {
        name(&field, &key)?;
        read.insert(key, field.texts(MAX_MEMBERS)?.into_iter().collect());
    }
    Ok(read)
}

type Groups = BTreeMap<String, BTreeSet<String>>;

fn environment(
    name: &str,
    fields: &Fields<'_>,
    groups: &Groups,
) -> Result<Environment, TableError> {
    fields.only(&ENVIRONMENT)?;
    let flag = |key| optional(fields, key, |it| it.flag()).map(Option::unwrap_or_default);
    let after = optional(fields, "after", |it| it.texts(MAX_ENVIRONMENTS))?.unwrap_or_default();
    let soak = optional(fields, "soak", |it| time(it, MAX_SOAK))?;
    if let Some(wrong) = fields.get("soak").filter(|_| after.is_empty()) {
        return Err(wrong.error("there is no environment before this one to soak in: see after"));
    }
    if let Some(wrong) = fields.get("automatic").filter(|_| after.is_empty()) {
        return Err(
            wrong.error("nothing comes here by itself without an environment before: see after")
        );
    }
    Ok(Environment {
        name: name.to_owned(),
        after,
        automatic: flag("automatic")?,
        soak: soak.unwrap_or(0),
        settle: optional(fields, "settle", |it| time(it, MAX_SOAK))?.unwrap_or(0),
        demands: demands(fields)?,
        approvals: optional(fields, "approvals", |it| approvals(it, groups))?,
        break_glass: optional(fields, "break_glass", |it| {
            known(it, it.text()?, "group", groups)?;
            owned(it)
        })?,
        conditions: optional(fields, "conditions", conditions)?.unwrap_or_default(),
        checks: optional(fields, "checks", checks)?.unwrap_or_default(),
    })
}

fn demands(fields: &Fields<'_>) -> Result<Demands, TableError> {
    Ok(Demands {
        signers: optional(fields, "signers", |it| it.texts(MAX_MEMBERS))?.unwrap_or_default(),
        builder: optional(fields, "builder", owned)?,
        source: optional(fields, "source", owned)?,
        branch: optional(fields, "branch", owned)?,
        level: optional(fields, "level", |it| it.number(0..=3))?,
        tests: optional(fields, "tests", |it| it.flag())?.unwrap_or_default(),
    })
}

fn approvals(field: &Field<'_>, groups: &Groups) -> Result<Approvals, TableError> {
    let fields = field.fields()?;
    fields.only(&["count", "group"])?;
    let count = fields.need("count")?;
    let group = optional(&fields, "group", |it| {
        known(it, it.text()?, "group", groups)?;
        owned(it)
    })?;
    let number = usize::try_from(count.number(1..=MAX_APPROVALS)?).unwrap_or(usize::MAX);
    let members = group.as_ref().and_then(|it| groups.get(it)).map(BTreeSet::len);
    if members.is_some_and(|it| it < number) {
        return Err(count.error("more approvals than the group has members"));
    }
    Ok(Approvals { count: number, group })
}

fn conditions(field: &Field<'_>) -> Result<Vec<Expression>, TableError> {
    field.list(MAX_CONDITIONS)?.iter().map(|it| it.parsed(Expression::read)).collect()
}

fn checks(field: &Field<'_>) -> Result<Vec<Check>, TableError> {
    let mut checks: Vec<Check> = Vec::new();
    for field in field.list(MAX_CHECKS)? {
        let fields = field.fields()?;
        fields.only(&["name", "command", "timeout"])?;
        let called = fields.need("name")?;
        name(&called, called.text()?)?;
        if checks.iter().any(|it| Ok(it.name.as_str()) == called.text()) {
            return Err(called.error("two checks have this name"));
        }
        let command = fields.need("command")?;
        let argv = command.texts(MAX_ARGUMENTS)?;
        if argv.first().is_none_or(String::is_empty) {
            return Err(command.error("expected a program with its arguments"));
        }
        let timeout = optional(&fields, "timeout", |it| time(it, MAX_TIMEOUT))?.unwrap_or(TIMEOUT);
        let timeout = u64::try_from(timeout.max(1)).unwrap_or(1);
        checks.push(Check { name: owned(&called)?, command: argv, timeout });
    }
    Ok(checks)
}

fn freezes(
    top: &Fields<'_>,
    environments: &BTreeMap<String, Environment>,
) -> Result<Vec<Freeze>, TableError> {
    let Some(all) = top.get("freezes") else { return Ok(Vec::new()) };
    let mut read = Vec::new();
    for (key, field) in all.fields()?.entries(MAX_FREEZES)? {
        name(&field, &key)?;
        let fields = field.fields()?;
        fields.only(&FREEZE)?;
        let needed = |key| fields.need(key).and_then(|it| owned(&it));
        let rule = optional(&fields, "rule", owned)?;
        let except = optional(&fields, "except", |it| it.texts(MAX_MEMBERS))?.unwrap_or_default();
        let (zone, start, lasts) = (needed("zone")?, needed("start")?, needed("lasts")?);
        let schedule = Schedule {
            zone: &zone,
            start: &start,
            lasts: &lasts,
            rule: rule.as_deref(),
            except: except.iter().map(String::as_str).collect(),
        };
        let freeze = Freeze::new(&key, &needed("reason")?, &schedule);
        let mut freeze =
            freeze.map_err(|it| field.error(&kiln_net::causes::chain(&it).to_string()))?;
        freeze.environments = optional(&fields, "environments", |it| {
            let names = it.list(MAX_ENVIRONMENTS)?;
            names.iter().try_for_each(|it| known(it, it.text()?, "environment", environments))?;
            Ok(it.texts(MAX_ENVIRONMENTS)?.into_iter().collect())
        })?;
        read.push(freeze);
    }
    Ok(read)
}
