//! A pipeline laid out for one run: matrices become stages, conditions are decided, and values that are known are put in.

use std::collections::{BTreeMap, HashMap};

use super::MAX_STAGES;
use super::file::{
    Declared, DeclaredStage, Facts, MAX_FILLED, Reference, TemplateError, cells, fill, unmet,
};
use super::fill::{filled, fixed};
use super::stage::{Condition, Stage, Work};

/// What stages need, all together.
pub const MAX_NEEDS: usize = 100_000;
/// Bytes of all texts of all stages.
pub const MAX_LAID: usize = 16 << 20;

/// What a run is begun with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Begun {
    pub id: String,
    /// `manual`, `push`, `schedule`, `release` or `webhook`.
    pub trigger: String,
    pub branch: String,
    pub commit: String,
    pub by: String,
    pub inputs: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Laid {
    pub stages: Vec<Stage>,
    /// The group whose runs take turns.
    pub group: Option<String>,
    /// All inputs with their values.
    pub inputs: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayError {
    #[error("the input {0:?} has no value: give it, or declare a default")]
    NoInput(String),
    #[error("there is no input {0:?}; there are: {1}")]
    UnknownInput(String, String),
    #[error("the input {name:?} is one of {values}, not {given:?}")]
    OtherValue { name: String, given: String, values: String },
    #[error("the input {0:?} has more than {MAX_FILLED} bytes")]
    LongInput(String),
    #[error("more than {MAX_STAGES} stages, with the cells of their matrices")]
    Stages,
    #[error("stages need more than {MAX_NEEDS} others in all, with the cells of their matrices")]
    Needs,
    #[error("the texts of all stages have more than {MAX_LAID} bytes in all")]
    Large,
    #[error("the stage {0:?}: {1}")]
    Template(String, TemplateError),
    #[error("the group: {0}")]
    Group(TemplateError),
}

pub fn lay_out(declared: &Declared, begun: &Begun) -> Result<Laid, LayError> {
    let inputs = inputs(declared, &begun.inputs)?;
    let facts = Facts {
        trigger: begun.trigger.clone(),
        branch: begun.branch.clone(),
        inputs: inputs.clone(),
    };
    let values = Values { pipeline: &declared.name, begun, inputs: &inputs };
    let group = declared
        .concurrency
        .as_ref()
        .map(|it| fill(&it.group, false, |reference| values.of(reference, &BTreeMap::new())));
    let group = group.transpose().map_err(LayError::Group)?;
    let cells = declared.stages.iter().map(|stage| cells(&stage.matrix)).collect::<Vec<_>>();
    let places = places(declared, &cells)?;
    let (mut stages, mut size, mut needed) = (Vec::new(), 0, 0);
    for (stage, cells) in declared.stages.iter().zip(cells) {
        let needs = needs(stage, &places);
        for cell in cells {
            needed += needs.len();
            if needed > MAX_NEEDS {
                return Err(LayError::Needs);
            }
            let work = values.put_into(stage, &cell, &mut size)?;
            stages.push(laid(stage, cell, needs.clone(), (&facts, work)));
        }
    }
    Ok(Laid { stages, group, inputs })
}

/// For each declared stage the indexes of its cells.
type Places<'d> = HashMap<&'d str, std::ops::Range<usize>>;

fn places<'d>(
    declared: &'d Declared,
    cells: &[Vec<BTreeMap<String, String>>],
) -> Result<Places<'d>, LayError> {
    let (mut places, mut next) = (HashMap::new(), 0);
    for (stage, cells) in declared.stages.iter().zip(cells) {
        let first = next;
        next += cells.len();
        if next > MAX_STAGES {
            return Err(LayError::Stages);
        }
        places.insert(stage.name.as_str(), first..next);
    }
    Ok(places)
}

fn needs(stage: &DeclaredStage, places: &Places<'_>) -> Vec<u32> {
    let all = stage.needs.iter().filter_map(|name| places.get(name.as_str()));
    let mut needs: Vec<u32> =
        all.flat_map(|range| range.clone()).filter_map(|at| u32::try_from(at).ok()).collect();
    needs.sort_unstable();
    needs
}

fn laid(
    stage: &DeclaredStage,
    cell: BTreeMap<String, String>,
    needs: Vec<u32>,
    (facts, work): (&Facts, Work),
) -> Stage {
    let values: Vec<_> = cell.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let name = match values.is_empty() {
        true => stage.name.clone(),
        false => format!("{} ({})", stage.name, values.join(", ")),
    };
    let left_out = match stage.when == Condition::default() {
        true => None,
        false => unmet(&stage.when, facts),
    };
    Stage {
        name,
        group: stage.name.clone(),
        matrix: cell,
        needs,
        on: stage.on,
        left_out,
        retry: stage.retry,
        timeout: stage.timeout,
        may_fail: stage.may_fail,
        work,
    }
}

fn inputs(
    declared: &Declared,
    given: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, LayError> {
    let unknown = given.keys().find(|name| !declared.inputs.contains_key(*name));
    if let Some(name) = unknown {
        let known: Vec<_> = declared.inputs.keys().map(String::as_str).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(LayError::UnknownInput(name.chars().take(100).collect(), known));
    }
    let value = |(name, input): (&String, &super::file::Input)| {
        let value = given.get(name).or(input.default.as_ref());
        let value = value.ok_or_else(|| LayError::NoInput(name.clone()))?;
        if value.len() > MAX_FILLED {
            return Err(LayError::LongInput(name.clone()));
        }
        if !input.values.is_empty() && !input.values.contains(value) {
            return Err(LayError::OtherValue {
                name: name.clone(),
                given: value.chars().take(100).collect(),
                values: input.values.join(", "),
            });
        }
        Ok((name.clone(), value.clone()))
    };
    declared.inputs.iter().map(value).collect()
}

/// Values that are known when a run begins.
struct Values<'a> {
    pipeline: &'a str,
    begun: &'a Begun,
    inputs: &'a BTreeMap<String, String>,
}

impl Values<'_> {
    fn of(&self, reference: &Reference<'_>, cell: &BTreeMap<String, String>) -> Option<String> {
        match reference {
            Reference::Matrix(name) => cell.get(*name).cloned(),
            Reference::Input(name) => self.inputs.get(*name).cloned(),
            Reference::Run(name) => self.run(name).map(str::to_owned),
            Reference::Told(..) => None,
        }
    }

    fn run(&self, name: &str) -> Option<&str> {
        Some(match name {
            "id" => &self.begun.id,
            "pipeline" => self.pipeline,
            "trigger" => &self.begun.trigger,
            "branch" => &self.begun.branch,
            "commit" => &self.begun.commit,
            "by" => &self.begun.by,
            _ => return None,
        })
    }

    /// What a cell does; its bytes are added to `size`.
    fn put_into(
        &self,
        stage: &DeclaredStage,
        cell: &BTreeMap<String, String>,
        size: &mut usize,
    ) -> Result<Work, LayError> {
        let mut own = fixed(&stage.work);
        let mut put = |text: &str| -> Result<String, TemplateError> {
            let text = fill(text, true, |reference| self.of(reference, cell))?;
            own += text.len();
            Ok(text)
        };
        let work = filled(&stage.work, &mut put)
            .map_err(|error| LayError::Template(stage.name.clone(), error))?;
        *size += own;
        match *size > MAX_LAID {
            true => Err(LayError::Large),
            false => Ok(work),
        }
    }
}
