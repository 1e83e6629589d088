//! A server that asks who calls, and the callers of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use kiln_net::grpc::connector;
use kiln_net::tls::{TlsFiles, client_config};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use crate::support::pki::{Authority, Pair};
use crate::support::server::{Server, command};

pub struct House {
    pub dir: TempDir,
    pub authority: Authority,
    pub pair: Pair,
    pub server: Server,
}

impl House {
    /// Starts a server with TLS and these arguments.
    pub fn new(arguments: &[&str]) -> Self {
        Self::with(|_| arguments.iter().map(|word| (*word).to_owned()).collect())
    }

    /// Starts a server with TLS and the arguments that `arguments` returns. The function may write files into the
    /// directory that it gets.
    pub fn with(arguments: impl FnOnce(&Path) -> Vec<String>) -> Self {
        Self::configured(|dir, command| {
            command.args(arguments(dir));
        })
    }

    /// Starts a server with TLS by a command that `configure` may change. The function also gets the directory of the
    /// test's files. Panics if the server does not start.
    pub fn configured(configure: impl FnOnce(&Path, &mut Command)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new(dir.path(), "authority");
        let pair = authority.server();
        let mut command = tls_command(dir.path(), &pair);
        configure(dir.path(), &mut command);
        let server = Server::spawn(command, &dir.path().join("data"));
        Self { dir, authority, pair, server }
    }

    /// Returns the server's URL, `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("https://{}", self.server.address)
    }

    /// Returns the URL `grpcs://localhost:PORT`, as Bazel writes it.
    pub fn grpcs(&self) -> String {
        let (_, port) = self.server.address.rsplit_once(':').unwrap();
        format!("grpcs://localhost:{port}")
    }

    /// Connects with trust in the server's authority, and with the certificate `identity` if there is one. Panics if
    /// the connection fails.
    pub async fn channel(&self, identity: Option<&Pair>) -> Channel {
        connect(&self.url(), &self.authority.file, identity).await.unwrap()
    }

    /// Makes the command `kiln` with these arguments, which calls this server and trusts its authority.
    pub fn kiln(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kiln"));
        command
            .env("KILN_SERVER", self.url())
            .env("KILN_CA_FILE", &self.authority.file)
            .args(words)
            .stdin(Stdio::null());
        command
    }
}

/// Makes the command `kiln serve` with TLS on a free port, without starting it.
pub fn tls_command(dir: &Path, pair: &Pair) -> Command {
    let mut command = command("127.0.0.1:0", &dir.join("data"), &[]);
    command.env("KILN_WORKERS_COUNT", "1");
    command.arg("--tls-cert").arg(&pair.certificate).arg("--tls-key").arg(&pair.key);
    command
}

pub async fn connect(
    url: &str,
    authority: &Path,
    identity: Option<&Pair>,
) -> Result<Channel, tonic::transport::Error> {
    let identity: Option<(PathBuf, PathBuf)> =
        identity.map(|pair| (pair.certificate.clone(), pair.key.clone()));
    let tls = client_config(&TlsFiles { ca: Some(authority.to_owned()), identity }).unwrap();
    let endpoint = Endpoint::from_shared(url.to_owned()).unwrap();
    endpoint.connect_with_connector(connector(tls)).await
}

/// Returns the exit code of a program, or -1 after a signal, and its stdout followed by its stderr.
pub fn said(output: &Output) -> (i32, String) {
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.code().unwrap_or(-1), text)
}
