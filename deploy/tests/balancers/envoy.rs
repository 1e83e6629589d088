use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use kiln_deploy::rollouts::machine::Generation;
use kiln_deploy::rollouts::parts::{Applied, Traffic};
use kiln_test_servers::{Process, free_port, program};

use crate::rig::{
    Users, assert_shares, counted, declared, listening, of, place, said, servers, split, text,
};

struct Envoy {
    _process: Process,
    dir: tempfile::TempDir,
    address: String,
    admin: String,
}

impl Envoy {
    /// `None`: there is none, and the test is skipped.
    async fn start() -> Option<Self> {
        let program = program("KILN_ENVOY")?;
        let dir = tempfile::Builder::new().prefix("kiln-envoy").tempdir().unwrap();
        let at = dir.path();
        std::fs::create_dir(at.join("kiln")).unwrap();
        // It does not start where a file that it watches is not there.
        std::fs::write(at.join("kiln/api.prod.yaml"), "").unwrap();
        let (port, admin) = (free_port(), free_port());
        std::fs::write(at.join("envoy.yaml"), configuration(at, port, admin)).unwrap();
        let process = Process::spawn(
            Command::new(program)
                .arg("-c")
                .arg(at.join("envoy.yaml"))
                .args(["--concurrency", "2", "--use-dynamic-base-id", "--log-path"])
                .arg(at.join("log")),
        );
        let (address, admin) = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{admin}"));
        listening(&address).await;
        Some(Self { _process: process, dir, address, admin })
    }

    fn traffic(&self) -> Arc<dyn Traffic> {
        let (dir, admin) = (self.dir.path().display(), &self.admin);
        declared(&format!(
            "kind = \"envoy\"\ndirectory = \"{dir}/kiln\"\nadmin = \"{admin}\"\ntimeout_s = 20"
        ))
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("kiln/api.prod.yaml")
    }
}

fn configuration(at: &std::path::Path, port: u16, admin: u16) -> String {
    let types = "type.googleapis.com/envoy.extensions.filters";
    let on =
        |port: u16| format!("{{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}");
    format!(
        "node: {{ id: edge, cluster: edge }}
admin: {{ address: {admin} }}
static_resources:
  listeners:
  - name: users
    address: {users}
    filter_chains:
    - filters:
      - name: http
        typed_config:
          \"@type\": {types}.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: users
          http_filters:
          - {{ name: router, typed_config: {{ \"@type\": {types}.http.router.v3.Router }} }}
          route_config:
            virtual_hosts:
            - {{ name: api, domains: [\"*\"], routes: [{{ match: {{ prefix: / }}, route: {{ cluster: api.prod }} }}] }}
  clusters:
  - name: api.prod
    type: EDS
    connect_timeout: 5s
    eds_cluster_config:
      eds_config:
        resource_api_version: V3
        path_config_source:
          path: {dir}/api.prod.yaml
          watched_directory: {{ path: {dir} }}
",
        admin = on(admin),
        users = on(port),
        dir = at.join("kiln").display(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shares_are_met_and_no_request_is_lost() {
    let Some(envoy) = Envoy::start().await else { return };
    let (traffic, servers) = (envoy.traffic(), servers().await);
    assert_eq!(traffic.observe(&place()).await.unwrap(), None);
    let first = split(&servers, 1, 10.0);
    assert_eq!(traffic.set(&place(), &first).await.unwrap(), Applied::Now);
    assert_eq!(traffic.observe(&place()).await.unwrap(), Some(first));
    assert_shares(&envoy.address, &[("a", 45.0), ("b", 45.0), ("c", 10.0)]).await;

    let users = Users::start(&envoy.address);
    for change in 2..14 {
        let share = if change % 2 == 0 { 50.0 } else { 1.0 };
        traffic.set(&place(), &split(&servers, change, share)).await.unwrap();
        let counts = counted(&envoy.address, 40).await;
        assert!(of(&counts, "c") <= 20 + 12 && of(&counts, "a") > 0, "{share} %: {counts:?}");
    }
    let counts = users.stop().await;
    let answered: usize = ["a", "b", "c"].iter().map(|who| of(&counts, who)).sum();
    assert_eq!(answered, counts.values().sum::<usize>(), "lost: {counts:?}");
    assert!(answered > 500, "{counts:?}");

    traffic.set(&place(), &split(&servers, 20, 100.0)).await.unwrap();
    assert_shares(&envoy.address, &[("c", 100.0)]).await;
    let last = split(&servers, 21, 0.0);
    traffic.set(&place(), &last).await.unwrap();
    assert_shares(&envoy.address, &[("a", 50.0), ("b", 50.0)]).await;

    // A name is nothing that Envoy could ask for here, and an older split is stale: nothing changes.
    let written = text(&envoy.file());
    let mut named = split(&servers, 22, 50.0);
    named.pools[1].members[0].address = "localhost:80".to_owned();
    let error = said(&*traffic.set(&place(), &named).await.unwrap_err());
    assert!(error.contains("by number alone"), "{error}");
    assert_eq!(text(&envoy.file()), written);
    assert_eq!(traffic.observe(&place()).await.unwrap(), Some(last));
    let stale = traffic.set(&place(), &split(&servers, 4, 50.0)).await.unwrap();
    assert_eq!(stale, Applied::Stale(Generation { fence: 1, change: 21 }));
}
