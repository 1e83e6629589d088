//! Finds the queue that is meant: one in a directory of this machine, or one at a server.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, ValueHint};
use kiln_ci::model::Time;
use kiln_ci::queue::serving::{Desk, LaneName, Ledger, Local, QueueError};
use kiln_ci::queue::{Branch, Lane, Refused};
use kiln_ci::services::Clock;
use kiln_ci::storage::{FileRecords, Records};
use kiln_net::clock::unix_millis;

use crate::cli::error::CliError;

#[derive(Debug, Args)]
pub struct QueueDirectory {
    /// The directory in which a queue on this machine keeps its state, its clone and its trees; --server on the
    /// command line means one at a server
    #[arg(long = "state", env = "KILN_QUEUE_STATE", value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub directory: Option<PathBuf>,

    /// The name of the queue
    #[arg(long, value_name = "NAME", default_value = "main", value_hint = ValueHint::Other)]
    pub queue: String,
}

impl QueueDirectory {
    pub fn name(&self) -> Result<LaneName, CliError> {
        LaneName::new(&self.queue).map_err(told)
    }

    /// Whether the queue of a directory is meant. `named`: the command line says which server is meant.
    pub fn is_here(&self, named: bool) -> bool {
        self.directory.is_some() && !named
    }

    /// The directory in which a runner has its clone and its trees; none is a usage error.
    pub fn directory(&self) -> Result<&Path, CliError> {
        let hint =
            "name one with --state: clone, trees and logs are there, also of a queue at a server";
        let missing = || CliError::usage("no directory is named").hint(hint);
        self.directory.as_deref().ok_or_else(missing)
    }

    fn records(&self) -> Result<Arc<dyn Records>, CliError> {
        Ok(Arc::new(FileRecords::new(self.directory()?.join("records"))))
    }

    /// The ledger in which a runner on this machine keeps its lane.
    pub fn ledger(&self) -> Result<Arc<dyn Ledger>, CliError> {
        Ok(Arc::new(Local::new(self.records()?, self.name()?)))
    }

    /// The desk at which people ask for changes of the queue; a queue that was never begun is a
    /// usage error.
    pub fn desk(&self) -> Result<Desk, CliError> {
        let directory = self.directory()?;
        if !directory.is_dir() {
            let message = format!("{} is no directory of a queue", directory.display());
            return Err(CliError::usage(message).hint("kiln queue run makes it"));
        }
        Ok(Desk::new(self.records()?, self.name()?))
    }

    /// The lane of the queue as it stands now.
    pub async fn lane(&self) -> Result<Lane, CliError> {
        let lane = self.desk()?.lane().await.map_err(told)?;
        lane.ok_or_else(|| {
            CliError::not_found("the queue has never run").hint("kiln queue run begins it")
        })
    }
}

pub fn branch(name: &str) -> Result<Branch, String> {
    Branch::new(name).map_err(|error| error.to_string())
}

/// The clock of this machine.
pub struct System;

impl Clock for System {
    fn now(&self) -> Time {
        Time(unix_millis())
    }
}

/// Where somebody asks for a change that is not in the queue.
pub const WAITS: &str = "`kiln queue list` says what waits in it";

/// Turns an error of the queue into one of the command, whose exit code says whose fault it is.
pub fn told(error: QueueError) -> CliError {
    match &error {
        QueueError::Unknown(_) | QueueError::Refused(Refused::Unknown(_)) => {
            CliError::not_found(error.to_string()).hint(WAITS)
        }
        QueueError::Name(_) | QueueError::NoTarget(_) | QueueError::OtherTarget { .. } => {
            CliError::usage(error.to_string())
        }
        QueueError::Refused(_)
        | QueueError::Crowded(_)
        | QueueError::Lost(_)
        | QueueError::Server(_) => CliError::answered(error.to_string()),
        _ => CliError::of_machine(&error),
    }
}
