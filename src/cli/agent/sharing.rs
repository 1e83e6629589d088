//! Sets up the sharing of releases among agents as the command line says.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use kiln_deploy::agent::{Exchange, Giving, Identity, Rate, Seeder, Sharing, Shelf, Speaker};
use kiln_deploy::swarm::downloader::Limits;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::options::Options;
use super::peers::{Asking, Own, Serving};
use super::remote::Remote;
use crate::cli::error::CliError;
use crate::cli::say::say;

pub struct Shares {
    pub sharing: Arc<Sharing>,
    /// The pieces that other agents may fetch here, and this agent's certificate; `None`: nothing
    /// is given to others.
    gives: Option<(Arc<Giving>, Identity)>,
}

/// Tells the server again and again which pieces this agent has.
pub struct Seeding {
    seeder: Arc<Seeder<Remote>>,
    thread: JoinHandle<()>,
}

impl Seeding {
    pub async fn end(self) {
        self.seeder.stop();
        // It has nothing to say when it fails.
        let _ = self.thread.await;
    }
}

impl Shares {
    /// Opens the shelf of pieces, and listens for other agents where the options name an address.
    pub async fn start(
        options: &Options,
        speaker: &Speaker,
        dir: &Path,
        stop: &CancellationToken,
    ) -> Result<Self, CliError> {
        let (root, room) = (dir.join("content"), options.keep_content);
        let shelf = tokio::task::spawn_blocking(move || Shelf::open(root, room)).await;
        let shelf = Arc::new(shelf.map_err(|error| CliError::machine(error.to_string()))?);
        let rate = Arc::new(Rate::new(options.download_rate));
        let near = options.labels().remove(&options.near).unwrap_or_default();
        let (mut exchange, mut gives) = (None, None);
        if let Some(listen) = options.peers_listen {
            let own = Arc::new(Own::generate()?);
            let upload = Rate::new(options.upload_rate);
            let giving = Arc::new(Giving::new(speaker.place.clone(), shelf.clone(), upload));
            let serving = Serving::listen(listen, &own, giving.clone()).await?;
            let bound = serving.address().unwrap_or(listen);
            let address = reached(options, bound)?;
            say(&format!("other agents reach this one at {address}"));
            tokio::spawn(serving.run(stop.clone()));
            let asking = Arc::new(Asking::new(own, Some(address), rate.clone()));
            gives = Some((giving, asking.identity()));
            exchange = Some(asking as Arc<dyn Exchange>);
        }
        let giving = gives.as_ref().map(|(giving, _)| giving.clone());
        let limits = Limits::default();
        let sharing = Arc::new(Sharing { shelf, exchange, giving, near, rate, limits });
        Ok(Self { sharing, gives })
    }

    /// Begins to tell the server what this agent can give; `None`: it gives nothing. Must be called
    /// within a Tokio runtime.
    pub fn seed(self, remote: &Arc<Remote>, speaker: &Speaker) -> Option<Seeding> {
        let (giving, identity) = self.gives?;
        let (shelf, near) = (self.sharing.shelf.clone(), self.sharing.near.clone());
        let with = (shelf, giving);
        let seeder = Seeder::new(remote.clone(), speaker.clone(), with, identity, near);
        let seeder = Arc::new(seeder);
        let works = seeder.clone();
        let thread = tokio::task::spawn_blocking(move || works.run());
        Some(Seeding { seeder, thread })
    }
}

/// The address that other agents are told to reach this one by.
fn reached(options: &Options, bound: SocketAddr) -> Result<String, CliError> {
    match &options.peers_address {
        Some(address) => Ok(address.clone()),
        None if bound.ip().is_unspecified() => {
            let message = format!("--peers-listen {bound} is no address that others can reach");
            Err(CliError::usage(message).hint("say how they do with --peers-address HOST:PORT"))
        }
        None => Ok(bound.to_string()),
    }
}
