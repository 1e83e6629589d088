//! Client certificates name the caller.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tonic::{Code, Status};

use crate::auth::house::{House, connect, said};
use crate::auth::roles::{bearer, capabilities};
use crate::support::client;
use crate::support::pki::{Authority, Pair};
use crate::support::reapi::{Authorization, Client, Spec};

const GRANTS: &str = "\
[[grant]]
certificate = \"CN=worker-*\"
roles = [\"worker\"]

[[grant]]
certificate = \"DNS:ci.example\"
roles = [\"write-cache\", \"execute\"]

[[grant]]
certificate = \"URI:spiffe://example/laptop/*\"
roles = [\"execute\"]
instances = [\"main\"]

[[token]]
name = \"extra\"
sha256 = \"";

/// Starts a server that accepts client certificates of the authority that also signed its own certificate.
fn house(arguments: &[&str]) -> House {
    House::configured(|dir, command| {
        let hash = kiln_cas::DigestFunction::Sha256.digest(b"tok-extra").hex();
        let file = dir.join("access.toml");
        let text = format!("{GRANTS}{hash}\"\nroles = [\"write-cache\"]\n");
        std::fs::write(&file, text).unwrap();
        command.arg("--access-file").arg(file);
        command.arg("--tls-client-ca").arg(dir.join("authority/ca.pem")).args(arguments);
    })
}

impl House {
    async fn holder(&self, pair: Option<&Pair>, authorization: Authorization) -> Client {
        let mut client = Client::as_caller(self.channel(pair).await, authorization);
        client.instance = "main".into();
        client
    }

    fn laptop(&self) -> Pair {
        self.authority.client("laptop", &["laptop.example"])
    }
}

fn code<T>(result: Result<T, Status>) -> (Code, String) {
    let status = result.err().expect("it is refused");
    (status.code(), status.message().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn names_in_a_certificate_give_roles() {
    let house = house(&[]);
    let ci = house.authority.client("someone", &["ci.example"]);
    let ci = house.holder(Some(&ci), Authorization(None)).await;
    assert_eq!(capabilities(&ci).await.unwrap(), (true, true));
    ci.execute(&Spec::shell("echo certified", &[])).await.unwrap();

    let uri = house.authority.client_with_uri("al", "spiffe://example/laptop/al");
    let laptop = house.holder(Some(&uri), Authorization(None)).await;
    assert_eq!(capabilities(&laptop).await.unwrap(), (true, false));
    let both = house.holder(Some(&uri), bearer("tok-extra")).await;
    assert_eq!(capabilities(&both).await.unwrap(), (true, true), "credentials add up");
    let wrong = house.holder(Some(&uri), bearer("tok-wrong")).await;
    assert_eq!(code(capabilities(&wrong).await).0, Code::Unauthenticated);

    let stranger = house.holder(Some(&house.laptop()), Authorization(None)).await;
    let (refused, said) = code(capabilities(&stranger).await);
    assert_eq!(refused, Code::PermissionDenied);
    assert!(said.contains("certificate CN=laptop may not read"), "{said}");
    let nobody = house.holder(None, Authorization(None)).await;
    let (refused, said) = code(capabilities(&nobody).await);
    assert_eq!(refused, Code::Unauthenticated);
    assert!(said.contains("show a client certificate"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_others_and_ended_ones_are_not_let_in() {
    let house = house(&[]);
    let other = Authority::new(house.dir.path(), "other");
    for pair in
        [other.client("worker-1", &["ci.example"]), house.authority.ended_client("worker-1")]
    {
        let channel = connect(&house.url(), &house.authority.file, Some(&pair)).await;
        let Ok(channel) = channel else { continue };
        // In TLS 1.3 the handshake ends before the server has checked the certificate, so the client may learn of the
        // refusal only with its first request.
        let client = Client::as_caller(channel, Authorization(None));
        let (refused, said) = code(capabilities(&client).await);
        assert!(refused != Code::PermissionDenied && refused != Code::Unauthenticated, "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn where_certificates_are_required_nobody_comes_in_without() {
    let house = House::configured(|dir, command| {
        let file = dir.join("access.toml");
        std::fs::write(&file, format!("{GRANTS}{}\"\nroles = [\"admin\"]\n", "0".repeat(64)))
            .unwrap();
        command.arg("--access-file").arg(file).env("KILN_TLS_CLIENT_AUTH", "required");
        command.arg("--tls-client-ca").arg(dir.join("authority/ca.pem"));
    });
    let (code, text) = said(&house.kiln(&["status"]).output().unwrap());
    assert_eq!(code, 3, "{text}");
    let ci = house.authority.client("someone", &["ci.example"]);
    let mut status = house.kiln(&["status", "--tls-client-cert"]);
    status.arg(&ci.certificate).arg("--tls-client-key").arg(&ci.key);
    let (code, text) = said(&status.output().unwrap());
    assert_eq!(code, 0, "{text}");
    let mut half = house.kiln(&["status", "--tls-client-cert"]);
    let (code, text) = said(&half.arg(&ci.certificate).output().unwrap());
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("--tls-client-key"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_joins_with_its_certificate() {
    let house = house(&["--workers", "0"]);
    let pair = house.authority.client("worker-7", &[]);
    let mut command = house.kiln(&["worker", "--slots", "1", "--tls-client-cert"]);
    command.arg(&pair.certificate).arg("--tls-client-key").arg(&pair.key);
    command.arg("--data-dir").arg(house.dir.path().join("worker"));
    command.env("KILN_WORKERS_MEMORY", "1GiB").stdout(Stdio::null());
    let mut worker = command.spawn().unwrap();
    let ci = house.authority.client("someone", &["ci.example"]);
    let ci = house.holder(Some(&ci), Authorization(None)).await;
    let ran = ci.execute(&Spec::shell("echo by a worker", &[])).await.unwrap();
    assert_eq!(ran.status.unwrap_or_default().code, 0);
    worker.kill().unwrap();
    worker.wait().unwrap();
}

/// buildbox-casd, whose gRPC and TLS are independent of Kiln's. It logs in with a certificate or with a token.
struct Casd {
    child: Child,
    address: String,
}

impl Casd {
    fn start(binary: &Path, house: &House, data: &str, options: &[(&str, &Path)]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let address = format!("127.0.0.1:{port}");
        let remote = house.grpcs().replace("grpcs://", "https://");
        let mut command = Command::new(binary);
        command.args(["--bind", &address, "--remote", &remote, "--instance=main"]);
        command.arg(format!("--server-cert={}", house.authority.file.display()));
        for (name, value) in options {
            command.arg(format!("--{name}={}", value.display()));
        }
        let data = house.dir.path().join(data);
        let child = command.arg(data).stdin(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(&address).is_err() {
            assert!(Instant::now() < deadline, "buildbox-casd did not listen");
            kiln_test_servers::pause();
        }
        Self { child, address }
    }

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

#[tokio::test(flavor = "multi_thread")]
async fn casd_comes_in_with_a_certificate_or_a_token() {
    let Some(binary) = client("KILN_CASD") else { return };
    let house = house(&[]);
    let ci = house.authority.client("someone", &["ci.example"]);
    let direct = house.holder(Some(&ci), Authorization(None)).await;
    let with_certificate =
        [("client-cert", ci.certificate.as_path()), ("client-key", ci.key.as_path())];
    let token = house.dir.path().join("token");
    std::fs::write(&token, "tok-extra").unwrap();
    let with_token = [("access-token", token.as_path())];
    for (data, options) in [("casd-1", &with_certificate[..]), ("casd-2", &with_token[..])] {
        let casd = Casd::start(&binary, &house, data, options);
        let blob = data.as_bytes().repeat(1000);
        let digest = casd.client().await.put(&blob).await;
        assert_eq!(direct.read(&digest).await, blob, "{data}");
    }
}
