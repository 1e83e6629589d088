//! Builds that told of themselves, and the gate of their tests.

use async_trait::async_trait;
use kiln_ci::CiServices;
use kiln_ci::pipelines::RunnerFault;
use kiln_ci::stages::{BuildState, Builds, GateState};
use kiln_deploy::promotion::Tests;

use crate::serve::promotion::Gates;

pub struct ToldBuilds {
    pub tests: CiServices,
    pub gates: Gates,
}

#[async_trait]
impl Builds for ToldBuilds {
    async fn build(&self, instance: &str, invocation: &str) -> Result<BuildState, RunnerFault> {
        let noted = self.tests.streams.build(invocation).await?.map(|it| it.summary);
        // A build of another instance is none of this run's business.
        let Some(build) = noted.filter(|it| it.stream.instance == instance) else {
            return Ok(BuildState::Unknown);
        };
        Ok(match (build.exit_code, build.is_complete) {
            (Some((code, name)), _) => {
                let said = format!("it ended with {code} ({name})");
                BuildState::Ended { passed: code == 0, said }
            }
            (None, true) => {
                let said = "it ended without an exit code: it was interrupted".to_owned();
                BuildState::Ended { passed: false, said }
            }
            (None, false) => BuildState::Runs,
        })
    }

    async fn gate(&self, instance: &str, invocation: &str) -> Result<GateState, RunnerFault> {
        Ok(match self.gates.of(instance, invocation).await? {
            Tests::Green => GateState::Green,
            Tests::Red(why) => GateState::Red(why),
            Tests::Undecided(why) => GateState::Undecided(why),
        })
    }
}
