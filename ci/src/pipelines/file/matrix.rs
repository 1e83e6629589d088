//! A matrix: one stage for each combination of values.

use std::collections::{BTreeMap, BTreeSet};

use kiln_net::toml::{Field, Fields, TableError};
use serde_json::Value;

use super::declared::Matrix;
use super::names::is_word;
use crate::pipelines::MAX_STAGES;

const MAX_AXES: usize = 10;
const MAX_EXCLUDED: usize = 100;
/// Characters of a value.
const MAX_VALUE: usize = 100;

pub fn read(fields: &Fields<'_>) -> Result<Matrix, TableError> {
    let Some(field) = fields.get("matrix") else { return Ok(Matrix::default()) };
    let table = field.fields()?;
    let mut axes = Vec::new();
    let mut cells: usize = 1;
    for (name, values) in table.entries(MAX_AXES + 1)? {
        if name == "exclude" {
            continue;
        }
        if !is_word(&name) {
            let message = "an axis is called by small letters, digits and _, and a letter is first";
            return Err(values.error(message));
        }
        let read = axis(&values)?;
        cells = cells.saturating_mul(read.len());
        if cells > MAX_STAGES {
            return Err(field.error(&format!("more than {MAX_STAGES} cells")));
        }
        axes.push((name, read));
    }
    if axes.is_empty() {
        return Err(field.error("a matrix has at least one axis: os = [\"linux\", \"mac\"]"));
    }
    if axes.len() > MAX_AXES {
        return Err(field.error(&format!("at most {MAX_AXES} axes")));
    }
    axes.sort();
    let exclude = table.get("exclude").map_or(Ok(Vec::new()), |it| excluded(&it, &axes))?;
    let matrix = Matrix { axes, exclude };
    match !matrix.exclude.is_empty() && self::cells(&matrix).is_empty() {
        true => Err(field.error("every cell is excluded")),
        false => Ok(matrix),
    }
}

fn axis(field: &Field<'_>) -> Result<Vec<String>, TableError> {
    let (mut values, mut seen) = (Vec::new(), BTreeSet::new());
    for item in field.list(MAX_STAGES)? {
        let value = value(&item)?;
        if !seen.insert(value.clone()) {
            return Err(item.error("this value stands there twice"));
        }
        values.push(value);
    }
    match values.is_empty() {
        true => Err(field.error("an axis has at least one value")),
        false => Ok(values),
    }
}

fn value(field: &Field<'_>) -> Result<String, TableError> {
    let text = match field.json() {
        Value::String(text) => text,
        Value::Number(number) => number.to_string(),
        Value::Bool(flag) => flag.to_string(),
        _ => return Err(field.error("expected text, a number, or true or false")),
    };
    let plain = !text.is_empty() && text.len() <= MAX_VALUE && !text.contains(char::is_control);
    let wrong = || field.error(&format!("a value is one line of 1 to {MAX_VALUE} characters"));
    plain.then_some(text).ok_or_else(wrong)
}

fn excluded(
    field: &Field<'_>,
    axes: &[(String, Vec<String>)],
) -> Result<Vec<BTreeMap<String, String>>, TableError> {
    let mut all = Vec::new();
    for item in field.list(MAX_EXCLUDED)? {
        let mut one = BTreeMap::new();
        for (name, field) in item.fields()?.entries(MAX_AXES)? {
            let value = value(&field)?;
            let known = axes.iter().any(|(axis, values)| *axis == name && values.contains(&value));
            if !known {
                return Err(field.error("no axis of this name has this value"));
            }
            one.insert(name, value);
        }
        if one.is_empty() {
            return Err(item.error("it would exclude everything"));
        }
        all.push(one);
    }
    Ok(all)
}

/// How many cells there are, those counted that are excluded.
pub fn size(matrix: &Matrix) -> usize {
    matrix.axes.iter().map(|(_, values)| values.len()).fold(1, usize::saturating_mul)
}

/// The cells, each with its values; of no matrix one cell without any.
pub fn cells(matrix: &Matrix) -> Vec<BTreeMap<String, String>> {
    let mut cells = vec![BTreeMap::new()];
    for (name, values) in &matrix.axes {
        let with = |cell: &BTreeMap<String, String>, value: &String| {
            let mut cell = cell.clone();
            cell.insert(name.clone(), value.clone());
            cell
        };
        cells = cells
            .iter()
            .flat_map(|cell| values.iter().map(move |value| with(cell, value)))
            .collect();
    }
    let excluded = |cell: &BTreeMap<String, String>| {
        let fits = |one: &BTreeMap<String, String>| one.iter().all(|(k, v)| cell.get(k) == Some(v));
        matrix.exclude.iter().any(fits)
    };
    cells.retain(|cell| !excluded(cell));
    cells
}
