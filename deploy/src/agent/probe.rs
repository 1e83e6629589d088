//! Whether what runs is well: a program says so, or an address.

use std::path::Path;
use std::time::Duration;

use kiln_net::counts::duration;
use kiln_net::http::Client;
use kiln_net::http::header::CONNECTION;
use kiln_net::{Url, causes};
use tokio::runtime::Handle;

use super::hook::Hook;
use super::link::{Health, short};

/// Looks once, for no longer than a limit of its own.
pub trait Probe: Send + Sync {
    /// `version`: where the version lies that runs.
    fn probe(&self, version: &Path) -> Health;
}

/// A program is well when it ends with 0.
impl Probe for Hook {
    fn probe(&self, version: &Path) -> Health {
        match self.run(version) {
            Ok(()) => Health::Well,
            Err(error) => Health::Unwell(short(&causes::chain(&error))),
        }
    }
}

/// An address is well when it answers with a status from 200 to 399.
pub struct HttpProbe {
    pub client: Client,
    pub url: Url,
    pub timeout: Duration,
    pub runtime: Handle,
}

impl HttpProbe {
    async fn ask(&self) -> Result<(), String> {
        // A connection that is kept keeps a program from ending that waits for its connections.
        let asked = self.client.get(self.url.clone()).header(CONNECTION, "close").send();
        match tokio::time::timeout(self.timeout, asked).await {
            Err(_) => Err(format!("no answer within {}", duration(self.timeout))),
            Ok(Err(error)) => Err(kiln_net::http::described(error)),
            Ok(Ok(answer)) if answer.status().as_u16() < 400 => Ok(()),
            Ok(Ok(answer)) => Err(format!("it answered {}", answer.status())),
        }
    }
}

impl Probe for HttpProbe {
    fn probe(&self, _: &Path) -> Health {
        match self.runtime.block_on(self.ask()) {
            Ok(()) => Health::Well,
            Err(why) => Health::Unwell(short(&format!("{}: {why}", self.url))),
        }
    }
}
