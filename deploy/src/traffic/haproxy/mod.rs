//! HAProxy: a backend for each place. Weights alone are changed over its runtime socket, at once; other servers come by
//! a reload. The file says the same, so that whoever restarts HAProxy changes nothing.

mod socket;
mod state;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use async_trait::async_trait;

use self::socket::ask;
use self::state::{Running, running};
use super::document::Document;
use super::error::TrafficError;
use super::rendered::{Balancer, Seen};
use super::split::{Checked, Server};
use crate::programs::Program;

/// Bytes of commands that go over one connection: HAProxy reads them into a buffer of 16 KiB.
const MAX_COMMANDS: usize = 8 << 10;

pub struct HaProxy {
    /// `None`: servers never change, only their weights.
    pub reload: Option<Program>,
    /// The path of HAProxy's `stats socket`, of level admin.
    pub socket: PathBuf,
    /// Words for each server.
    pub server_options: String,
}

#[async_trait]
impl Balancer for HaProxy {
    const MOST: u32 = 256;
    const EXTENSION: &'static str = "cfg";

    fn render(&self, checked: &Checked, _: &str) -> String {
        let mut text = format!("backend {}\n    balance roundrobin\n", checked.name);
        for Server { name, address, weight } in &checked.servers {
            let line =
                format!("    server {name} {address} weight {weight} {}", self.server_options);
            // Writing to a text does not fail.
            let _ = writeln!(text, "{}", line.trim_end());
        }
        text
    }

    async fn take(&self, document: &Document) -> Result<(), TrafficError> {
        let name = &document.checked.name;
        let found = self.running(name).await.map_err(TrafficError::Silent)?;
        if let Some(found) = found.filter(|found| same_servers(&document.checked.servers, found)) {
            return self.set_weights(&document.checked, &found).await;
        }
        match &self.reload {
            Some(reload) => reload.ask(b"").await.map(drop).map_err(TrafficError::Reload),
            None => Err(TrafficError::Split(format!(
                "HAProxy runs other servers in {name}, and no program is named that reloads it"
            ))),
        }
    }

    async fn look(&self, document: &Document) -> Seen {
        let name = &document.checked.name;
        let found = match self.running(name).await {
            Ok(Some(found)) => found,
            Ok(None) => return Seen::Other(format!("it has no backend {name}")),
            Err(why) => return Seen::Silent(why),
        };
        if !same_servers(&document.checked.servers, &found) {
            return Seen::Other(format!("it has other servers in {name}"));
        }
        let other = document.checked.servers.iter().find_map(|server| {
            let weight = found.get(&server.name)?.weight;
            (weight != server.weight).then_some((server, weight))
        });
        other.map_or(Seen::Same, |(server, weight)| {
            let (name, expected) = (&server.name, server.weight);
            Seen::Other(format!("{name} has the weight {weight}, not {expected}"))
        })
    }
}

/// Whether these servers are there, under these addresses, and no others.
fn same_servers(servers: &[Server], found: &BTreeMap<String, Running>) -> bool {
    let same =
        |server: &Server| found.get(&server.name).is_some_and(|it| it.is_at(&server.address));
    servers.len() == found.len() && servers.iter().all(same)
}

impl HaProxy {
    async fn running(&self, backend: &str) -> Result<Option<BTreeMap<String, Running>>, String> {
        let answer = ask(&self.socket, &format!("show servers state {backend}\n")).await?;
        running(&answer, backend)
    }

    async fn set_weights(
        &self,
        checked: &Checked,
        found: &BTreeMap<String, Running>,
    ) -> Result<(), TrafficError> {
        let changed = |it: &&Server| found.get(&it.name).is_none_or(|now| now.weight != it.weight);
        let commands =
            checked.servers.iter().filter(changed).map(|server| {
                format!("set weight {}/{} {}", checked.name, server.name, server.weight)
            });
        for batch in batches(commands) {
            let answer = ask(&self.socket, &format!("{batch}\n")).await;
            let answer = answer.map_err(TrafficError::Silent)?;
            // It says nothing but what went wrong.
            let wrong = answer.lines().find(|line| !line.trim().is_empty());
            if let Some(wrong) = wrong {
                return Err(TrafficError::Weight(wrong.trim().to_owned()));
            }
        }
        Ok(())
    }
}

/// Commands on one line for each connection.
fn batches(commands: impl Iterator<Item = String>) -> Vec<String> {
    let mut batches: Vec<String> = Vec::new();
    for command in commands {
        match batches.last_mut().filter(|it| it.len() + command.len() < MAX_COMMANDS) {
            Some(batch) => batch.extend(["; ", &command]),
            None => batches.push(command),
        }
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_fit_into_the_buffer() {
        let commands: Vec<_> =
            (0..500).map(|it| format!("set weight api.prod/server-{it} 1")).collect();
        let batches = batches(commands.iter().cloned());
        assert!(batches.len() > 1 && batches.iter().all(|it| it.len() <= MAX_COMMANDS));
        let all: Vec<_> = batches.iter().flat_map(|it| it.split("; ")).collect();
        assert_eq!(all, commands);
    }
}
