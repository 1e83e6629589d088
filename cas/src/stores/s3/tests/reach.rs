//! Where requests go, and what is said when nobody there can be spoken to.

use std::path::Path;
use std::time::Duration;

use aws_sdk_s3::presigning::PresigningConfig;
use kiln_test_servers::free_port;
use kiln_test_servers::s3::Weed;

use super::super::client::Clients;
use super::super::{S3Config, S3Credentials, S3Objects};
use super::{IMPATIENT, config, whole};
use crate::error::StoreError;
use crate::stores::contract::blob;
use crate::stores::indexed::{Generation, Objects};

const ENDPOINT: &str = "http://store.example:9000";

fn at(endpoint: Option<&str>, path_style: Option<bool>) -> S3Config {
    S3Config {
        endpoint: endpoint.map(str::to_owned),
        region: Some("eu-west-1".to_owned()),
        path_style,
        credentials: Some(S3Credentials {
            access_key: "key".to_owned(),
            secret_key: "secret".to_owned(),
        }),
        ..("s3://builds/kiln".parse().unwrap())
    }
}

/// The URL of a request for an object, by either client.
async fn url(config: &S3Config) -> String {
    let clients = Clients::new(config).await.unwrap();
    let mut urls = Vec::new();
    for client in [&clients.usual, &clients.uploads] {
        let request = client.get_object().bucket(&config.bucket).key("kiln/clock");
        let signed = PresigningConfig::expires_in(Duration::from_secs(60)).unwrap();
        let url = request.presigned(signed).await.unwrap().uri().to_owned();
        urls.push(url.split_once('?').unwrap().0.to_owned());
    }
    assert_eq!(urls[0], urls[1]);
    urls.remove(0)
}

#[tokio::test]
async fn the_bucket_is_in_the_path_or_in_the_host() {
    let in_path = "http://store.example:9000/builds/kiln/clock";
    let in_host = "http://builds.store.example:9000/kiln/clock";
    assert_eq!(url(&at(Some(ENDPOINT), None)).await, in_path);
    assert_eq!(url(&at(Some(ENDPOINT), Some(true))).await, in_path);
    assert_eq!(url(&at(Some(ENDPOINT), Some(false))).await, in_host);
    let path = "http://store.example:9000/storage/v1/s3";
    let beneath = format!("{path}/builds/kiln/clock");
    assert_eq!(url(&at(Some(path), None)).await, beneath);
    assert_eq!(url(&at(Some(&format!("{path}/")), None)).await, beneath);
    let in_path = "https://s3.eu-west-1.amazonaws.com/builds/kiln/clock";
    let in_host = "https://builds.s3.eu-west-1.amazonaws.com/kiln/clock";
    assert_eq!(url(&at(None, None)).await, in_host);
    assert_eq!(url(&at(None, Some(false))).await, in_host);
    assert_eq!(url(&at(None, Some(true))).await, in_path);
}

async fn refused(config: &S3Config) -> StoreError {
    match S3Objects::open(config).await {
        Ok(_) => panic!("{config:?} was opened"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn what_is_configured_wrongly_is_an_error_of_the_configuration() {
    let endpoint = |text: &str| at(Some(text), None);
    let region = |text: &str| S3Config { region: Some(text.to_owned()), ..at(None, None) };
    let ca = |path: &Path| S3Config { ca: Some(path.to_owned()), ..endpoint(ENDPOINT) };
    let dir = tempfile::tempdir().unwrap();
    let (none, empty, broken) =
        (dir.path().join("none"), dir.path().join("empty"), dir.path().join("broken"));
    std::fs::write(&empty, "no certificate").unwrap();
    let text = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    std::fs::write(&broken, text).unwrap();
    for (config, words) in [
        (endpoint("minio:9000"), ["s3.endpoint = \"minio:9000\"", "http://HOST:PORT"]),
        (endpoint("minio"), ["s3.endpoint = \"minio\"", "https://HOST"]),
        (endpoint("http://key:secret@minio/"), ["\"http://minio/\"", "password"]),
        (region("us east"), ["s3.region = \"us east\"", "us-east-1"]),
        (region(""), ["s3.region = \"\"", "us-east-1"]),
        (ca(&none), ["s3.ca", "No such file"]),
        (ca(&empty), ["s3.ca", "no certificate"]),
        (ca(&broken), ["s3.ca", "broken"]),
    ] {
        let error = refused(&config).await;
        let text = error.to_string();
        assert!(matches!(error, StoreError::Config(_)), "{error:?}");
        for word in words {
            assert!(text.contains(word), "{word:?} is not said: {text}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_private_authority_is_trusted_where_it_is_named() {
    let Some(weed) = Weed::start_secured() else { return };
    let certificates = weed.certificates().unwrap();
    let unknown = S3Config { timeout: IMPATIENT * 4, ..config(&weed, weed.endpoint()) };
    let known = S3Config { ca: Some(certificates.ca()), ..unknown.clone() };
    let objects = S3Objects::open(&known).await.unwrap();
    let (digest, data) = blob(1, 5 << 20);
    objects.put(&digest, Generation(1), data.clone()).await.unwrap();
    assert_eq!(whole(&objects, &digest, 1).await.unwrap(), data);

    let says = async |config: S3Config, word: &str| {
        let text = refused(&config).await.to_string();
        assert!(text.contains(&weed.address()) && text.contains(word), "{text}");
    };
    says(unknown, "set s3.ca (or AWS_CA_BUNDLE)").await;
    let plain = weed.endpoint().replace("https://", "http://");
    says(S3Config { endpoint: Some(plain), ..known.clone() }, "https://").await;
    let Some(other) = Weed::start() else { return };
    let secure = other.endpoint().replace("http://", "https://");
    let text = refused(&S3Config { endpoint: Some(secure), ..known }).await.to_string();
    assert!(text.contains("write http:// in s3.endpoint"), "{text}");
}

#[tokio::test]
async fn who_does_not_answer_or_is_no_s3_is_said_with_what_to_do() {
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let config = S3Config { timeout: IMPATIENT, ..at(Some(&nobody), None) };
    let error = refused(&config).await;
    assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
    assert!(error.to_string().contains("start it, or correct s3.endpoint"), "{error}");

    for status in [400, 403, 404, 405] {
        let endpoint = answering(status);
        let config = S3Config { endpoint: Some(endpoint.clone()), ..config.clone() };
        let objects = S3Objects::connect(&config).await.unwrap();
        let (digest, data) = blob(1, 100);
        let errors = [
            objects.check().await.unwrap_err(),
            // A blob is not absent because a server that knows nothing of it says so.
            whole(&objects, &digest, 1).await.unwrap_err(),
            objects.put(&digest, Generation(1), data).await.unwrap_err(),
        ];
        for error in errors {
            let text = error.to_string();
            assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
            for word in [&endpoint, &status.to_string(), "correct s3.endpoint"] {
                assert!(text.contains(word), "{word:?} is not said: {text}");
            }
            assert!(!text.contains("no reason given"), "{text}");
        }
    }
}

/// The URL of a web server that has nothing for anybody.
fn answering(status: u16) -> String {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut client in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let _ = client.read(&mut [0; 64 << 10]);
                let body = "<html>nothing here</html>";
                let head = format!("HTTP/1.1 {status} No\r\nContent-Type: text/html\r\n");
                let rest = format!("Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
                let _ = client.write_all((head + &rest + body).as_bytes());
            });
        }
    });
    url
}
