//! Reads what `bazel query --output=proto` and `--output=streamed_proto` print.

use std::collections::BTreeMap;

use kiln_protos::query::{Attribute, QueryResult, Rule, Target, target::Discriminator};
use prost::Message;
use thiserror::Error;

use super::graph::{Graph, Kind, Node, SourceFile};
use super::hash::{Hash, Hasher};

/// How targets follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// One message holds all targets: `--output=proto`.
    Whole,
    /// Each target has its length before it: `--output=streamed_proto`.
    Streamed,
    /// One message holds all targets, one for each configuration: what `bazel cquery --output=proto` prints.
    Configured,
}

/// Bazel's `analysis.CqueryResult` (src/main/protobuf/analysis_v2.proto), as far as it is read.
#[derive(Clone, PartialEq, Message)]
struct CqueryResult {
    #[prost(message, repeated, tag = "1")]
    results: Vec<ConfiguredTarget>,
}

#[derive(Clone, PartialEq, Message)]
struct ConfiguredTarget {
    #[prost(message, optional, tag = "1")]
    target: Option<Target>,
}

#[derive(Debug, Error)]
pub enum GraphError {
    #[error("target {0} of the query's answer cannot be read")]
    Target(usize, #[source] prost::DecodeError),
    #[error("the query's answer cannot be read")]
    Answer(#[source] prost::DecodeError),
    #[error("the query's answer ends within target {0}")]
    Cut(usize),
}

/// Attributes that say where a rule was written, and by which macro's line: moving a rule changes nothing that is
/// built.
const PLACES: [&str; 2] = ["generator_location", "$rule_location"];

impl Graph {
    pub fn from_query(answer: &[u8], framing: Framing) -> Result<Self, GraphError> {
        let targets = match framing {
            Framing::Whole => QueryResult::decode(answer).map_err(GraphError::Answer)?.target,
            Framing::Streamed => streamed(answer)?,
            Framing::Configured => {
                let all = CqueryResult::decode(answer).map_err(GraphError::Answer)?;
                all.results.into_iter().filter_map(|configured| configured.target).collect()
            }
        };
        let nodes = targets.into_iter().enumerate();
        let nodes = nodes.map(|(place, target)| {
            node(target).map_err(|error| GraphError::Target(place, error)).transpose()
        });
        let nodes = nodes.flatten().collect::<Result<_, _>>()?;
        Ok(Self { nodes: one_of_each(nodes) })
    }
}

/// A target that is there in several configurations is made from what any of them is made from.
fn one_of_each(nodes: Vec<Node>) -> Vec<Node> {
    let mut by_label: BTreeMap<String, Vec<Node>> = BTreeMap::new();
    for node in nodes {
        by_label.entry(node.label.clone()).or_default().push(node);
    }
    by_label.into_values().filter_map(merged).collect()
}

fn merged(mut nodes: Vec<Node>) -> Option<Node> {
    let mut first = nodes.pop()?;
    if nodes.is_empty() {
        return Some(first);
    }
    let mut own: Vec<_> = nodes.iter().map(|node| node.own).chain([first.own]).flatten().collect();
    own.sort_unstable();
    own.dedup();
    for node in nodes {
        first.deps.extend(node.deps);
        first.tags.extend(node.tags);
    }
    first.own = match own.as_slice() {
        [] => None,
        [only] => Some(*only),
        several => {
            let mut hasher = Hasher::new("configurations");
            several.iter().for_each(|hash| {
                hasher.hash(*hash);
            });
            Some(hasher.finish())
        }
    };
    Some(first)
}

fn streamed(mut answer: &[u8]) -> Result<Vec<Target>, GraphError> {
    let mut targets = Vec::new();
    while !answer.is_empty() {
        let place = targets.len();
        let length = prost::decode_length_delimiter(&mut answer)
            .map_err(|error| GraphError::Target(place, error))?;
        let Some((target, rest)) = answer.split_at_checked(length) else {
            return Err(GraphError::Cut(place));
        };
        answer = rest;
        targets.push(Target::decode(target).map_err(|error| GraphError::Target(place, error))?);
    }
    Ok(targets)
}

/// `None`: groups of packages and environments, which nothing is built from.
fn node(target: Target) -> Result<Option<Node>, prost::DecodeError> {
    let kind = target.r#type();
    Ok(match (kind, target.rule, target.source_file, target.generated_file) {
        (Discriminator::Rule, Some(rule), ..) => Some(rule_node(rule)?),
        (Discriminator::SourceFile, _, Some(file), _) => {
            Some(source_node(file.name, &file.location))
        }
        (Discriminator::GeneratedFile, _, _, Some(file)) => Some(Node {
            label: file.name,
            kind: Kind::Generated,
            own: Some(Hasher::new("generated").finish()),
            whole: None,
            tags: Vec::new(),
            deps: vec![file.generating_rule],
        }),
        _ => None,
    })
}

fn rule_node(rule: Rule) -> Result<Node, prost::DecodeError> {
    let mut attributes = Vec::with_capacity(rule.attribute.len());
    let mut tags = Vec::new();
    for bytes in &rule.attribute {
        let attribute = Attribute::decode(bytes.as_ref())?;
        if attribute.name == "tags" {
            tags = attribute.string_list_value;
        }
        if !PLACES.contains(&attribute.name.as_str()) {
            attributes.push((attribute.name, bytes));
        }
    }
    attributes.sort_unstable();
    Ok(Node {
        own: Some(own_hash(&rule, &attributes)),
        label: rule.name,
        kind: Kind::Rule(rule.rule_class),
        whole: None,
        tags,
        deps: rule.rule_input,
    })
}

fn own_hash(rule: &Rule, attributes: &[(String, &prost::bytes::Bytes)]) -> Hash {
    let mut hasher = Hasher::new("rule");
    hasher.text(&rule.rule_class).text(&rule.starlark_environment_hash_code);
    hasher.count(attributes.len());
    for (name, bytes) in attributes {
        hasher.text(name).bytes(bytes);
    }
    for labels in [&rule.rule_output, &rule.default_setting] {
        hasher.count(labels.len());
        labels.iter().for_each(|label| {
            hasher.text(label);
        });
    }
    hasher.finish()
}

/// A label is `[@repository]//PACKAGE:NAME`, its location `DIRECTORY/BUILD:LINE:COLUMN` where the file
/// is in the package that speaks of it.
fn source_node(label: String, location: &str) -> Node {
    let path = label.rsplit_once(':').map_or(label.as_str(), |(_, name)| name).to_owned();
    let build_file = location.rsplitn(3, ':').last().unwrap_or(location);
    let directory = build_file.rsplit_once('/').map(|(directory, _)| directory.to_owned());
    let directory = directory.filter(|directory| directory.starts_with('/'));
    Node {
        label,
        kind: Kind::Source(SourceFile { path, directory }),
        own: None,
        whole: None,
        tags: Vec::new(),
        deps: Vec::new(),
    }
}
