//! Builds of others that a stage waits for, and what the gate of tests says of them.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

use super::begun::Ledger;
use crate::pipelines::{Ended, Outcome, Progress, RunnerError, RunnerFault, Task, Waited};

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(2);

/// What is known of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildState {
    /// Nobody has said anything of the build.
    Unknown,
    Runs,
    Ended {
        passed: bool,
        /// How the build ended, in words.
        said: String,
    },
}

/// What the gate says of the build's tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GateState {
    Green,
    Red(String),
    Undecided(String),
}

/// Whoever knows of builds.
#[async_trait]
pub trait Builds: Send + Sync + 'static {
    async fn build(&self, instance: &str, invocation: &str) -> Result<BuildState, RunnerFault>;

    async fn gate(&self, instance: &str, invocation: &str) -> Result<GateState, RunnerFault>;
}

/// What one look came to.
enum Look {
    Ended(Ended),
    Waits(String),
}

fn decided(build: &BuildState, gate: Option<&GateState>) -> Look {
    let failed = |reason: String| Look::Ended(Ended::failed(reason));
    match (build, gate) {
        (BuildState::Unknown, _) => Look::Waits("nothing is known of the build yet".to_owned()),
        (BuildState::Runs, _) => Look::Waits("the build runs".to_owned()),
        // A red gate says more of a failed build than that it failed.
        (BuildState::Ended { .. }, Some(GateState::Red(why))) => {
            failed(format!("the gate of tests is red: {why}"))
        }
        (BuildState::Ended { .. }, Some(GateState::Undecided(why))) => {
            Look::Waits(format!("the gate of tests is not decided: {why}"))
        }
        (BuildState::Ended { .. }, Some(GateState::Green))
        | (BuildState::Ended { passed: true, .. }, None) => {
            Look::Ended(Ended::passed(BTreeMap::new()))
        }
        (BuildState::Ended { passed: false, said }, None) => {
            failed(format!("the build failed: {said}"))
        }
    }
}

/// Waits until a build has ended, and where that is asked for until its gate is green. How long is the control's to say: it
/// cancels what has taken too long.
pub async fn wait(
    builds: &dyn Builds,
    ledger: &Ledger,
    task: &Task,
    waited: &Waited,
    progress: &dyn Progress,
) -> Result<Ended, RunnerError> {
    let fault =
        |source| RunnerError { what: "what is known of builds".to_owned(), source: Some(source) };
    let (instance, invocation) = (&task.instance, &waited.invocation);
    loop {
        let build = builds.build(instance, invocation).await.map_err(fault)?;
        let ended = matches!(build, BuildState::Ended { .. });
        let gate = match ended && waited.gate {
            true => Some(builds.gate(instance, invocation).await.map_err(fault)?),
            false => None,
        };
        match decided(&build, gate.as_ref()) {
            Look::Ended(mut ended) => {
                ended.links = vec![("build".to_owned(), format!("/builds/{invocation}"))];
                if let Outcome::Passed { told } = &mut ended.outcome {
                    told.insert("invocation".to_owned(), invocation.clone());
                }
                return Ok(ended);
            }
            Look::Waits(why) => progress.standing(&why),
        }
        if ledger.read(&task.key).await?.cancelled {
            return Ok(Ended::cancelled());
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::super::testing::{Heard, TestClock, task};
    use super::*;
    use crate::pipelines::Work;
    use crate::storage::memory::Memory;

    /// A source that gives one state after the other, one for each look, and the last one from then on.
    struct Told {
        looks: Vec<(BuildState, GateState)>,
        looked: AtomicUsize,
    }

    #[async_trait]
    impl Builds for Told {
        async fn build(&self, _: &str, _: &str) -> Result<BuildState, RunnerFault> {
            let look = self.looked.fetch_add(1, Ordering::Relaxed).min(self.looks.len() - 1);
            Ok(self.looks[look].0.clone())
        }

        async fn gate(&self, _: &str, _: &str) -> Result<GateState, RunnerFault> {
            let look = self.looked.load(Ordering::Relaxed).min(self.looks.len()) - 1;
            Ok(self.looks[look].1.clone())
        }
    }

    impl Told {
        async fn waited(self, gate: bool) -> (Outcome, Vec<String>) {
            let waited = Waited { invocation: "i".to_owned(), gate };
            let task = task(1, Work::Wait(waited.clone()));
            let ledger = Ledger::new(Arc::new(Memory::default()), Arc::new(TestClock::default()));
            let heard = Heard::default();
            let ended = wait(&self, &ledger, &task, &waited, &heard).await.unwrap();
            (ended.outcome, heard.stood())
        }
    }

    fn told(looks: &[(BuildState, GateState)]) -> Told {
        Told { looks: looks.to_vec(), looked: AtomicUsize::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_build_is_waited_for_and_then_its_gate() {
        let green = || GateState::Green;
        let undecided = || GateState::Undecided("//a:t runs again".to_owned());
        let ended = |passed| BuildState::Ended { passed, said: "exit code 3".to_owned() };
        let looks = [
            (BuildState::Unknown, green()),
            (BuildState::Runs, green()),
            (ended(false), undecided()),
            (ended(false), green()),
        ];
        let (outcome, stood) = told(&looks).waited(true).await;
        assert!(matches!(outcome, Outcome::Passed { told } if told["invocation"] == "i"));
        assert_eq!(stood.len(), 3, "{stood:?}");
        let (outcome, _) = told(&looks).waited(false).await;
        assert!(matches!(outcome, Outcome::Failed { reason } if reason.contains("exit code 3")));
        let red = [(ended(true), GateState::Red("//a:t".to_owned()))];
        let (outcome, _) = told(&red).waited(true).await;
        assert!(matches!(outcome, Outcome::Failed { reason } if reason.contains("red: //a:t")));
    }
}
