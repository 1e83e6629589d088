//! A client of a registry that sends exactly the bytes that a test wants.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use kiln_deploy::oci::{Algorithm, ContentDigest, Descriptor, MANIFEST_TYPE, Manifest};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::server::{Server, command};

pub const REPOSITORY: &str = "conformance/one";
pub const ALGORITHMS: [Algorithm; 2] = [Algorithm::Sha256, Algorithm::Sha512];

pub struct Registry {
    pub server: Server,
    pub dir: TempDir,
    /// The value of the `authorization` header that every request carries, if any.
    pub authorization: Option<String>,
}

pub struct RegistryResponse {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl RegistryResponse {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn location(&self) -> String {
        self.header("location").expect("a location").to_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the answer. Panics unless it has this status and names the version of the API.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.text());
        assert!(self.header("docker-distribution-api-version").is_some(), "{:?}", self.headers);
        self
    }

    /// Asserts that the answer is an error with this status, this code and some message.
    #[track_caller]
    pub fn refused(self, status: u16, code: &str) {
        let document = self.expect(status).json();
        assert_eq!(document["errors"][0]["code"], code, "{document}");
        assert!(!document["errors"][0]["message"].as_str().unwrap_or_default().is_empty());
    }
}

impl Registry {
    pub fn start() -> Self {
        Self::configured(|_, _| {})
    }

    /// Starts a registry by a command that `configure` may change. The function also gets the directory of the test's
    /// files.
    pub fn configured(configure: impl FnOnce(&std::path::Path, &mut Command)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        let mut command = command("127.0.0.1:0", &data, &[]);
        command.env("KILN_WORKERS_COUNT", "0");
        configure(dir.path(), &mut command);
        Self { server: Server::spawn(command, &data), dir, authorization: None }
    }

    pub fn get(&self, path: &str) -> RegistryResponse {
        self.send("GET", path, &[], &[])
    }

    pub fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> RegistryResponse {
        let length = body.len().to_string();
        let mut all = vec![("content-length", length.as_str())];
        all.extend_from_slice(headers);
        self.exchange(method, path, &all, body)
    }

    /// Sends `chunks` as one body without saying how long it is.
    pub fn stream(&self, method: &str, path: &str, chunks: &[&[u8]]) -> RegistryResponse {
        let mut body = Vec::new();
        for chunk in chunks {
            write!(body, "{:x}\r\n", chunk.len()).unwrap();
            body.extend_from_slice(chunk);
            body.extend_from_slice(b"\r\n");
        }
        body.extend_from_slice(b"0\r\n\r\n");
        self.exchange(method, path, &[("transfer-encoding", "chunked")], &body)
    }

