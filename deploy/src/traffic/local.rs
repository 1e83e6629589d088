//! Requests to a balancer on this machine.

use std::time::Duration;

use kiln_net::http::{Client, collect, described, header};

const ANSWER: Duration = Duration::from_secs(2);

/// The body of a good answer, of at most `most` bytes. `host`: what is sent as that, where it is not the address.
/// `Err`: why there is none, in words.
pub async fn get(
    client: &Client,
    url: &str,
    host: Option<&str>,
    most: usize,
) -> Result<Vec<u8>, String> {
    let mut request = client.get(url).timeout(ANSWER);
    if let Some(host) = host {
        request = request.header(header::HOST, host);
    }
    let answer = request.send().await.map_err(described)?;
    if !answer.status().is_success() {
        return Err(format!("it answered {}", answer.status()));
    }
    collect(answer, most).await.map_err(|error| error.to_string())
}
