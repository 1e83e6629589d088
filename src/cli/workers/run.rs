//! `kiln worker` as the process that runs actions.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use kiln_cas::SharedBlobStore;
use kiln_cas::stores::RemoteStore;
use kiln_cas::stores::{Coalesced, Storage};
use kiln_executor::Worker;
use kiln_executor::remote::work_for;
use tokio_util::sync::CancellationToken;

use crate::cli::error::{CliError, Exit};
use crate::cli::flags::{Flag, FlagTable, Flags};
use crate::cli::process::{raise_limits, settings};
use crate::cli::say::say;
use crate::cli::signals::Signals;
use crate::cli::target::Target;
use crate::cli::text;
use crate::config::{log_options, status_server_options, worker_options};
use crate::serve::ServeError;
use crate::status_server::{Figures, ReservedStatusServer};
use crate::telemetry::{self, stages::Stages};

/// The table of which flags set which keys.
#[derive(Debug)]
pub struct OfWorker;

impl FlagTable for OfWorker {
    const FLAGS: &'static [Flag] = &[
        Flag("--slots", "workers.count", "N"),
        Flag("--name", "worker.name", "NAME"),
        Flag("--listen", "worker.listen", "ADDR"),
        Flag("--data-dir", "storage.data_dir", "DIR"),
        Flag("--property", "workers.properties", "NAME=VALUE"),
        Flag("--allow-image", "images.allow", "PREFIX"),
        Flag("--sandbox", "workers.sandbox", "MODE"),
        Flag("--max-size", "storage.max_size", "SIZE"),
    ];
}

#[derive(Debug, Args)]
pub struct Run {
    #[command(flatten)]
    flags: Flags<OfWorker>,
    /// Configuration file (TOML)
    #[arg(long, env = "KILN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Run {
    pub fn run(self, target: &Target) -> Result<Exit, CliError> {
        let settings = settings(self.config.as_ref(), self.flags.values)?;
        if settings.number("workers.count") == Some(0) {
            let given = &settings.get("workers.count").origin;
            let message =
                format!("a worker with no slots (workers.count = 0, from {given}) runs nothing");
            return Err(CliError::usage(message).hint("give 1 or more, or auto: one a core"));
        }
        let (mut config, storage) = worker_options(&settings)?;
        config.hidden.extend(target.secrets.iter().cloned());
        let status_server = status_server_options(&settings)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| CliError::machine(format!("cannot start threads: {error}")))?;
        runtime.block_on(async {
            telemetry::start(log_options(&settings)?);
            raise_limits();
            let mut signals = Signals::listen()?;
            let server = target.connect()?.patient(config.absence);
            // Before anything that takes long: a port that is taken is said at once.
            let status_server = status_server.map(ReservedStatusServer::reserve).transpose()?;
            let stages = Arc::new(Stages::default());
            config.observer = Some(stages.clone());
            let remote = RemoteStore::on(server.clone(), &target.instance);
            let transfers = remote.transfers();
            crate::data_dir::close(&storage.data_dir)
                .map_err(|error| CliError::machine(error.to_string()))?;
            let local = Storage::open(storage).await.map_err(ServeError::from)?;
            config.premises = Some(local.premises());
            let store: SharedBlobStore =
                Arc::new(Coalesced::new(local.blobs.clone(), Arc::new(remote)));
            let shutdown = CancellationToken::new();
            tell(&format!(
                "kiln worker {} with {} for {}\n",
                config.worker_id,
                kiln_web::format::counted(config.slots as u64, "slot"),
                target.urls().collect::<Vec<_>>().join(", ")
            ));
            let mut worker = Worker::start(config, store).await?;
            let status_server = match status_server {
                None => None,
                Some(reserved) => {
                    let url = reserved.url();
                    let figures = Figures { storage: local.stats.clone(), transfers, stages };
                    let opened = reserved.open(worker.status(), figures).await?;
                    tell(&format!("  listens    {url} (/healthz, /readyz, /metrics)\n"));
                    Some(opened)
                }
            };
            let work = async {
                work_for(&server, &mut worker, &shutdown).await;
                worker.stop().await;
            };
            tokio::select! {
                () = work => {}
                () = second_signal(&mut signals, &shutdown) => {
                    return Err(CliError::machine("ended before the drain was over"));
                }
            }
            if let Some(status_server) = status_server {
                status_server.close().await;
            }
            local.close().await.map_err(|error| CliError::of_machine(&error))?;
            Ok(Exit::Done)
        })
    }
}

/// Prints a line to stdout; the worker goes on where nobody reads it.
fn tell(line: &str) {
    if let Err(error) = text::print(line) {
        tracing::warn!("{}", error.message);
    }
}

/// The first signal lets the worker drain; returns at the second.
async fn second_signal(signals: &mut Signals, shutdown: &CancellationToken) {
    signals.next().await;
    say("draining; a second signal ends at once");
    shutdown.cancel();
    signals.next().await;
}
