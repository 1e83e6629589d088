//! From what people call an action to its digest and the run that is meant.

use std::collections::BTreeSet;

use kiln_cas::Digest;

use super::rows::{has_failed, named};
use crate::cli::api::{self, Api};
use crate::cli::digest::{ActionName, DigestArgument};
use crate::cli::error::CliError;
use kiln_web::format::encode;
use kiln_web::json::{Execution, Found};

/// An action of which the digest is known.
pub struct Chosen {
    pub action: Digest,
    /// Name of the run; empty: the server chooses.
    pub operation: String,
    pub instance: String,
}

/// Asks the server where the digest is not known.
pub async fn find(api: &Api, name: ActionName, instance: &str) -> Result<Chosen, CliError> {
    let name = match name {
        ActionName::Exact { action, operation, instance: named } => {
            let instance = named.unwrap_or_else(|| instance.to_owned());
            return Ok(Chosen { action, operation, instance });
        }
        ActionName::Known(name) => name,
    };
    let found = api.get(&format!("/find?name={}", encode(&name, false))).await?;
    choose(&name, api::read(found)?)
}

/// Chooses one of the actions that were found: one that runs now; else, of the newest build, the
/// first failure, the test or the last run.
fn choose(name: &str, found: Found) -> Result<Chosen, CliError> {
    if let Some(operation) = found.operations.first()
        && let Ok(DigestArgument(action)) = operation.action.parse()
    {
        let (operation, instance) = (operation.name.clone(), operation.instance.clone());
        return Ok(Chosen { action, operation, instance });
    }
    let actions: BTreeSet<_> = found.executions.iter().filter_map(digest_of).collect();
    let newest = found.executions.first().map(|run| run.invocation_id.clone());
    let is_beginning = !name.contains('/');
    if is_beginning && actions.len() > 1 {
        let listed = actions.iter().map(Digest::to_string).collect::<Vec<_>>().join("\n  ");
        return Err(CliError::usage(format!("several actions begin with {name}:\n  {listed}"))
            .hint("write more of the one that is meant"));
    }
    let of_build = |run: &&Execution| Some(&run.invocation_id) == newest.as_ref();
    let of_build: Vec<_> = found.executions.iter().filter(of_build).collect();
    let failed = of_build.iter().find(|run| has_failed(run));
    let test = of_build.iter().find(|run| run.mnemonic == "TestRunner");
    let chosen = failed.or(test).or(of_build.first());
    match chosen.and_then(|run| Some((run, digest_of(run)?))) {
        Some((run, action)) => {
            let (operation, instance) = (run.id.clone(), run.instance_name.clone());
            Ok(Chosen { action, operation, instance })
        }
        None => Err(CliError::not_found(format!("nothing is known of {name}"))
            .hint("`kiln build show last --all` lists the actions of the newest build")),
    }
}

fn digest_of(run: &Execution) -> Option<Digest> {
    let digest = named(run.action.as_ref(), &run.digest_function);
    digest.parse().ok().map(|DigestArgument(digest)| digest)
}
