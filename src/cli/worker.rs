//! `kiln worker`.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use kiln_cas::SharedBlobStore;
use kiln_cas::stores::RemoteStore;
use kiln_cas::stores::{Coalesced, Storage};
use kiln_executor::Worker;
use kiln_executor::remote::work_for;
use tokio_util::sync::CancellationToken;

use super::signals::Signals;
use super::{CliError, Exit, Target, given, raise_open_files, settings};
use crate::config::{Settings, worker_options, worker_port};
use crate::port::{Figures, Port};
use crate::telemetry::{self, stages::Stages};

/// Run actions for a server on another machine.
///
/// The server is named with --server, several frontends of one fleet with one each: when one is
/// not heard, the next is tried, and what runs goes on. Blobs are fetched once and kept in the data
/// directory.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln worker --server http://build.example:8980
  kiln worker --server http://one.example:8980 --server http://two.example:8980
  kiln worker --server http://build.example:8980 --slots 16 --property OSFamily=linux --property pool=big
  kiln worker --server http://build.example:8980 --listen 0.0.0.0:8981    # /healthz, /readyz, /metrics
  kiln worker --server http://build.example:8980 --allow-image registry.example/team
  kiln worker --server https://build.example:8980 --tls-ca ca.pem --token-file /run/secrets/kiln-worker
  kiln worker --server https://build.example:8980 --tls-ca ca.pem --tls-client-cert worker.pem --tls-client-key worker.key

Actions that name a container image run in it where --allow-image (images.allow) allows it; the other
keys of the section images say from where and how much: `kiln config default` shows them.

Told to end (SIGTERM), it takes nothing more and finishes what runs, for at most workers.drain (1 h);
what still runs then is given back and runs elsewhere. A second signal ends it at once.

Credentials are read again while the worker runs: certificates for every connection, a token every 10 s.")]
pub struct WorkerCommand {
    /// Actions at a time [default: one a core]
    #[arg(long, value_name = "N")]
    slots: Option<String>,
    /// Address for /healthz, /readyz and /metrics; port 0 takes a free one [default: none]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Where inputs are kept [default: /var/lib/kiln-worker for root, else ~/.local/share/kiln-worker]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Platform property that this worker offers; replaces the default ones
    #[arg(long = "property", value_name = "NAME=VALUE")]
    properties: Vec<String>,
    /// Registry, repository or directory (oci:/DIR) of container images that actions may name
    #[arg(long = "allow-image", value_name = "PREFIX")]
    allow_images: Vec<String>,
    /// Configuration file (TOML)
    #[arg(long, env = "KILN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    /// best-effort, or required: refuse to start when this machine cannot enforce everything
    #[arg(long, value_name = "MODE")]
    sandbox: Option<String>,
    /// Most bytes of blobs on disk, e.g. 100GB
    #[arg(long, value_name = "SIZE")]
    max_size: Option<String>,
}

impl WorkerCommand {
    fn settings(&self) -> Result<Settings, CliError> {
        let mut flags = Vec::new();
        given(&mut flags, "--slots", "workers.count", self.slots.as_ref());
        given(&mut flags, "--listen", "worker.listen", self.listen.as_ref());
        given(&mut flags, "--data-dir", "storage.data_dir", self.data_dir.as_ref());
        given(&mut flags, "--sandbox", "workers.sandbox", self.sandbox.as_ref());
        given(&mut flags, "--max-size", "storage.max_size", self.max_size.as_ref());
        let properties = (!self.properties.is_empty()).then(|| self.properties.join(","));
        given(&mut flags, "--property", "workers.properties", properties.as_ref());
        let images = (!self.allow_images.is_empty()).then(|| self.allow_images.join(","));
        given(&mut flags, "--allow-image", "images.allow", images.as_ref());
        Ok(settings(self.config.as_ref(), flags)?)
    }

    pub fn run(self, target: &Target) -> Result<Exit, CliError> {
        let settings = self.settings()?;
        let (mut config, storage) = worker_options(&settings)?;
        config.hidden.extend(target.secrets.iter().cloned());
        let port = worker_port(&settings)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| CliError::machine(format!("cannot start threads: {error}")))?;
        runtime.block_on(async {
            telemetry::start(&settings)?;
            raise_open_files();
            let mut signals = Signals::listen()?;
            let server = target.connect()?.patient(config.absence);
            // Before anything that takes long: a port that is taken is said at once.
            let port = port.map(Port::reserve).transpose()?;
            let stages = Arc::new(Stages::default());
            config.observer = Some(stages.clone());
            let remote = RemoteStore::on(server.clone(), &target.instance);
            let transfers = remote.transfers();
            let machine = |error: &dyn std::fmt::Display| CliError::machine(error.to_string());
            crate::data_dir::close(&storage.data_dir);
            let local = Storage::open(storage).await.map_err(|error| machine(&error))?;
            config.premises = Some(local.premises());
            let store: SharedBlobStore =
                Arc::new(Coalesced::new(local.blobs.clone(), Arc::new(remote)));
            let shutdown = CancellationToken::new();
            println!(
                "kiln worker {} with {} slots for {}",
                config.worker_id,
                config.slots,
                target.urls().collect::<Vec<_>>().join(", ")
            );
            let mut worker = Worker::start(config, store).await?;
            let port = match port {
                None => None,
                Some(port) => {
                    let url = port.url();
                    let figures = Figures { storage: local.stats.clone(), transfers, stages };
                    let port = port.open(worker.status(), figures).await?;
                    println!("  listens    {url} (/healthz, /readyz, /metrics)");
                    Some(port)
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
            if let Some(port) = port {
                port.close().await;
            }
            local.close().await.map_err(|error| machine(&error))?;
            Ok(Exit::Done)
        })
    }
}

/// The first signal lets the worker drain; returns at the second.
async fn second_signal(signals: &mut Signals, shutdown: &CancellationToken) {
    signals.next().await;
    eprintln!("draining; a second signal ends at once");
    shutdown.cancel();
    signals.next().await;
}
