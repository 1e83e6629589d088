//! Commands of stages as sandboxed actions on the workers that run everything else.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_protos::reapi;
use prost::Message;
use tonic::Code;

use super::action::{action_message, check, command_message};
use super::begun::{LOOK, Ledger};
use super::log::StageLog;
use super::mask::Forms;
use crate::attempts::BlobName;
use crate::pipelines::{Command, Ended, Outcome, Progress, RunnerError, Task};

/// What actions of stages are called in records of executions.
pub const MNEMONIC: &str = "PipelineStage";
/// What a command may end with to say that it could not run (sysexits.h, EX_TEMPFAIL).
const TEMPFAIL: i32 = 75;
/// Characters of a message that are repeated.
const MAX_SAID: usize = 800;

/// An action that is to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted<'a> {
    pub instance: &'a str,
    /// The digest of the action: `HASH/SIZE`.
    pub action: &'a str,
    /// The id of the invocation: one for each attempt, so that what it left can be named.
    pub invocation: &'a str,
    /// The run: what all its invocations belong to.
    pub run: &'a str,
    pub target: &'a str,
    /// The account that began the run.
    pub by: &'a str,
    /// The directory of the sources below which the action's outputs are.
    pub directory: &'a str,
}

/// How an action ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActionEnd {
    Exited(i32),
    TimedOut,
    Cancelled,
    /// The action did not run to an end, and might another time.
    Infrastructure(String),
    /// The action cannot run, for this reason.
    Refused(String),
}

/// An action that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Done {
    pub end: ActionEnd,
    /// Files that it left, by their paths below its directory.
    pub files: Vec<(String, BlobName)>,
    /// All that it left, as a tree from the root of the sources on, `HASH/SIZE`; `None`: nothing.
    pub tree: Option<String>,
    /// The page of the action below this server.
    pub link: String,
}

/// Why nothing is known of an action.
#[derive(Debug, thiserror::Error)]
pub enum ActionsError {
    #[error("{0}")]
    Unavailable(String),
    /// What the action stands on is not there, or is no tree.
    #[error("{0}")]
    Unfit(String),
}

/// Whoever has a store and workers.
#[async_trait]
pub trait Actions: Send + Sync + 'static {
    /// The longest time that an action may have.
    fn longest(&self) -> Duration;

    /// Stores a message as a blob of the instance.
    async fn put(&self, instance: &str, message: Bytes) -> Result<reapi::Digest, ActionsError>;

    /// The root directory of sources (`None`: there are none) with other trees laid over it, each over those before it; all as
    /// `HASH/SIZE`.
    async fn root(
        &self,
        instance: &str,
        sources: Option<&str>,
        over: &[&str],
    ) -> Result<reapi::Digest, ActionsError>;

    /// Has an action run, or finds its run that goes on or has ended, and tells what it prints. Dropping the future leaves it
    /// to whoever asks for it next.
    async fn execute(&self, wanted: &Wanted<'_>, log: &StageLog<'_>) -> Result<Done, ActionsError>;

    /// Ends an action wherever it runs or waits. It is no error where it does neither.
    async fn cancel(&self, instance: &str, action: &str) -> Result<(), ActionsError>;
}

/// Takes reports of tests into the history.
#[async_trait]
pub trait TakeReports: Send + Sync + 'static {
    /// Says in words how many cases there were, or why the report is none.
    async fn take(&self, task: &Task, path: &str, report: &BlobName) -> String;
}

/// How an answer of the execution service is to be read. `code`: `google.rpc.Code`.
pub fn end_of(code: i32, exit_code: i32, cancelled: bool, message: &str) -> ActionEnd {
    let said = || message.chars().take(MAX_SAID).collect::<String>();
    match Code::from_i32(code) {
        _ if cancelled => ActionEnd::Cancelled,
        Code::Ok => ActionEnd::Exited(exit_code),
        Code::DeadlineExceeded => ActionEnd::TimedOut,
        Code::Cancelled => ActionEnd::Cancelled,
        Code::InvalidArgument
        | Code::FailedPrecondition
        | Code::NotFound
        | Code::PermissionDenied
        | Code::OutOfRange => ActionEnd::Refused(said()),
        _ => ActionEnd::Infrastructure(said()),
    }
}

/// Runs the commands of stages as actions.
pub struct Commands {
    pub actions: Arc<dyn Actions>,
    pub ledger: Ledger,
    /// `None`: reports are left alone.
    pub reports: Option<Arc<dyn TakeReports>>,
    /// Whether a stage that asks for the network gets it.
    pub allow_network: bool,
}

/// What the attempt's invocation is called.
pub fn invocation_of(task: &Task) -> String {
    let key = &task.key;
    format!("{}-{}-{}", key.run, key.stage, key.attempt)
}

fn unknown(error: ActionsError) -> RunnerError {
    RunnerError { what: "the execution of a command".to_owned(), source: Some(Box::new(error)) }
}

