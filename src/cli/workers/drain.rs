//! `kiln worker drain`.

use std::time::Duration;

use clap::Args;
use kiln_protos::admin::DrainWorkerRequest;
use kiln_protos::admin::admin_client::AdminClient;
use kiln_scheduler::snapshot::WorkerView;
use serde::{Deserialize, Serialize};

use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use crate::cli::text;
use kiln_web::format::counted;

/// How long `--wait` waits between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// In how many looks in a row the worker must be gone: one whose connection broke comes back, and
/// says a moment later that it drains.
const LOOKS: u32 = 2;

/// Have a worker take nothing more, finish what it runs and end
///
/// Any frontend of a fleet takes the command, wherever the worker is connected. What still runs after the
/// worker's own workers.drain (1 h) is given back and runs elsewhere. `kiln worker` then ends with exit
/// code 0; a server's own worker is back when the server is started again.
///
/// Where the server asks who calls it takes the role admin in all instances, on a loopback address without
/// access files the server's own user or root. It is noted in the audit log.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln worker drain build-7-1f3a
  kiln worker drain build-7-1f3a --wait && ssh build-7 reboot
  kiln --server https://build.example:8980 --token-file ~/.kiln-admin worker drain build-7-1f3a --json

`kiln status` lists the names of workers. An unknown name ends with exit code 1 and names those there are.")]
pub struct Drain {
    /// The worker's name, as `kiln status` and the queue page show it
    name: String,
    /// Return when the worker is gone, though another one may be there under its name by then
    #[arg(long)]
    wait: bool,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// The result of the command, as `--json` prints it.
#[derive(Debug, Serialize)]
struct Drained<'a> {
    worker: &'a str,
    already_draining: bool,
    /// Slots that ran something when the worker was told.
    occupied: u32,
    /// Whether the worker was waited for.
    gone: bool,
}

#[derive(Deserialize)]
struct Workers {
    workers: Vec<WorkerView>,
}

impl Drain {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let server = target.connect()?;
        let request = DrainWorkerRequest { name: self.name.clone() };
        let told = AdminClient::new(server.channel()).drain_worker(request).await;
        let told = told.map_err(|status| {
            CliError::from_status(&target.url, &status)
                .or_hint("`kiln status` lists the workers of the server and their names")
        })?;
        let told = told.into_inner();
        let mut drained = Drained {
            worker: &self.name,
            already_draining: told.already_draining,
            occupied: told.occupied,
            gone: false,
        };
        if !self.json {
            text::print(&drained.text())?;
        }
        if self.wait {
            wait(&Api::new(target)?, &self.name).await?;
            drained.gone = true;
        }
        match (self.json, self.wait) {
            (true, _) => text::print_json(&drained)?,
            (false, true) => text::print(&format!("{} is gone\n", self.name))?,
            (false, false) => {}
        }
        Ok(Exit::Done)
    }
}

impl Drained<'_> {
    fn text(&self) -> String {
        let drains = if self.already_draining { "drains already" } else { "drains" };
        match self.occupied {
            0 => format!("{} {drains}: nothing runs there\n", self.worker),
            slots => {
                let slots = counted(u64::from(slots), "slot");
                format!("{} {drains}: what runs on {slots} of it is finished first\n", self.worker)
            }
        }
    }
}

/// Returns when the worker that was drained is gone.
async fn wait(api: &Api, name: &str) -> Result<(), CliError> {
    let mut looks = 0;
    loop {
        let Workers { workers } = api::read(api.get("/workers").await?)?;
        looks = if is_gone(&workers, name) { looks + 1 } else { 0 };
        if looks == LOOKS {
            return Ok(());
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Whether the worker has gone, or another one stands under its name. One that drains is still the
/// one that was told to, since it drains in each of its sessions; one that does not drain has begun
/// since, as where something starts workers again whenever they end.
fn is_gone(workers: &[WorkerView], name: &str) -> bool {
    workers.iter().all(|worker| worker.id != name || !worker.draining)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_gone_though_another_one_of_its_name_is_there() {
        let worker = |id: &str, draining| WorkerView {
            id: id.to_owned(),
            draining,
            ..WorkerView::default()
        };
        let is_gone = |workers: &[WorkerView]| is_gone(workers, "build-7");
        assert!(!is_gone(&[worker("build-7", true)]), "it finishes what it runs");
        assert!(is_gone(&[]));
        assert!(is_gone(&[worker("build-7", false)]), "it was started again");
        assert!(is_gone(&[worker("build-8", true)]), "it is another one that drains");
    }
}
