//! How environments of a kind are made.

use super::kubernetes::Kubernetes;
use super::netns::Netns;
use super::recipe::{Address, Recipe, Step, Which};

/// Programs of the operator.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Commands {
    pub up: Vec<String>,
    pub down: Vec<String>,
    pub check: Vec<String>,
    pub list: Vec<String>,
}

/// How environments of a kind are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    Commands(Commands),
    Kubernetes(Kubernetes),
    Netns(Netns),
}

impl How {
    pub fn recipe(&self, which: &Which<'_>) -> Recipe {
        match self {
            Self::Commands(commands) => commands.recipe(),
            Self::Kubernetes(kubernetes) => kubernetes.recipe(which),
            Self::Netns(netns) => netns.recipe(which),
        }
    }
}

impl Commands {
    /// The programs of these commands. They read nothing, and find everything in their environment.
    fn recipe(&self) -> Recipe {
        let steps = |argv: &[String]| match argv.is_empty() {
            true => Vec::new(),
            false => vec![Step { argv: argv.to_vec(), stdin: None }],
        };
        Recipe {
            up: steps(&self.up),
            check: steps(&self.check),
            down: steps(&self.down),
            list: steps(&self.list).pop(),
            address: Address::LastLine,
        }
    }
}
