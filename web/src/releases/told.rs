//! What build events say of a target's outputs, and of what was built.

use kiln_ci::events::{TargetOutcome, View};
use kiln_deploy::catalog::{ToldFile, is_same};
use kiln_deploy::provenance::ToldRevision;

use crate::error::WebError;
use crate::state::WebState;

/// Files of a target that are looked at.
const MAX_FILES: usize = 200_000;
/// The group of outputs that a build makes unless another one is asked for.
const DEFAULT: &str = "default";

/// What is said of a target.
#[derive(Default)]
pub struct Told {
    /// Files that build events name as outputs of the target; `None` where they say nothing of it.
    pub files: Option<Vec<ToldFile>>,
    pub revision: ToldRevision,
}

/// Nothing where there are no build events of that invocation in that instance.
pub async fn told(
    state: &WebState,
    instance: &str,
    invocation: &str,
    target: &str,
) -> Result<Told, WebError> {
    let noted = state.tests.streams.build(invocation).await?.map(|it| it.summary.stream);
    let Some(stream) = noted.filter(|it| it.instance == instance) else {
        return Ok(Told::default());
    };
    let view = state.kept.view(&state.tests.streams, &stream).await?;
    let origin = &view.build.known().origin;
    let revision = ToldRevision {
        repository: origin.repository.clone(),
        commit: origin.commit.clone(),
        branch: origin.branch.clone(),
    };
    Ok(Told { files: of_target(&view, target)?, revision })
}

fn of_target(view: &View, target: &str) -> Result<Option<Vec<ToldFile>>, WebError> {
    let facts = view.build.known();
    let is_it = |label: &str| is_same(label, target);
    let of = facts.targets.iter().filter(|(key, _)| key.aspect.is_empty() && is_it(&key.label));
    let of: Vec<_> = of.collect();
    if of.is_empty() {
        return Ok(None);
    }
    let built = |it: &TargetOutcome| *it == TargetOutcome::Built;
    if let Some((key, failed)) = of.iter().find(|(_, it)| !built(&it.outcome)) {
        let why = failed.why.as_ref().map(|it| format!(": {it}")).unwrap_or_default();
        let message = format!("{} was not built in that invocation{why}", key.label);
        return Err(WebError::invalid(message, "Release what was built."));
    }
    if of.len() > 1 {
        let message = format!("{target} was built in {} configurations", of.len());
        let hint = "Build it in one of them alone, and release that invocation.";
        return Err(WebError::invalid(message, hint));
    }
    if facts.left_out.files > 0 {
        let message = "the events of that build name more files than are kept: the target's may be among those left out";
        let hint = "Build the target by itself, and release that invocation.";
        return Err(WebError::invalid(message, hint));
    }
    let groups = of.iter().flat_map(|(_, it)| &it.outputs).filter(|(name, _)| name == DEFAULT);
    let sets: Vec<String> = groups.flat_map(|(_, sets)| sets.clone()).collect();
    // One that stayed on the client's machine may have no hash: the store has none such, and says so.
    let files = view.build.files(&sets, MAX_FILES).into_iter().map(|it| {
        let (hash, size) = it.blob.map(|it| (it.hash, it.size)).unwrap_or_default();
        ToldFile { path: it.name, hash, size, link: it.link }
    });
    Ok(Some(files.collect()))
}
