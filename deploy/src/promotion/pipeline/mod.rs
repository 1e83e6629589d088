//! Environments, in the order in which releases reach them, and what each demands. Read from a TOML file.

mod graph;
mod read;

use std::collections::{BTreeMap, BTreeSet};

use super::expression::Expression;
use super::freeze::Freeze;
use crate::oci::ContentDigest;

pub use self::read::{MAX_PIPELINE_BYTES, PipelineError};
pub use crate::toml::TableError;

/// All environments, each with its policy.
#[derive(Debug, Clone)]
pub struct Pipeline {
    /// The instance whose releases stand in these environments.
    pub instance: String,
    pub environments: BTreeMap<String, Environment>,
    /// Names of the environments; each behind those that it follows.
    pub order: Vec<String>,
    pub groups: BTreeMap<String, BTreeSet<String>>,
    pub freezes: Vec<Freeze>,
    /// The digest of the file, which says by which policy a release was decided about.
    pub digest: ContentDigest,
}

/// An environment in which a release may stand, and what it takes to get there.
#[derive(Debug, Clone, PartialEq)]
pub struct Environment {
    pub name: String,
    /// The release must stand, or have stood, in all of these.
    pub after: Vec<String>,
    /// What reaches all of these and passes is promoted here by itself.
    pub automatic: bool,
    /// Seconds that the release must have stood in each of them.
    pub soak: i64,
    /// Seconds that a release must stand here to be what a rollback returns to.
    pub settle: i64,
    pub demands: Demands,
    pub approvals: Option<Approvals>,
    /// Who may ask for and confirm a promotion in spite of a freeze; `None`: nobody.
    pub break_glass: Option<String>,
    pub conditions: Vec<Expression>,
    pub checks: Vec<Check>,
}

/// What signed provenance must say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Demands {
    /// Names of keys of which one must have signed; empty: any that is trusted.
    pub signers: Vec<String>,
    pub builder: Option<String>,
    /// `git+https://…`, without the commit.
    pub source: Option<String>,
    pub branch: Option<String>,
    /// The lowest SLSA build level.
    pub level: Option<u64>,
    /// Whether the gate must say that the tests of the build passed.
    pub tests: bool,
}

impl Demands {
    /// Whether anything of this is said by provenance, so that there must be one.
    pub fn provenance(&self) -> bool {
        let says = [&self.builder, &self.source, &self.branch];
        !self.signers.is_empty() || self.level.is_some() || says.iter().any(|it| it.is_some())
    }
}

/// Approvals by people that a release needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approvals {
    pub count: usize,
    /// The group whose members' approvals count; `None`: those of everybody who may approve.
    pub group: Option<String>,
}

/// A program that is asked whether a release may go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    pub name: String,
    pub command: Vec<String>,
    /// Seconds after which the program is ended, and has failed.
    pub timeout: u64,
}

impl Pipeline {
    pub fn is_member(&self, group: &str, who: &str) -> bool {
        self.groups.get(group).is_some_and(|it| it.contains(who))
    }

    /// The windows in which nothing is promoted to an environment.
    pub fn freezes_of<'a>(&'a self, environment: &'a str) -> impl Iterator<Item = &'a Freeze> {
        let concerns = move |it: &&Freeze| {
            it.environments.as_ref().is_none_or(|names| names.contains(environment))
        };
        self.freezes.iter().filter(concerns)
    }
}
