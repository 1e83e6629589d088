//! nginx: an upstream for each place, with a weight for each member, and a server on this machine that says which
//! version of the file the workers have.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use kiln_net::http::{Client, collect, described, header};

use super::document::Document;
use super::error::TrafficError;
use super::rendered::{Balancer, Seen};
use super::split::Checked;
use crate::programs::Program;

/// Of an answer, which is a tag.
const MAX_ANSWER: usize = 1_000;
const ANSWER: Duration = Duration::from_secs(2);

pub struct Nginx {
    pub reload: Program,
    /// Where it says what it does: an address of this machine.
    pub status: SocketAddr,
    pub client: Client,
    /// Connections to servers that each worker keeps.
    pub keepalive: Option<u64>,
    /// Words for each server.
    pub server_options: String,
}

#[async_trait]
impl Balancer for Nginx {
    const MOST: u32 = 10_000;
    const EXTENSION: &'static str = "conf";

    fn render(&self, checked: &Checked, tag: &str) -> String {
        let name = &checked.name;
        // All workers share one round of turns. The zone has room for what nginx keeps of each server.
        let room = 128 + 4 * checked.servers.len();
        let mut text = format!("upstream {name} {{\n    zone kiln.{name} {room}k;\n");
        for server in &checked.servers {
            let weight = match server.weight {
                0 => "down".to_owned(),
                weight => format!("weight={weight}"),
            };
            let words = [server.address.as_str(), &weight, &self.server_options].join(" ");
            // Writing to a text does not fail.
            let _ = writeln!(text, "    server {}; # {}", words.trim_end(), server.name);
        }
        if let Some(keepalive) = self.keepalive {
            let _ = writeln!(text, "    keepalive {keepalive};");
        }
        let _ = write!(
            text,
            "}}\nserver {{\n    listen {};\n    server_name {name};\n    access_log off;\n    \
             location / {{ default_type text/plain; return 200 \"{name} {tag}\"; }}\n}}\n",
            self.status
        );
        text
    }

    async fn take(&self, _: &Document) -> Result<(), TrafficError> {
        self.reload.ask(b"").await.map(drop).map_err(TrafficError::Reload)
    }

    async fn look(&self, document: &Document) -> Seen {
        let name = &document.checked.name;
        let expected = format!("{name} {}", document.tag);
        match self.status_of(name).await {
            Ok(said) if said == expected => Seen::Same,
            Ok(said) => Seen::Other(format!("{} answers {:?}", self.status, shown(&said))),
            Err(why) => Seen::Silent(format!("http://{}/ of {name}: {why}", self.status)),
        }
    }
}

impl Nginx {
    async fn status_of(&self, name: &str) -> Result<String, String> {
        let request = self
            .client
            .get(format!("http://{}/", self.status))
            .header(header::HOST, name)
            .timeout(ANSWER);
        let answer = request.send().await.map_err(described)?;
        if !answer.status().is_success() {
            return Err(format!("it answered {}", answer.status()));
        }
        let body = collect(answer, MAX_ANSWER).await.map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }
}

fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}
