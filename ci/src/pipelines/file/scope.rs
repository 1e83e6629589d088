//! What the texts of a stage may ask for, known before any of them is read.

use std::collections::{BTreeSet, HashMap};

use kiln_net::toml::{Field, TableError, nearest};

use super::template::{RUN, Reference, references};

/// A stage, as the others see it.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    pub index: usize,
    pub has_matrix: bool,
    pub builds: bool,
}

/// All stages by their names.
pub type Stages = HashMap<String, Known>;

#[derive(Default)]
pub struct Scope<'s> {
    pub inputs: BTreeSet<&'s str>,
    /// Axes of the stage's matrix.
    pub axes: BTreeSet<&'s str>,
    /// Names of the stages that the stage needs.
    pub needs: BTreeSet<&'s str>,
    pub stages: Option<&'s Stages>,
}

impl Scope<'_> {
    /// A text with values that are all known.
    pub fn text(&self, field: &Field<'_>) -> Result<String, TableError> {
        let text = field.text()?;
        for reference in references(text).map_err(|error| field.error(&error.to_string()))? {
            self.check(&reference).map_err(|message| field.error(&message))?;
        }
        Ok(text.to_owned())
    }

    pub fn texts(&self, field: &Field<'_>, most: usize) -> Result<Vec<String>, TableError> {
        field.list(most)?.iter().map(|item| self.text(item)).collect()
    }

    fn check(&self, reference: &Reference<'_>) -> Result<(), String> {
        match reference {
            Reference::Matrix(name) => one_of("matrix", name, &self.axes),
            Reference::Input(name) => one_of("input", name, &self.inputs),
            Reference::Run(name) => one_of("run", name, &RUN.into()),
            Reference::Told(stage, _) => self.stage(stage),
        }
    }

    /// Whether what a stage tells may be asked for.
    pub fn stage(&self, name: &str) -> Result<(), String> {
        if !self.needs.contains(name) {
            return Err(format!("the stage {name:?} is not among what this one needs"));
        }
        match self.stages.and_then(|it| it.get(name)) {
            Some(known) if known.has_matrix => Err(format!(
                "the stage {name:?} has a matrix: it is many stages, which tell many values"
            )),
            _ => Ok(()),
        }
    }
}

fn one_of(kind: &str, name: &str, known: &BTreeSet<&str>) -> Result<(), String> {
    if known.contains(name) {
        return Ok(());
    }
    let hint = match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean {kind}.{near}?"),
        None if known.is_empty() => format!("there is no {kind} here"),
        None => {
            let known: Vec<_> = known.iter().copied().collect();
            format!("known are {}", known.join(", "))
        }
    };
    Err(format!("{kind}.{name} is not known; {hint}"))
}
