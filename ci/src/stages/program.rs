//! Programs of stages that an operator lists. They run on the server's side, as its user, and they alone get secrets: in their
//! environment, which is in no record, no message and no log.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use kiln_net::causes::chain;
use kiln_net::process::{ProcessError, bare, run_told};
use tokio::process::Command;

use super::begun::Ledger;
use super::command::exited;
use super::log::StageLog;
use super::mask::Forms;
use super::secret::{self, Secret, SecretList};
use crate::pipelines::{Ended, Listed, Outcome, Progress, RunnerError, Task};

/// Arguments that a stage may add, and bytes of each.
const MAX_ARGUMENTS: usize = 100;
const MAX_ARGUMENT: usize = 4_000;
/// The variable in which the program finds the key of the attempt.
const KEY: &str = "KILN_IDEMPOTENCY_KEY";

/// The time within which a server has heard that another one drives.
const HEARS: Duration = Duration::from_secs(5);

/// A program as the operator lists it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListedProgram {
    /// The program with its arguments.
    pub argv: Vec<String>,
    /// The directory in which the program runs; `None`: the server's own.
    pub directory: Option<PathBuf>,
    /// The longest time of the program, whatever time the stage has.
    pub timeout: Duration,
    /// Further variables that it sees of the server's environment.
    pub env: Vec<String>,
    /// Variable -> the name of a secret.
    pub secrets: BTreeMap<String, String>,
    /// Whether a stage may add arguments. They come last, each as one argument.
    pub arguments: bool,
    /// Whether the program may run again with the same key after an end that nobody saw: then it finds out itself what
    /// is done.
    pub again: bool,
    /// Pipelines that may run it; empty: all.
    pub pipelines: Vec<String>,
}

/// Programs with the secrets that some of them get.
#[derive(Debug, Clone, Default)]
pub struct Programs {
    pub listed: BTreeMap<String, ListedProgram>,
    pub secrets: SecretList,
}

/// Why a program does not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("the operator of this server lists no program {0:?}")]
    Unknown(String),
    #[error("the operator lets other pipelines run {0:?}, and not {1:?}")]
    NotHere(String, String),
    #[error("{0:?} takes no arguments from stages: the operator does not say arguments = true")]
    Arguments(String),
    #[error("more than {MAX_ARGUMENTS} arguments, or one that is too long or has a NUL byte in it")]
    Odd,
    #[error(
        "{0:?} was running when its server ended, and nobody knows what it did: look, and run the stage again"
    )]
    Interrupted(String),
}

impl Programs {
    pub async fn run(
        &self,
        ledger: &Ledger,
        task: &Task,
        asked: &Listed,
        progress: &dyn Progress,
    ) -> Result<Ended, RunnerError> {
        let listed = match self.listed(task, asked) {
            Ok(listed) => listed,
            Err(refusal) => return Ok(Ended::failed(refusal.to_string())),
        };
        let before = ledger.read(&task.key).await?;
        if before.cancelled {
            return Ok(Ended::cancelled());
        }
        if before.what.is_some() && !listed.again {
            return Ok(Ended::failed(Refusal::Interrupted(asked.name.clone()).to_string()));
        }
        // Before anything is begun: what cannot be read makes nothing half done.
        let secrets = self.secrets.read(&listed.secrets).await;
        let read = secrets.and_then(|it| Ok((secret::forms(&it)?, it)));
        let (forms, secrets) = match read {
            Ok(read) => read,
            Err(error) => return Ok(Ended::infrastructure(chain(&error))),
        };
        let mine = format!("{} {:016x}", asked.name, fastrand::u64(..));
        let begun = ledger.begin(&task.key, &mine).await?;
        if begun.cancelled {
            return Ok(Ended::cancelled());
        }
        if begun.what.as_ref() != Some(&mine) && !listed.again {
            // Of two servers that believe to drive one does no more, and hears of that: its end counts for nothing.
            tokio::time::sleep(HEARS).await;
            let what = "a program that another server has begun at the same time".to_owned();
            return Err(RunnerError { what, source: None });
        }
        let command = command(listed, task, asked, &secrets);
        drop(secrets);
        let limit = listed.timeout.min(task.timeout);
        Ok(watched(ledger, task, command, limit, (&forms, progress)).await)
    }

