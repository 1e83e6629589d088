//! These tests put buildbox-casd, an independent implementation, as a proxy in front of Kiln.

use crate::support;

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::client;
use support::reapi::{Client, Spec};
use support::server::Server;

struct Casd {
    child: Child,
    address: String,
}

impl Casd {
    fn start(binary: &std::path::Path, data: &std::path::Path, remote: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .expect("a free port")
            .port();
        let address = format!("127.0.0.1:{port}");
        let child = Command::new(binary)
            .args(["--bind", &address, "--remote", remote])
            .arg(data)
            .stdin(Stdio::null())
            .spawn()
            .expect("buildbox-casd starts");
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&address).is_err() {
            assert!(Instant::now() < deadline, "buildbox-casd did not listen");
            kiln_test_servers::pause();
        }
        Self { child, address }
    }
}

impl Casd {
    async fn client(&self) -> Client {
        let url = format!("http://{}", self.address);
        Client { instance: String::new(), ..Client::connect(&url).await }
    }
}

impl Drop for Casd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bazel 4 speaks REAPI 2.0, which buildbox-casd does not accept, so the test calls it with a plain client.
#[tokio::test(flavor = "multi_thread")]
async fn blobs_results_and_executions_pass_through_casd() {
    let Some(casd) = client("KILN_CASD") else { return };
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&data.path().join("kiln"), &["--allow-cache-updates"]);
    let direct = Client { instance: String::new(), ..Client::connect(&server.url()).await };
    let first = Casd::start(&casd, &data.path().join("first"), &server.url());
    let proxied = first.client().await;

    let large: Vec<u8> = (0..3_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let blobs = [b"small".to_vec(), large[..3_000_000].to_vec()];
    for blob in &blobs {
        let digest = proxied.put(blob).await;
        assert_eq!(&direct.read(&digest).await, blob, "written through, read from Kiln");
    }
    let spec = Spec::shell("echo made > out; echo printed", &["out"]);
    let action = direct.prepare(&spec).await;
    let ran = direct.execute_action(action.clone(), false).await.expect("an answer");
    let result = ran.result.expect("a result");
    drop(first);

    // The second proxy has an empty cache, so everything that it answers comes from Kiln.
    let second = Casd::start(&casd, &data.path().join("second"), &server.url());
    let proxied = second.client().await;
    let cached = proxied.cached(&action).await.expect("a hit through the proxy");
    assert_eq!(cached.output_files, result.output_files);
    let output = cached.output_files[0].digest.clone().expect("a digest");
    assert_eq!(proxied.read(&output).await, b"made\n");
    let digest = direct.put(&blobs[1]).await;
    assert_eq!(proxied.read(&digest).await, blobs[1]);
}