impl Commands {
    pub async fn run(
        &self,
        task: &Task,
        command: &Command,
        progress: &dyn Progress,
    ) -> Result<Ended, RunnerError> {
        if let Err(unfit) = check(command, self.allow_network) {
            return Ok(Ended::failed(unfit.to_string()));
        }
        let action = match self.begun(task, command).await? {
            Ok(action) => action,
            Err(ended) => return Ok(ended),
        };
        let invocation = invocation_of(task);
        let wanted = Wanted {
            instance: &task.instance,
            action: &action,
            invocation: &invocation,
            run: &task.key.run,
            target: &task.stage,
            by: &task.by,
            directory: &command.directory,
        };
        let log = StageLog::new(progress, &Forms::default());
        let done = match self.execute(task, &wanted, &log).await {
            Ok(done) => done,
            Err(ActionsError::Unfit(why)) => return Ok(Ended::failed(why)),
            Err(error) => return Err(unknown(error)),
        };
        self.take_reports(task, command, &done, &log).await;
        log.end();
        Ok(ended(task, &wanted, done))
    }

    /// Ends a command, also one that another server waits for, or that has not begun.
    pub async fn cancel(&self, task: &Task) -> Result<(), RunnerError> {
        let begun = self.ledger.cancel(&task.key).await?;
        match &begun.what {
            Some(action) => self.actions.cancel(&task.instance, action).await.map_err(unknown),
            None => Ok(()),
        }
    }

    /// The action of an attempt, which is noted before it can run. `Ok(Err)`: it does not run.
    async fn begun(
        &self,
        task: &Task,
        command: &Command,
    ) -> Result<Result<String, Ended>, RunnerError> {
        let begun = self.ledger.read(&task.key).await?;
        if begun.cancelled {
            if let Some(action) = &begun.what {
                self.actions.cancel(&task.instance, action).await.map_err(unknown)?;
            }
            return Ok(Err(Ended::cancelled()));
        }
        if let Some(action) = begun.what {
            return Ok(Ok(action));
        }
        let action = match self.prepare(task, command).await {
            Ok(action) => action,
            Err(ActionsError::Unfit(why)) => return Ok(Err(Ended::failed(why))),
            Err(error) => return Err(unknown(error)),
        };
        let begun = self.ledger.begin(&task.key, &action).await?;
        Ok(begun.what.filter(|_| !begun.cancelled).ok_or_else(Ended::cancelled))
    }

    /// Puts together what is to run.
    async fn prepare(&self, task: &Task, command: &Command) -> Result<String, ActionsError> {
        let instance = &task.instance;
        let over: Vec<&str> = command
            .from
            .iter()
            .filter_map(|it| task.told.get(it)?.get("tree").map(String::as_str))
            .collect();
        let root = self.actions.root(instance, task.source.root.as_deref(), &over).await?;
        let message = command_message(task, command).encode_to_vec().into();
        let command_digest = self.actions.put(instance, message).await?;
        let longest = self.actions.longest();
        let message = action_message(task, command, (command_digest, root), longest);
        let action = self.actions.put(instance, message.encode_to_vec().into()).await?;
        Ok(format!("{}/{}", action.hash, action.size_bytes))
    }

    /// Runs an action until it has ended by itself or because somebody wants that.
    async fn execute(
        &self,
        task: &Task,
        wanted: &Wanted<'_>,
        log: &StageLog<'_>,
    ) -> Result<Done, ActionsError> {
        let mut executing = self.actions.execute(wanted, log);
        tokio::select! {
            done = &mut executing => return done,
            () = self.ledger.cancelled(&task.key) => log.standing("is being ended"),
        }
        loop {
            // What has not come to the queue yet cannot be ended there: again, until it has.
            self.actions.cancel(wanted.instance, wanted.action).await?;
            if let Ok(done) = tokio::time::timeout(LOOK, &mut executing).await {
                return done;
            }
        }
    }

    async fn take_reports(&self, task: &Task, command: &Command, done: &Done, log: &StageLog<'_>) {
        let Some(reports) = &self.reports else { return };
        for path in &command.reports {
            match done.files.iter().find(|(left, _)| left == path) {
                Some((_, report)) => {
                    let said = reports.take(task, path, report).await;
                    log.say(&format!("{path}: {said}"));
                }
                None => log.say(&format!("{path}: the command left no such report")),
            }
        }
    }
}

/// What a program says that ended with this, which is not 0.
pub(super) fn exited(code: i32) -> Outcome {
    match code {
        TEMPFAIL => Outcome::Infrastructure {
            reason: format!("it ended with {code}, by which it says that it could not run"),
        },
        code => Outcome::Failed { reason: format!("it ended with {code}") },
    }
}

fn ended(task: &Task, wanted: &Wanted<'_>, done: Done) -> Ended {
    let outcome = match done.end {
        ActionEnd::Exited(0) => {
            let mut told = BTreeMap::from([
                ("invocation".to_owned(), wanted.invocation.to_owned()),
                ("target".to_owned(), wanted.target.to_owned()),
                ("action".to_owned(), wanted.action.to_owned()),
            ]);
            told.extend(done.tree.map(|it| ("tree".to_owned(), it)));
            Outcome::Passed { told }
        }
        ActionEnd::Exited(code) => exited(code),
        ActionEnd::TimedOut => {
            Outcome::Failed { reason: format!("it took longer than {} s", task.timeout.as_secs()) }
        }
        ActionEnd::Cancelled => Outcome::Cancelled,
        ActionEnd::Infrastructure(reason) => Outcome::Infrastructure { reason },
        ActionEnd::Refused(reason) => Outcome::Failed { reason },
    };
    let links = match done.link.is_empty() {
        true => Vec::new(),
        false => vec![("action".to_owned(), done.link)],
    };
    Ended { outcome, links }
}
