//! nginx: an upstream for each place, with a weight for each member, and a server on this machine that says which
//! version of the file the workers have.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use kiln_net::http::Client;

use super::document::Document;
use super::error::TrafficError;
use super::local::get;
use super::rendered::{Balancer, Seen};
use super::split::Checked;
use crate::programs::Program;

/// Bytes of an answer, which is a tag.
const MAX_ANSWER: usize = 1_000;

pub struct Nginx {
    pub reload: Program,
    /// The address of this machine at which nginx says what it does.
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
    /// The time that old workers go on: nginx's master gives new ones a tenth of a second before it ends the old ones,
    /// which have to hear that as well.
    const LINGER: Duration = Duration::from_millis(500);

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
        let url = format!("http://{}/", self.status);
        match get(&self.client, &url, Some(name), MAX_ANSWER).await {
            Ok(said) if said == expected.as_bytes() => Seen::Same,
            Ok(said) => {
                let said = shown(&String::from_utf8_lossy(&said));
                Seen::Other(format!("{} answers {said:?}", self.status))
            }
            Err(why) => Seen::Silent(format!("{url} of {name}: {why}")),
        }
    }
}

fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}
