//! buildbox-casd, an independent implementation, as a proxy in front of Kiln.

mod support;

use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::bazel::Bazel;
use support::client;
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
            std::thread::yield_now();
        }
        Self { child, address }
    }
}

impl Drop for Casd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn bazel_caches_through_casd_in_front_of_kiln() {
    let (Some(bazel), Some(casd)) = (client("KILN_BAZEL"), client("KILN_CASD")) else { return };
    let data = tempfile::tempdir().expect("a temporary directory");
    let server = Server::start(&data.path().join("kiln"), &["--allow-cache-updates"]);
    let bazel = Bazel::new(bazel, "examples/bazel");
    let build = |proxy: &Casd| {
        let cache = format!("--remote_cache=grpc://{}", proxy.address);
        bazel.clean();
        bazel.local(&["build", &cache, "//greet/...", "//text/..."]).expect_success()
    };

    let proxy = Casd::start(&casd, &data.path().join("first"), &server.url());
    let first = build(&proxy);
    assert!(first.processes("local") > 10, "{}", first.text);
    drop(proxy);

    // A proxy that knows nothing: every hit comes from Kiln.
    let proxy = Casd::start(&casd, &data.path().join("second"), &server.url());
    let second = build(&proxy);
    assert_eq!(second.processes("local"), 0, "{}", second.text);
    assert_eq!(second.processes("remote cache hit"), first.processes("local"), "{}", second.text);
}
