//! Options of rollouts.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use kiln_deploy::rollouts::command::Command;
use kiln_deploy::rollouts::parts::{Signals, Targets, Traffic};
use kiln_net::toml::{Field, Fields, TableError};

use crate::serve::tables::{each, read_file};
use crate::serve::webhook::WebhookOptions;

/// The most parts of one kind (targets, traffic or signals).
const MAX_PARTS: usize = 100;
/// Targets that may have to stay up.
const MAX_STAY_UP: u64 = 100_000;

#[derive(Clone, Default)]
pub struct RolloutOptions {
    pub parts: RolloutParts,
    pub webhook: Option<WebhookOptions>,
}

/// Programs, balancers and servers of the operator that rollouts may name.
#[derive(Clone, Default)]
pub struct RolloutParts {
    pub targets: BTreeMap<String, Arc<dyn Targets>>,
    pub traffic: BTreeMap<String, Arc<dyn Traffic>>,
    pub signals: BTreeMap<String, Arc<dyn Signals>>,
    /// By environments, how many targets of each service stay up.
    pub stay_up: BTreeMap<String, usize>,
}

impl std::fmt::Debug for RolloutOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RolloutOptions").finish_non_exhaustive()
    }
}

/// Reads the file of parts; errors in words.
pub fn read_parts(path: &Path) -> Result<RolloutParts, String> {
    read_file(path, parts)
}

fn parts(top: &Fields<'_>) -> Result<RolloutParts, TableError> {
    top.only(&["targets", "traffic", "signals", "stay_up"])?;
    Ok(RolloutParts {
        targets: each(top, "targets", MAX_PARTS, |fields| {
            Ok(Arc::new(Command::read(fields)?) as Arc<dyn Targets>)
        })?,
        traffic: each(top, "traffic", MAX_PARTS, kiln_deploy::traffic::read)?,
        signals: each(top, "signals", MAX_PARTS, kiln_deploy::signals::read)?,
        stay_up: floors(top)?,
    })
}

fn floors(top: &Fields<'_>) -> Result<BTreeMap<String, usize>, TableError> {
    let Some(field) = top.get("stay_up") else { return Ok(BTreeMap::new()) };
    let count = |field: &Field<'_>| field.number(0..=MAX_STAY_UP).map(|it| it as usize);
    let entries = field.fields()?.entries(MAX_PARTS)?;
    entries.into_iter().map(|(name, field)| Ok((name, count(&field)?))).collect()
}