    fn exchange(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> RegistryResponse {
        let mut stream = self.open(method, path, headers);
        // A server that refuses early may close the connection before it has read everything, so a failed write is no
        // error.
        let _ = stream.write_all(body);
        read_answer(&mut stream, method)
    }

    /// Opens a connection and sends the head of a request. Returns the connection, on which the body and the answer
    /// follow.
    pub fn open(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> TcpStream {
        let mut stream = TcpStream::connect(&self.server.address).expect("the server accepts");
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n",
            self.server.address
        );
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if let Some(authorization) = &self.authorization {
            head.push_str(&format!("authorization: {authorization}\r\n"));
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes()).expect("the request is sent");
        stream
    }

    /// Pushes a blob in one request and returns its SHA-256 digest. Panics unless the server takes it.
    #[track_caller]
    pub fn push(&self, repository: &str, data: &[u8]) -> ContentDigest {
        self.push_as(Algorithm::Sha256, repository, data)
    }

    #[track_caller]
    pub fn push_as(&self, algorithm: Algorithm, repository: &str, data: &[u8]) -> ContentDigest {
        let digest = algorithm.digest(data);
        let path = format!("/v2/{repository}/blobs/uploads/?digest={digest}");
        self.send("POST", &path, &[], data).expect(201);
        digest
    }

    #[track_caller]
    pub fn begin(&self, repository: &str) -> String {
        let path = format!("/v2/{repository}/blobs/uploads/");
        self.send("POST", &path, &[], &[]).expect(202).location()
    }

    pub fn put_manifest(
        &self,
        repository: &str,
        reference: &str,
        kind: &str,
        data: &[u8],
    ) -> RegistryResponse {
        let path = format!("/v2/{repository}/manifests/{reference}");
        self.send("PUT", &path, &[("content-type", kind)], data)
    }

    /// Pushes an image of one layer under `reference`, and returns the digest of its manifest.
    #[track_caller]
    pub fn push_image(&self, repository: &str, reference: &str, layer: &[u8]) -> ContentDigest {
        let data = self.image(repository, layer);
        self.put_manifest(repository, reference, MANIFEST_TYPE, &data).expect(201);
        ContentDigest::of(&data)
    }

    /// Pushes the blobs of an image of one layer, and returns the bytes of its manifest.
    #[track_caller]
    pub fn image(&self, repository: &str, layer: &[u8]) -> Vec<u8> {
        let config =
            br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        self.push(repository, config);
        self.push(repository, layer);
        let config = Descriptor::of("application/vnd.oci.image.config.v1+json", config);
        let layer = Descriptor::of("application/vnd.oci.image.layer.v1.tar", layer);
        Manifest::image(config, vec![layer]).write().unwrap()
    }

    /// Asserts that the registry has a blob: it answers HEAD with the blob's size and digest, and GET with all of its
    /// bytes.
    #[track_caller]
    pub fn has_blob(&self, repository: &str, digest: &ContentDigest, data: &[u8]) {
        let path = format!("/v2/{repository}/blobs/{digest}");
        let length = data.len().to_string();
        for method in ["HEAD", "GET"] {
            let answer = self.send(method, &path, &[], &[]).expect(200);
            assert_eq!(answer.header("content-length"), Some(length.as_str()), "{method}");
            assert_eq!(answer.header("docker-content-digest"), Some(digest.to_string().as_str()));
            let expected = if method == "GET" { data } else { &[] };
            assert!(answer.body == expected, "{method} {path}: other bytes");
        }
    }

    #[track_caller]
    pub fn has_manifest(&self, repository: &str, reference: &str, kind: &str, data: &[u8]) {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let length = data.len().to_string();
        for method in ["HEAD", "GET"] {
            let accept = [("accept", kind)];
            let answer = self.send(method, &path, &accept, &[]).expect(200);
            assert_eq!(answer.header("content-type"), Some(kind));
            assert_eq!(answer.header("content-length"), Some(length.as_str()));
            let digest: ContentDigest =
                answer.header("docker-content-digest").unwrap().parse().unwrap();
            assert_eq!(digest.algorithm().digest(data), digest);
            assert!(!reference.contains(':') || digest.to_string() == reference);
            let expected = if method == "GET" { data } else { &[] };
            assert!(answer.body == expected, "{method} {path}: other bytes");
        }
    }
}

pub fn read_answer(stream: &mut TcpStream, method: &str) -> RegistryResponse {
    let mut data = Vec::new();
    // If the connection breaks, the test still reads the bytes that came before.
    let _ = stream.read_to_end(&mut data);
    let end = data.windows(4).position(|it| it == b"\r\n\r\n").expect("an answer");
    let head = String::from_utf8_lossy(&data[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = headers.map(|(name, value)| (name.to_owned(), value.trim().to_owned()));
    let mut answer = RegistryResponse {
        status: status.expect("a status"),
        headers: headers.collect(),
        body: data[end + 4..].to_vec(),
    };
    if answer.header("transfer-encoding") == Some("chunked") && method != "HEAD" {
        answer.body = joined(&answer.body);
    }
    answer
}

fn joined(mut data: &[u8]) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(end) = data.windows(2).position(|it| it == b"\r\n") {
        let size = String::from_utf8_lossy(&data[..end]);
        let size = usize::from_str_radix(size.trim(), 16).expect("the size of a chunk");
        if size == 0 {
            break;
        }
        all.extend_from_slice(&data[end + 2..end + 2 + size]);
        data = &data[end + 4 + size..];
    }
    all
}

/// Returns `size` bytes that differ from those of every other seed.
pub fn bytes(seed: u64, size: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..size).map(|_| next()).collect()
}

/// Returns an address with one more query parameter.
pub fn with(location: &str, parameter: &str) -> String {
    let sign = if location.contains('?') { '&' } else { '?' };
    format!("{location}{sign}{parameter}")
}
