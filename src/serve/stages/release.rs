//! Stages that make releases of what stages before them left.

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_ci::pipelines::{Ended, Release, RunnerError, RunnerFault, Source, Task};
use kiln_deploy::catalog::{
    Asked, By, Catalog, CatalogEntry, CatalogError, Form, Prepared, Wanted,
};
use kiln_deploy::executions::Executions;
use kiln_deploy::promotion::Keeper;
use kiln_deploy::provenance::{Revision, ToldRevision};
use kiln_deploy::releases::ReleaseName;
use kiln_net::causes::chain;

pub struct ReleaseStages {
    pub catalog: Catalog,
    /// Records of executions; `None`: nothing is recorded, and no release can be made.
    pub executions: Option<Executions>,
    pub keeper: Option<Arc<Keeper>>,
}

pub fn unavailable(what: &str, error: impl Into<RunnerFault>) -> RunnerError {
    RunnerError { what: what.to_owned(), source: Some(error.into()) }
}

/// The revision that a release is of. Whoever began the run told it; this server passes it on.
fn revision(source: &Source) -> Revision {
    let told = ToldRevision {
        repository: source.repository.clone(),
        commit: source.commit.clone(),
        branch: source.branch.clone(),
    };
    Revision::of(None, None, &told).unwrap_or_default()
}

impl ReleaseStages {
    /// Makes the release that a stage asks for. The same content under the same name is the same
    /// release, which is made once, however often it is asked for.
    pub async fn run(&self, task: &Task, release: &Release) -> Result<Ended, RunnerError> {
        let Some(executions) = &self.executions else {
            let why = "this server records no executions, of which releases are made: set releases.record";
            return Ok(Ended::failed(why));
        };
        let asked = match self.asked(task, release) {
            Ok(asked) => asked,
            Err(why) => return Ok(Ended::failed(why)),
        };
        // What the stage before left is recorded first.
        executions.flush().await;
        match self.made(asked, &task.by).await {
            Ok(entry) => Ok(ended(&task.instance, &entry)),
            Err(error) if error.is_passing() => Err(unavailable("the list of releases", error)),
            Err(error) => Ok(Ended::failed(chain(&error))),
        }
    }

    fn asked(&self, task: &Task, release: &Release) -> Result<Asked, String> {
        let name = release.name.parse::<ReleaseName>().map_err(|error| chain(&error))?;
        let told = task.told.get(&release.from);
        let of = |what: &str| told.and_then(|it| it.get(what)).cloned();
        let (Some(invocation), Some(target), Some(action)) =
            (of("invocation"), of("target"), of("action"))
        else {
            return Err(format!("the stage {:?} left nothing that can be released", release.from));
        };
        let taken = self.keeper.as_ref().map(|it| it.pipeline()).is_some_and(|it| {
            let is_it = |environment: &String| environment == name.version.as_str();
            it.instance == task.instance && it.environments.keys().any(is_it)
        });
        if taken {
            return Err(format!(
                "{} is the name of an environment: choose another version",
                name.version
            ));
        }
        // `HASH/SIZE`. Whoever runs actions here may name this invocation: theirs are not released.
        let action = action.split('/').next().map(str::to_owned);
        let paths = release.outputs.clone();
        Ok(Asked {
            instance: task.instance.clone(),
            name,
            invocation,
            outputs: Wanted { target, told: None, paths, action },
            revision: revision(&task.source),
            form: Form::Any,
            platform: ("linux".to_owned(), "amd64".to_owned()),
        })
    }

    async fn made(&self, asked: Asked, who: &str) -> Result<CatalogEntry, CatalogError> {
        match Box::pin(self.catalog.prepare(asked, By::Server)).await? {
            Prepared::Existing(entry) => Ok(*entry),
            Prepared::Draft(draft, _) => Box::pin(self.catalog.sign_here(*draft, who)).await,
        }
    }
}

fn ended(instance: &str, entry: &CatalogEntry) -> Ended {
    let (name, digest) = (entry.release.name.to_string(), entry.release.digest().to_string());
    let link = format!("/releases/{name}?instance={instance}");
    let told = [("release".to_owned(), name), ("digest".to_owned(), digest)];
    let links = vec![("release".to_owned(), link)];
    Ended { links, ..Ended::passed(BTreeMap::from(told)) }
}
