//! The server's one port with TLS.

use std::time::{Duration, Instant};

use crate::auth::house::{House, connect, said, tls_command};
use crate::support::bazel::Bazel;
use crate::support::client;
use crate::support::pki::{Authority, Pair};
use crate::support::reapi::{Client, Spec, output_text};
use crate::support::server::program;

const PATIENCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn grpc_and_http_are_served_over_tls() {
    let house = House::new(&[]);
    let client = Client::over(house.channel(None).await);
    let response = client.execute(&Spec::shell("echo safe", &[])).await.unwrap();
    let (stdout, _) = output_text(&client, &response.result.unwrap()).await;
    assert_eq!(stdout, "safe\n");

    let (code, text) = said(&house.kiln(&["status"]).output().unwrap());
    assert_eq!(code, 0, "{text}");
    assert!(text.contains(&house.url()), "{text}");
    let file = house.dir.path().join("file");
    std::fs::write(&file, vec![7; 3 << 20]).unwrap();
    let put = house.kiln(&["cas", "put"]).arg(&file).output().unwrap();
    assert_eq!(said(&put).0, 0, "{}", said(&put).1);
}

#[test]
fn who_does_not_trust_the_server_is_told_why() {
    let house = House::new(&[]);
    let other = Authority::new(house.dir.path(), "other");
    for words in [&["status"][..], &["cas", "stat", &format!("{}/5", "a".repeat(64))]] {
        let mut command = house.kiln(words);
        let (code, text) = said(&command.env("KILN_CA_FILE", &other.file).output().unwrap());
        assert_eq!(code, 3, "{text}");
        assert!(text.contains("cannot reach the server at https://"), "{text}");
    }
    let plain = format!("http://{}", house.server.address);
    let mut command = house.kiln(&["status"]);
    let output = command.env("KILN_SERVER", plain).env_remove("KILN_CA_FILE").output().unwrap();
    let (code, text) = said(&output);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("write https:// in --server"), "{text}");
    // A server does answer at that port, so Kiln must not advise to start one.
    assert!(!text.contains("kiln serve"), "{text}");
}

#[test]
fn files_that_cannot_be_used_are_named_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::new(dir.path(), "authority");
    let pair = authority.server();
    let other = authority.client("other", &[]);
    let nowhere = dir.path().join("nowhere.pem");
    let mixed = Pair { certificate: pair.certificate.clone(), key: other.key.clone() };
    let swapped = Pair { certificate: pair.key.clone(), key: pair.certificate.clone() };
    let missing = Pair { certificate: nowhere.clone(), key: pair.key.clone() };
    let no_key = Pair { certificate: pair.certificate.clone(), key: nowhere };
    for (pair, said) in [
        (&mixed, "does not belong to the first certificate"),
        (&swapped, "holds no certificate"),
        (&missing, "nowhere.pem"),
        (&no_key, "nowhere.pem"),
        (&authority.expired(), "ended"),
    ] {
        let refused = program(tls_command(dir.path(), pair)).expect("it refuses to start");
        assert_eq!(refused.0, 2, "{}", refused.1);
        assert!(refused.1.contains(said), "{said:?} is not in {}", refused.1);
    }
    let access = dir.path().join("access.toml");
    std::fs::write(&access, "[[grant]]\ncertificate = \"*\"\nroles = [\"admin\"]\n").unwrap();
    let mut command = tls_command(dir.path(), &pair);
    command.arg("--tls-client-ca").arg(&pair.key).arg("--access-file").arg(&access);
    let (code, text) = program(command).expect("it refuses to start");
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("holds no certificate"), "{text}");
}

/// After a renewal, new connections get the new certificate, and earlier connections stay. Files that cannot be used
/// change nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_taken_over() {
    let house = House::new(&[]);
    let early = Client::over(house.channel(None).await);
    early.put(b"before").await;
    let next = Authority::new(house.dir.path(), "next");
    let renewed = next.server();
    let url = house.url();
    assert!(connect(&url, &next.file, None).await.is_err());

    // Between these two copies the key does not fit the certificate, which the server has to survive.
    std::fs::copy(&renewed.key, &house.pair.key).unwrap();
    std::fs::copy(&renewed.certificate, &house.pair.certificate).unwrap();
    let start = Instant::now();
    while connect(&url, &next.file, None).await.is_err() {
        assert!(start.elapsed() < PATIENCE, "the renewed certificate is not served");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    early.put(b"after").await;
    assert!(connect(&url, &house.authority.file, None).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_greets_is_dropped_and_hurts_nobody() {
    use tokio::io::AsyncReadExt;

    let house = House::new(&[]);
    let mut silent = tokio::net::TcpStream::connect(&house.server.address).await.unwrap();
    Client::over(house.channel(None).await).put(b"meanwhile").await;
    let mut buffer = [0; 64];
    let ended = tokio::time::timeout(PATIENCE, silent.read(&mut buffer)).await.unwrap();
    assert_eq!(ended.unwrap_or(0), 0);
}

/// The test uses Bazel 2, because Debian's Bazel 4 has no TLS for gRPC ("JDK provider does not support ALPN
/// protocol").
#[test]
fn bazel_builds_over_tls() {
    let Some(binary) = client("KILN_BAZEL_2") else { return };
    let house = House::new(&[]);
    let bazel = Bazel::new(binary, "examples/bazel");
    let trust = format!("--tls_certificate={}", house.authority.file.display());
    let run = bazel.remote_at(&house.grpcs(), &["build", &trust, "//text/..."]).expect_success();
    assert!(run.processes("remote") > 5, "{}", run.text);
}
