//! Reads what `buck2 targets --streaming --json-lines` prints.

use serde::Deserialize;
use thiserror::Error;

use super::graph::{Graph, Kind, Node};
use super::hash::Hasher;

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
}

#[derive(Deserialize)]
struct Line {
    name: Option<String>,
    #[serde(rename = "buck.type", default)]
    kind: String,
    #[serde(rename = "buck.package", default)]
    package: String,
    #[serde(rename = "buck.target_hash")]
    hash: Option<String>,
    #[serde(rename = "buck.deps", default)]
    deps: Vec<String>,
    #[serde(rename = "buck.error")]
    error: Option<String>,
    #[serde(default)]
    labels: Vec<String>,
}

impl Graph {
    /// Target hashes of Buck2 cover sources and dependencies: they are taken as they are.
    pub fn from_buck2(lines: &str) -> Result<Self, BuckError> {
        let numbered = (1..).zip(lines.lines()).filter(|(_, line)| !line.trim().is_empty());
        let nodes = numbered.filter_map(|(number, line)| node(number, line).transpose());
        Ok(Self { nodes: nodes.collect::<Result<_, _>>()? })
    }
}

/// `None`: what is no target, such as a package with its imports.
fn node(number: usize, text: &str) -> Result<Option<Node>, BuckError> {
    let line: Line =
        serde_json::from_str(text).map_err(|source| BuckError::Line { line: number, source })?;
    if let Some(message) = line.error {
        return Err(BuckError::Package { line: number, message });
    }
    let Some(name) = line.name else { return Ok(None) };
    let Some(hash) = line.hash else { return Err(BuckError::NoHash { line: number }) };
    let class = line.kind.rsplit(':').next().unwrap_or_default().to_owned();
    let whole = Hasher::new("buck2").text(&hash).finish();
    Ok(Some(Node {
        label: format!("{}:{name}", line.package),
        kind: Kind::Rule(class),
        own: None,
        whole: Some(whole),
        tags: line.labels,
        deps: line.deps,
    }))
}