    fn listed(&self, task: &Task, asked: &Listed) -> Result<&ListedProgram, Refusal> {
        let name: String = asked.name.chars().take(80).collect();
        let listed = self.listed.get(&asked.name).ok_or_else(|| Refusal::Unknown(name.clone()))?;
        if !listed.pipelines.is_empty() && !listed.pipelines.contains(&task.pipeline) {
            return Err(Refusal::NotHere(name, task.pipeline.clone()));
        }
        if !asked.arguments.is_empty() && !listed.arguments {
            return Err(Refusal::Arguments(name));
        }
        let fits = |it: &String| it.len() <= MAX_ARGUMENT && !it.contains('\0');
        let fit = asked.arguments.len() <= MAX_ARGUMENTS && asked.arguments.iter().all(fits);
        fit.then_some(listed).ok_or(Refusal::Odd)
    }
}

/// The program with what it is given. What a run says is in its environment: none of it is taken for an option.
fn command(
    listed: &ListedProgram,
    task: &Task,
    asked: &Listed,
    secrets: &BTreeMap<String, Secret>,
) -> Command {
    let mut command = bare(&listed.argv, &listed.env);
    command.args(&asked.arguments);
    // A run may say nothing but what begins so: it sets neither PATH nor LD_PRELOAD.
    let own = task.variables.iter().filter(|(name, _)| name.starts_with("KILN_"));
    command.envs(own.filter(|(name, value)| !name.contains(['=', '\0']) && !value.contains('\0')));
    command.env(KEY, task.key.to_string());
    command.envs(secrets.iter().map(|(name, secret)| (name, secret.reveal())));
    if let Some(directory) = &listed.directory {
        command.current_dir(directory);
    }
    command
}

