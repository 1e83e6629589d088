//! Notices as POST requests to one address that the operator names.

use std::sync::Arc;
use std::time::Duration;

use kiln_net::http::{Client, Options, client, described, header};
use kiln_net::panics::caught;
use kiln_net::tls::{TlsFiles, client_config, without_trust};
use kiln_net::{Reach, Url, reach, urls};
use serde_json::Value;

const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(10);

/// The form of message that the receiver understands: JSON for programs, or Slack's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Json,
    Slack,
}

/// A webhook that is told of changes, as the configuration names it.
#[derive(Debug, Clone)]
pub struct WebhookOptions {
    /// The name of the configuration's setting, for messages.
    pub setting: &'static str,
    /// The address; it may hold a secret and is never shown.
    pub url: String,
    pub form: Form,
}

#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error("{setting} is no address: {why}")]
    Url { setting: &'static str, why: String },
    #[error("the HTTP client for {setting} cannot be set up: {why}")]
    Client { setting: &'static str, why: String },
}

pub struct Webhook {
    client: Client,
    url: Url,
    pub form: Form,
    /// The base URL of the server's pages, which links in messages begin with.
    base_url: String,
}

impl Webhook {
    pub fn new(options: &WebhookOptions, base_url: &str) -> Result<Self, WebhookError> {
        let setting = options.setting;
        let url = urls::parse(&options.url);
        let url = url.map_err(|error| WebhookError::Url { setting, why: error.to_string() })?;
        let failed = |why: String| WebhookError::Client { setting, why };
        let tls = match url.scheme() {
            "https" => client_config(&TlsFiles::default()),
            _ => without_trust(),
        };
        let tls = tls.map_err(|error| failed(error.to_string()))?;
        // The operator named this host, and nothing else: no redirection is followed, and whoever has its name
        // in the DNS leads nowhere but to a network.
        let reach = |name: &str| reach::of_name(name, Reach::Network);
        let options_of = Options { reach: Some(Arc::new(reach)), ..Options::new(tls, CONNECT) };
        let client = client(options_of).map_err(|error| failed(error.to_string()))?;
        Ok(Self { client, url, form: options.form, base_url: base_url.to_owned() })
    }

    /// The webhook that is told of something; `None`: nobody is.
    pub fn named(
        options: Option<&WebhookOptions>,
        base_url: &str,
    ) -> Result<Option<Self>, WebhookError> {
        options.map(|it| Self::new(it, base_url)).transpose()
    }

    /// The message in the form that is understood. Both are made with the base URL of links.
    pub fn message(
        &self,
        json: impl FnOnce(&str) -> Value,
        slack: impl FnOnce(&str) -> Value,
    ) -> Value {
        match self.form {
            Form::Json => json(&self.base_url),
            Form::Slack => slack(&self.base_url),
        }
    }

    pub async fn post(&self, body: &Value) -> Result<(), String> {
        let request = self
            .client
            .post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .timeout(ANSWER)
            .body(body.to_string());
        let answer = request.send().await.map_err(described)?;
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => Err(format!("it answered {status}")),
        }
    }
}

/// Whether it was heard. Where whoever tells it panics it was not: it is tried as often as what nobody takes, and holds up
/// what comes behind it no longer.
pub async fn heard(telling: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    caught(telling).await.unwrap_or_else(|panicked| Err(panicked.to_string()))
}

/// Text of others in which nothing is markup or calls anybody.
pub fn plain(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace(['`', '\n'], " ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// What one request to the webhook was, and what became of it.
    async fn told(answer: &'static str) -> (String, Result<(), String>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/hook?secret=1", listener.local_addr().unwrap());
        let answers = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"}") {
                let mut part = [0; 4096];
                let length = stream.read(&mut part).await.unwrap();
                request.extend_from_slice(&part[..length]);
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(request).unwrap()
        });
        let options = WebhookOptions { setting: "tests.webhook", url, form: Form::Json };
        let webhook = Webhook::new(&options, "http://k").unwrap();
        let result = webhook.post(&json!({"number": 7})).await;
        (answers.await.unwrap(), result)
    }

    #[tokio::test]
    async fn who_panics_was_not_heard() {
        assert_eq!(heard(async { Ok(()) }).await, Ok(()));
        let odd = heard(async { panic!("odd") }).await;
        assert_eq!(odd, Err("a fault of Kiln ended it: odd".to_owned()));
    }

    #[tokio::test]
    async fn a_message_has_the_form_that_is_understood() {
        for (form, name) in [(Form::Json, "json"), (Form::Slack, "slack")] {
            let url = "http://hooks.test/".to_owned();
            let options = WebhookOptions { setting: "tests.webhook", url, form };
            let webhook = Webhook::named(Some(&options), "http://k").unwrap().expect("a webhook");
            let message =
                webhook.message(|url| json!({ "json": url }), |url| json!({ "slack": url }));
            assert_eq!(message[name], "http://k");
        }
        assert!(Webhook::named(None, "http://k").unwrap().is_none());
    }

    #[tokio::test]
    async fn a_notice_is_posted_and_no_redirection_is_followed() {
        let (request, result) = told("HTTP/1.1 204 No Content\r\n\r\n").await;
        assert!(request.starts_with("POST /hook?secret=1 HTTP/1.1\r\n"), "{request}");
        assert!(
            request.contains("application/json") && request.contains("\"number\":7"),
            "{request}"
        );
        assert_eq!(result, Ok(()));
        let away =
            "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
        let (_, result) = told(away).await;
        assert_eq!(result, Err("it answered 302 Found".to_owned()));
    }
}
