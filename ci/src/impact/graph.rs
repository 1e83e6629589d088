//! Targets and what they depend on, as a build tool says it.

use std::collections::HashMap;

use super::hash::Hash;

/// What a target is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A rule, with its class: `cc_test` for instance.
    Rule(String),
    /// A source file, with where its content lies.
    Source(SourceFile),
    Generated,
}

/// A source file of a package.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// The path relative to the package, with slashes.
    pub path: String,
    /// The directory of its package where the tool names it: absolute.
    pub directory: Option<String>,
}

/// What a source file's path leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// The file is not there, which is not the same as an empty one.
    Absent,
    /// A hash of type, mode and content.
    Known(Hash),
}

#[derive(Clone, Debug)]
pub struct Node {
    pub label: String,
    pub kind: Kind,
    /// The hash of the target alone. `None` for a source file: its content says it.
    pub own: Option<Hash>,
    /// The hash of the target and of what it depends on, as far as the tool hashes that.
    pub whole: Option<Hash>,
    pub tags: Vec<String>,
    /// Labels of the target's direct dependencies.
    pub deps: Vec<String>,
}

/// The targets of a commit.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub nodes: Vec<Node>,
}

impl Graph {
    /// Indexes of labels in `nodes`. The last one counts of a label that is there twice.
    pub(super) fn places(&self) -> HashMap<&str, usize> {
        let named = self.nodes.iter().enumerate();
        named.map(|(place, node)| (node.label.as_str(), place)).collect()
    }

    /// The source files that are looked at for a snapshot.
    pub fn sources(&self) -> impl Iterator<Item = (&str, &SourceFile)> {
        self.nodes.iter().filter_map(|node| match &node.kind {
            Kind::Source(file) => Some((node.label.as_str(), file)),
            Kind::Rule(_) | Kind::Generated => None,
        })
    }
}