/// Runs it until it ends, or somebody wants that.
async fn watched(
    ledger: &Ledger,
    task: &Task,
    command: Command,
    limit: Duration,
    (forms, progress): (&Forms, &dyn Progress),
) -> Ended {
    let log = StageLog::new(progress, forms);
    log.standing("runs");
    let told = |stderr: bool, data: &[u8]| log.append(stderr, data);
    let ran = tokio::select! {
        ran = run_told(command, None, limit, &told) => Some(ran),
        // With it goes all that it started.
        () = ledger.cancelled(&task.key) => None,
    };
    log.end();
    let outcome = match ran {
        None => Outcome::Cancelled,
        Some(Ok(status)) => match status.code() {
            Some(0) => Outcome::Passed { told: BTreeMap::new() },
            Some(code) => exited(code),
            None => Outcome::Failed { reason: format!("it was ended: {status}") },
        },
        Some(Err(ProcessError::Slow { limit, .. })) => {
            Outcome::Failed { reason: format!("it took longer than {} s", limit.as_secs()) }
        }
        Some(Err(error)) => Outcome::Infrastructure { reason: chain(&error) },
    };
    Ended { outcome, links: Vec::new() }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::secret::SecretSource;
    use super::super::testing::{Heard, TestClock, task};
    use super::*;
    use crate::pipelines::Work;
    use crate::storage::memory::Memory;

    const TOKEN: &str = "s3cret/token+1";

    fn programs(script: &str, change: impl FnOnce(&mut ListedProgram)) -> Programs {
        let mut listed = ListedProgram {
            argv: ["sh", "-c", script, "sh"].map(str::to_owned).to_vec(),
            timeout: Duration::from_secs(60),
            secrets: BTreeMap::from([("TOKEN".into(), "deploy".into())]),
            ..ListedProgram::default()
        };
        change(&mut listed);
        let print = ["printf", "%s\n", TOKEN].map(str::to_owned).to_vec();
        let secrets = BTreeMap::from([("deploy".into(), SecretSource::Command(print))]);
        let listed = BTreeMap::from([("deploy".to_owned(), listed)]);
        Programs { listed, secrets: SecretList(secrets) }
    }

    fn ledger() -> Ledger {
        Ledger::new(Arc::new(Memory::default()), Arc::new(TestClock::default()))
    }

    fn asked(arguments: &[&str]) -> Listed {
        let arguments = arguments.iter().map(|it| (*it).to_owned()).collect();
        Listed { name: "deploy".to_owned(), arguments }
    }

    async fn ran(programs: &Programs, ledger: &Ledger, asked: &Listed) -> (Outcome, String) {
        let heard = Heard::default();
        let mut task = task(1, Work::Program(asked.clone()));
        task.variables = BTreeMap::from([
            ("KILN_RUN".into(), "r1".into()),
            ("LD_PRELOAD".into(), "/evil.so".into()),
        ]);
        let ended = programs.run(ledger, &task, asked, &heard).await.unwrap();
        (ended.outcome, heard.said())
    }

    #[tokio::test]
    async fn a_program_gets_its_secrets_and_its_log_shows_none() {
        let script = "echo \"$TOKEN $KILN_RUN $KILN_IDEMPOTENCY_KEY $LD_PRELOAD.\"; \
                      printf '%s' \"$TOKEN\" | base64; exit 3";
        let (outcome, said) = ran(&programs(script, |_| {}), &ledger(), &asked(&[])).await;
        assert_eq!(outcome, Outcome::Failed { reason: "it ended with 3".into() });
        assert!(said.starts_with("*** r1 r1/3/1 .\n***"), "{said}");
        assert!(!said.contains("s3cret") && !said.contains("czNjcmV0"), "{said}");
    }

    #[tokio::test]
    async fn what_the_operator_does_not_say_is_refused() {
        let may = programs("printf '<%s>' \"$@\"", |it| it.arguments = true);
        let (outcome, said) = ran(&may, &ledger(), &asked(&["a b", "-x"])).await;
        assert_eq!(
            (outcome, said.as_str()),
            (Outcome::Passed { told: BTreeMap::new() }, "<a b><-x>")
        );
        for (programs, asked, said) in [
            (programs("true", |_| {}), asked(&["a"]), "takes no arguments"),
            (
                programs("true", |it| it.pipelines = vec!["other".into()]),
                asked(&[]),
                "other pipelines",
            ),
            (programs("true", |it| it.arguments = true), asked(&["a\0b"]), "NUL"),
            (Programs::default(), asked(&[]), "lists no program"),
        ] {
            let (outcome, _) = ran(&programs, &ledger(), &asked).await;
            assert!(
                matches!(&outcome, Outcome::Failed { reason } if reason.contains(said)),
                "{outcome:?}"
            );
        }
    }

    #[tokio::test]
    async fn what_was_interrupted_runs_again_only_where_the_operator_says_so() {
        let ledger = ledger();
        let asked = asked(&[]);
        ledger.begin(&super::super::testing::key(1), "deploy").await.unwrap();
        let (outcome, _) = ran(&programs("true", |_| {}), &ledger, &asked).await;
        assert!(matches!(outcome, Outcome::Failed { reason } if reason.contains("nobody knows")));
        let (outcome, _) = ran(&programs("true", |it| it.again = true), &ledger, &asked).await;
        assert!(matches!(outcome, Outcome::Passed { .. }));
    }

    #[tokio::test]
    async fn of_two_servers_that_are_given_it_at_once_one_runs_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("runs");
        let script = format!("echo x >> '{}'; sleep 0.3", file.display());
        let (programs, ledger, asked) = (programs(&script, |_| {}), ledger(), asked(&[]));
        let (outcome, _) = tokio::select! {
            first = ran(&programs, &ledger, &asked) => first,
            second = ran(&programs, &ledger, &asked) => second,
        };
        assert!(matches!(outcome, Outcome::Passed { .. }), "{outcome:?}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "x\n");
    }

    #[tokio::test]
    async fn a_secret_that_cannot_be_read_begins_nothing() {
        let programs = programs("true", |it| {
            it.secrets.insert("OTHER".into(), "none".into());
        });
        let ledger = ledger();
        let (outcome, _) = ran(&programs, &ledger, &asked(&[])).await;
        assert!(matches!(outcome, Outcome::Infrastructure { reason } if reason.contains("none")));
        assert_eq!(ledger.read(&super::super::testing::key(1)).await.unwrap().what, None);
    }

    #[tokio::test]
    async fn what_is_cancelled_ends_with_all_that_it_started() {
        let programs = programs("echo begun; sleep 600 & wait", |_| {});
        let ledger = ledger();
        let asked = asked(&[]);
        let cancel = async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            ledger.cancel(&super::super::testing::key(1)).await.unwrap();
        };
        let start = std::time::Instant::now();
        let ((outcome, said), ()) = tokio::join!(ran(&programs, &ledger, &asked), cancel);
        assert_eq!((outcome, said.as_str()), (Outcome::Cancelled, "begun\n"));
        assert!(start.elapsed() < Duration::from_secs(30));
    }
}
