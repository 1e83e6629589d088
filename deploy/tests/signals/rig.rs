//! What is asked, and servers that answer in odd ways.

use std::sync::Arc;
use std::time::Duration;

use kiln_deploy::oci::ContentDigest;
use kiln_deploy::rollouts::parts::{
    Asked, Cohort, Cohorts, Measured, Place, Query, Signals, Target, Window,
};
use kiln_deploy::toml::document;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// A source as an operator declares it.
pub fn declared(text: &str) -> Arc<dyn Signals> {
    document(text, kiln_deploy::signals::read).unwrap()
}

/// `targets`: names with addresses.
pub fn cohort(version: &str, targets: &[(&str, &str)]) -> Cohort {
    let target = |(name, address): &(&str, &str)| Target {
        name: (*name).to_owned(),
        address: Some((*address).to_owned()),
        labels: Default::default(),
    };
    let version = ContentDigest::of(version.as_bytes());
    Cohort { version, targets: targets.iter().map(target).collect() }
}

/// The ten minutes up to `to` (Unix seconds), in intervals of 15 s.
pub fn asked(query: Query, cohorts: Cohorts, to: u64) -> Asked {
    Asked {
        place: Place { service: "api".to_owned(), environment: "prod".to_owned() },
        metric: "metric".to_owned(),
        query,
        cohorts,
        window: Window { from: (to - 600) * 1000, to: to * 1000, step: Duration::from_secs(15) },
    }
}

/// Returns the reason why a measurement is missing. Panics if it is there.
pub fn missing(measured: Measured) -> String {
    match measured {
        Measured::Missing(why) => why,
        other => panic!("{other:?}"),
    }
}

pub fn failed(measured: Measured) -> String {
    match measured {
        Measured::Failed(why) => why,
        other => panic!("{other:?}"),
    }
}

/// A server that answers every request with these bytes, and then closes.
pub async fn answers(bytes: Vec<u8>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let bytes = bytes.clone();
            tokio::spawn(async move {
                let mut request = [0; 8192];
                if stream.read(&mut request).await.is_ok() {
                    let _ = stream.write_all(&bytes).await;
                }
            });
        }
    });
    address
}

pub fn http(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}
