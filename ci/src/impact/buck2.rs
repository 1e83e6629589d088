//! Reads what `buck2 targets --streaming --imports --json-lines` prints: a line for each target, and one for each file of
//! Starlark with what it imports.
//!
//! Buck2's hash of a target covers its attributes, its sources and its dependencies, but not the code of its rule: that is
//! looked up in the files that `buck.type` and `buck.imports` name.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use super::graph::{Graph, Kind, Node, SourceFile};
use super::hash::Hasher;

/// Absolute directories of cells, by the names of the cells.
pub type Cells = BTreeMap<String, String>;

#[derive(Debug, Error)]
pub enum BuckError {
    #[error("line {line} of Buck2's targets cannot be read")]
    Line {
        line: usize,
        #[source]
        source: serde_json::Error,
    },
    #[error("line {line}: Buck2 cannot load a package: {message}")]
    Package { line: usize, message: String },
    #[error(
        "line {line}: the target has no hash; Buck2 prints one with --show-unconfigured-target-hash"
    )]
    NoHash { line: usize },
    #[error("{file} is in no cell that Buck2 names")]
    Cell { file: String },
}

#[derive(Deserialize)]
struct Line {
    name: Option<String>,
    #[serde(rename = "buck.type", default)]
    kind: String,
    #[serde(rename = "buck.package")]
    package: Option<String>,
    #[serde(rename = "buck.target_hash")]
    hash: Option<String>,
    #[serde(rename = "buck.deps", default)]
    deps: Vec<String>,
    #[serde(rename = "buck.error")]
    error: Option<String>,
    /// Texts, or what a `select` makes of them.
    #[serde(default)]
    labels: Value,
    #[serde(rename = "buck.file")]
    file: Option<String>,
    #[serde(rename = "buck.imports", default)]
    imports: Vec<String>,
}

impl Graph {
    /// Errors: a line that cannot be understood, or a file whose place is not known.
    pub fn from_buck2(lines: &str, cells: &Cells) -> Result<Self, BuckError> {
        let mut nodes = Vec::new();
        // What each file imports. Build files are of no concern: what they make is in the attributes of their targets.
        let mut files: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (line, text) in (1..).zip(lines.lines()) {
            if text.trim().is_empty() {
                continue;
            }
            let read: Line =
                serde_json::from_str(text).map_err(|source| BuckError::Line { line, source })?;
            if let Some(message) = read.error {
                return Err(BuckError::Package { line, message });
            }
            match (&read.name, &read.file, &read.package) {
                (Some(_), _, _) => nodes.push(target(line, read)?),
                (None, Some(file), None) => {
                    files.entry(file.clone()).or_default().extend(read.imports);
                }
                (None, _, _) => {}
            }
        }
        let used = nodes.iter().flat_map(|it| &it.deps).filter(|it| is_file(it));
        let named: BTreeSet<String> = used.chain(files.values().flatten()).cloned().collect();
        for file in named {
            files.entry(file).or_default();
        }
        for (file, imports) in files {
            nodes.push(code(file, imports, cells)?);
        }
        Ok(Self { nodes })
    }
}

fn target(line: usize, read: Line) -> Result<Node, BuckError> {
    let Some(hash) = read.hash else { return Err(BuckError::NoHash { line }) };
    let (name, package) = (read.name.unwrap_or_default(), read.package.unwrap_or_default());
    let (file, class) = read.kind.rsplit_once(':').unwrap_or(("", &read.kind));
    let mut deps = read.deps;
    // Rules that are Buck2's own have no file.
    if is_file(file) {
        deps.push(file.to_owned());
    }
    let mut tags = Vec::new();
    texts(&read.labels, &mut tags);
    Ok(Node {
        label: format!("{package}:{name}"),
        kind: Kind::Rule(class.to_owned()),
        own: None,
        whole: Some(Hasher::new("buck2").text(&hash).finish()),
        tags,
        deps,
    })
}

/// A file of Starlark, by its path in a cell.
fn code(file: String, imports: BTreeSet<String>, cells: &Cells) -> Result<Node, BuckError> {
    let place = file.split_once("//").and_then(|(cell, path)| Some((cells.get(cell)?, path)));
    let Some((directory, path)) = place else { return Err(BuckError::Cell { file }) };
    let (path, directory) = (path.to_owned(), Some(directory.clone()));
    Ok(Node {
        label: file,
        kind: Kind::Source(SourceFile { path, directory }),
        own: None,
        whole: None,
        tags: Vec::new(),
        deps: imports.into_iter().collect(),
    })
}

/// Rather than a target.
fn is_file(label: &str) -> bool {
    label.contains("//") && !label.contains(':')
}

/// All texts in a value: of a `select` those of each of its branches.
fn texts(value: &Value, into: &mut Vec<String>) {
    match value {
        Value::String(text) => into.push(text.clone()),
        Value::Array(items) => items.iter().for_each(|it| texts(it, into)),
        Value::Object(members) => {
            let inner = members.iter().filter(|(name, _)| *name != "__type");
            inner.for_each(|(_, it)| texts(it, into));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}
