//! Kiln uses the proxies that its environment names.

use std::process::Command;

use kiln_protos::asset::fetch_client::FetchClient;
use kiln_protos::asset::{FetchBlobRequest, FetchBlobResponse};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tonic::Code;

use crate::sdk::house::House;

const CONTENT: &str = "from behind the proxy";

/// Starts a proxy that answers requests for every server by itself and opens no tunnels. Returns its address, and a
/// channel with the first line and the credentials of each request.
async fn proxy() -> (String, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (tell, told) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(answer(client, tell.clone()));
        }
    });
    (address, told)
}

async fn answer(client: TcpStream, tell: mpsc::UnboundedSender<String>) {
    let mut client = BufReader::new(client);
    let mut said = String::new();
    loop {
        let mut line = String::new();
        if client.read_line(&mut line).await.unwrap_or(0) == 0 || line == "\r\n" {
            break;
        }
        if said.is_empty() || line.to_ascii_lowercase().starts_with("proxy-authorization") {
            said.push_str(&line);
        }
    }
    let refused = said.starts_with("CONNECT");
    let _ = tell.send(said);
    let (status, body) = if refused { ("403 Forbidden", "") } else { ("200 OK", CONTENT) };
    let length = body.len();
    let answer =
        format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    let _ = client.write_all(answer.as_bytes()).await;
    let _ = client.read(&mut [0]).await;
}

async fn fetch(house: &House, uri: &str) -> FetchBlobResponse {
    let request = FetchBlobRequest { uris: vec![uri.into()], ..Default::default() };
    FetchClient::new(house.channel.clone()).fetch_blob(request).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_go_through_the_proxies_of_the_environment() {
    let (address, mut told) = proxy().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = format!("http://{}/x", listener.local_addr().unwrap());
    let router = axum::Router::new().route("/x", axum::routing::get(async || "direct"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let proxy = format!("http://user:pass@{address}");
    let house = House::with(&[
        ("KILN_FETCH_ALLOW", &format!("http://plain.test/, https://secure.test/, {here}")),
        ("HTTP_PROXY", &proxy),
        ("https_proxy", &proxy),
        ("NO_PROXY", "other.test"),
    ])
    .await;
    let [caller, ..] = house.callers();

    let found = fetch(&house, "http://plain.test/a").await;
    assert_eq!(found.blob_digest, Some(caller.digest(CONTENT.as_bytes())), "{found:?}");
    let said = told.recv().await.unwrap();
    assert!(said.starts_with("GET http://plain.test/a HTTP/1.1"), "{said}");
    assert!(said.contains("Basic dXNlcjpwYXNz"), "{said}");

    let status = fetch(&house, "https://secure.test/b").await.status.unwrap();
    assert_eq!(status.code, Code::Unavailable as i32, "{status:?}");
    let said = told.recv().await.unwrap();
    assert!(said.starts_with("CONNECT secure.test:443 "), "{said}");

    let found = fetch(&house, &here).await;
    assert_eq!(found.blob_digest, Some(caller.digest(b"direct")), "{found:?}");
    assert!(told.try_recv().is_err(), "this machine was asked for through the proxy");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_speaks_to_this_machine_without_a_proxy() {
    let house = House::new().await;
    let output = Command::new(env!("CARGO_BIN_EXE_kiln"))
        .args(["status", "--server", &house.server.url()])
        .envs([("HTTP_PROXY", "http://127.0.0.1:1"), ("ALL_PROXY", "socks5://127.0.0.1:1")])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
