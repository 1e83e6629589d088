//! Envoy: the endpoints of a cluster for each place in a file that it watches (its endpoint discovery), and its admin
//! interface, which says what it has. Nothing is reloaded.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use async_trait::async_trait;
use kiln_net::http::Client;
use serde::Deserialize;
use serde_json::json;

use super::document::Document;
use super::error::TrafficError;
use super::local::get;
use super::rendered::{Balancer, Seen};
use super::split::{Checked, Server};

/// Bytes of what it says of all its clusters.
const MAX_ANSWER: usize = 16 << 20;
const ENDPOINTS: &str = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment";

pub struct Envoy {
    /// An address of this machine.
    pub admin: SocketAddr,
    pub client: Client,
}

/// `/clusters?format=json`, as far as it is looked at.
#[derive(Deserialize)]
struct Clusters {
    #[serde(default)]
    cluster_statuses: Vec<Cluster>,
}

#[derive(Deserialize)]
struct Cluster {
    name: String,
    #[serde(default)]
    host_statuses: Vec<Host>,
}

#[derive(Deserialize)]
struct Host {
    #[serde(default)]
    address: Address,
    #[serde(default)]
    weight: u32,
}

#[derive(Default, Deserialize)]
struct Address {
    socket_address: Option<Socket>,
}

#[derive(Deserialize)]
struct Socket {
    address: String,
    port_value: u16,
}

#[async_trait]
impl Balancer for Envoy {
    const MOST: u32 = 10_000;
    const EXTENSION: &'static str = "yaml";

    fn render(&self, checked: &Checked, tag: &str) -> String {
        // It knows no weight of 0: who gets nothing is not there.
        let serving = checked.servers.iter().filter(|server| server.weight > 0);
        let endpoints: Vec<_> = serving.map(endpoint).collect();
        let assignment = json!({
            "@type": ENDPOINTS,
            "cluster_name": checked.name,
            "endpoints": [{"lb_endpoints": endpoints}],
        });
        format!("{}\n", json!({"version_info": tag, "resources": [assignment]}))
    }

    async fn take(&self, document: &Document) -> Result<(), TrafficError> {
        let named = |server: &&Server| server.address.parse::<SocketAddr>().is_err();
        match document.checked.servers.iter().find(named) {
            None => Ok(()),
            Some(Server { name, address, .. }) => Err(TrafficError::Split(format!(
                "{name} is at {address}, and Envoy takes addresses by number alone"
            ))),
        }
    }

    async fn look(&self, document: &Document) -> Seen {
        let name = &document.checked.name;
        let url = format!("http://{}/clusters?format=json", self.admin);
        let answer = match get(&self.client, &url, None, MAX_ANSWER).await {
            Ok(answer) => answer,
            Err(why) => return Seen::Silent(format!("{url}: {why}")),
        };
        let clusters: Clusters = match serde_json::from_slice(&answer) {
            Ok(clusters) => clusters,
            Err(why) => return Seen::Silent(format!("{url}: its answer is not understood: {why}")),
        };
        let Some(cluster) = clusters.cluster_statuses.into_iter().find(|it| it.name == *name)
        else {
            return Seen::Other(format!("it has no cluster {name}"));
        };
        if weights_of(cluster.host_statuses) == expected(&document.checked.servers) {
            return Seen::Same;
        }
        Seen::Other(format!("it has other endpoints or weights in {name}"))
    }
}

fn endpoint(server: &Server) -> serde_json::Value {
    let (host, port) = server.address.rsplit_once(':').unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let port: u16 = port.parse().unwrap_or_default();
    json!({
        "endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}},
        "load_balancing_weight": server.weight,
    })
}

fn weights_of(hosts: Vec<Host>) -> BTreeMap<SocketAddr, u32> {
    let weight = |host: Host| {
        let at = host.address.socket_address?;
        Some((SocketAddr::new(at.address.parse().ok()?, at.port_value), host.weight))
    };
    hosts.into_iter().filter_map(weight).collect()
}

fn expected(servers: &[Server]) -> BTreeMap<SocketAddr, u32> {
    let serving = servers.iter().filter(|server| server.weight > 0);
    serving.filter_map(|server| Some((server.address.parse().ok()?, server.weight))).collect()
}
