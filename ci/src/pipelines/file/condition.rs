//! Conditions of stages, over what is known when a run begins.

use std::collections::BTreeMap;

use kiln_net::toml::{Field, Fields, TableError};

use super::declared::Input;
use crate::pipelines::stage::Condition;

/// Patterns of one list.
const MAX_PATTERNS: usize = 100;
/// Characters of a pattern, and of what it is held against.
const MAX_PATTERN: usize = 300;

/// What a run is begun with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// `manual`, `push`, `schedule`, `release` or `webhook`.
    pub trigger: String,
    pub branch: String,
    pub inputs: BTreeMap<String, String>,
}

pub fn read(
    fields: &Fields<'_>,
    inputs: &BTreeMap<String, Input>,
) -> Result<Condition, TableError> {
    let Some(field) = fields.get("when") else { return Ok(Condition::default()) };
    let fields = field.fields()?;
    fields.only(&["trigger", "branch", "input"])?;
    let mut input = BTreeMap::new();
    if let Some(field) = fields.get("input") {
        for (name, field) in field.fields()?.entries(MAX_PATTERNS)? {
            if !inputs.contains_key(&name) {
                return Err(field.error("there is no such input: declare it as [inputs.NAME]"));
            }
            input.insert(name, patterns(&field)?);
        }
    }
    let trigger = fields.get("trigger").map_or(Ok(Vec::new()), |field| triggers(&field))?;
    let branch = fields.get("branch").map_or(Ok(Vec::new()), |field| patterns(&field))?;
    Ok(Condition { trigger, branch, input })
}

fn triggers(field: &Field<'_>) -> Result<Vec<String>, TableError> {
    const KNOWN: [&str; 5] = ["manual", "push", "schedule", "release", "webhook"];
    let found = patterns(field)?;
    match found.iter().find(|it| !KNOWN.contains(&it.as_str())) {
        Some(other) => {
            Err(field.error(&format!("no trigger {other:?}; known are {}", KNOWN.join(", "))))
        }
        None => Ok(found),
    }
}

/// Patterns: a list, of which at least one is there.
pub fn patterns(field: &Field<'_>) -> Result<Vec<String>, TableError> {
    let found = field.texts(MAX_PATTERNS)?;
    if found.is_empty() {
        return Err(field.error("an empty list fits nothing"));
    }
    match found.iter().any(|it| it.is_empty() || it.len() > MAX_PATTERN) {
        true => Err(field.error(&format!("a pattern has 1 to {MAX_PATTERN} characters"))),
        false => Ok(found),
    }
}

/// Whether a text fits one of these patterns, in which `*` stands for any characters.
pub fn fits(patterns: &[String], text: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, text))
}

/// In time that grows with the product of both lengths at most: only the last `*` is tried again.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    true
}

/// Why a condition does not hold of a run; `None`: it does.
pub fn unmet(condition: &Condition, facts: &Facts) -> Option<String> {
    let lacks = |patterns: &[String], text: &str| !patterns.is_empty() && !fits(patterns, text);
    if lacks(&condition.trigger, &facts.trigger) {
        let wanted = condition.trigger.join(", ");
        return Some(format!("it is for runs begun by {wanted}, and this is {}", facts.trigger));
    }
    if lacks(&condition.branch, &facts.branch) {
        let wanted = condition.branch.join(", ");
        return Some(match facts.branch.is_empty() {
            true => format!("it is for the branches {wanted}, and this run is of none"),
            false => format!("it is for the branches {wanted}, and this is {}", facts.branch),
        });
    }
    condition.input.iter().find_map(|(name, patterns)| {
        let given = facts.inputs.get(name).map(String::as_str).unwrap_or_default();
        let wanted = patterns.join(", ");
        lacks(patterns, given)
            .then(|| format!("it is for {name} = {wanted}, and this run has {given:?}"))
    })
}
