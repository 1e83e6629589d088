//! Environments for a while, as programs see them.

use kiln_ci::ephemeral::{Aspect, Difference, Phase, Preview};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::moment::at;

#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
pub struct Previews {
    /// Environments that are there or were lately, by their names.
    pub previews: Vec<PreviewShown>,
}

/// An environment that was brought up for a run.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PreviewShown {
    pub name: String,
    /// The kind of the environment, by its name in the operator's list.
    pub kind: String,
    pub instance: String,
    pub pipeline: String,
    /// Empty: it was found, and nobody knows whose it was.
    pub run: String,
    pub by: String,
    /// How far the environment is: `coming`, `up`, `going` or `gone`.
    pub phase: String,
    pub address: Option<String>,
    pub made: String,
    /// When the environment is taken down at the latest.
    pub expires: String,
    /// Why the environment is taken down, or what failed last; empty: there is nothing to say.
    pub why: String,
    /// Tries in a row that did not take it down.
    pub failures: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PreviewRemoval {
    pub name: String,
    #[serde(default)]
    pub reason: String,
}

/// What differs between a temporary environment and the one that it stands for.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PreviewParity {
    /// What differs; null: nothing describes environments of this kind.
    pub differences: Option<Vec<PreviewDifference>>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PreviewDifference {
    /// What differs: `version`, `configuration` or `secret`.
    pub aspect: String,
    pub name: String,
    /// The value in this environment; null: it is not there. Private values are `***`.
    pub here: Option<String>,
    /// The value in the environment that this one stands for; null: it is not there.
    pub there: Option<String>,
    /// The difference as a line of text.
    pub text: String,
}

impl From<&Preview> for PreviewShown {
    fn from(it: &Preview) -> Self {
        let phase = match it.phase {
            Phase::Coming => "coming",
            Phase::Up => "up",
            Phase::Going => "going",
            Phase::Gone => "gone",
        };
        Self {
            name: it.name.clone(),
            kind: it.kind.clone(),
            instance: it.instance.clone(),
            pipeline: it.pipeline.clone(),
            run: it.run.clone(),
            by: it.by.clone(),
            phase: phase.to_owned(),
            address: it.address.clone(),
            made: at(it.made.0),
            expires: at(it.expires.0),
            why: it.why.clone(),
            failures: it.failures,
        }
    }
}

impl From<&Difference> for PreviewDifference {
    fn from(it: &Difference) -> Self {
        let aspect = match it.aspect {
            Aspect::Version => "version",
            Aspect::Configuration => "configuration",
            Aspect::Secret => "secret",
        };
        Self {
            aspect: aspect.to_owned(),
            name: it.name.clone(),
            here: it.here.clone(),
            there: it.there.clone(),
            text: it.in_words(),
        }
    }
}
