//! Changes of the quarantine as POST requests to one address that the operator names.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kiln_ci::model::Time;
use kiln_ci::quarantine::{Change, Kind};
use kiln_ci::verdicts::Teller;
use kiln_net::http::{Client, Options, client, described, header};
use kiln_net::tls::{TlsFiles, client_config, without_trust};
use kiln_net::{Reach, Url, reach, urls};
use serde_json::{Value, json};

use crate::web::json::rfc3339;

const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(10);

/// What is understood at the address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Json,
    Slack,
}

/// Where changes are told.
#[derive(Debug, Clone)]
pub struct WebhookOptions {
    /// May hold a secret: never shown.
    pub url: String,
    pub form: Form,
}

#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    #[error("tests.webhook is no address: {0}")]
    Url(String),
    #[error("the HTTP client for tests.webhook cannot be set up: {0}")]
    Client(String),
}

pub struct Webhook {
    client: Client,
    url: Url,
    form: Form,
    /// Where the pages are, for links.
    base_url: String,
}

impl Webhook {
    pub fn new(options: &WebhookOptions, base_url: &str) -> Result<Self, WebhookError> {
        let url = urls::parse(&options.url);
        let url = url.map_err(|error| WebhookError::Url(error.to_string()))?;
        let failed = |error: String| WebhookError::Client(error);
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
}

#[async_trait]
impl Teller for Webhook {
    async fn tell(&self, change: &Change) -> Result<(), String> {
        let body = match self.form {
            Form::Json => generic(change, &self.base_url),
            Form::Slack => slack(change, &self.base_url),
        };
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

fn kind(change: &Change) -> &'static str {
    match change.kind {
        Kind::Entered => "entered",
        Kind::Renewed => "renewed",
        Kind::Left => "left",
        Kind::Expired => "expired",
        Kind::Refused => "refused",
    }
}

fn when(at: Time) -> Option<String> {
    rfc3339(i64::try_from(at.0).ok()?.checked_mul(1_000_000)?)
}

fn link(base_url: &str) -> String {
    format!("{base_url}/api/v1/tests/quarantine")
}

/// One object for programs.
fn generic(change: &Change, base_url: &str) -> Value {
    let test = &change.subject.test;
    json!({
        "event": format!("tests.quarantine.{}", kind(change)),
        "number": change.number,
        "at": when(change.at),
        "instance": test.instance,
        "label": test.label,
        "configuration": test.configuration,
        "case": change.subject.case.as_ref().map(|it| json!({"class": it.class, "name": it.name})),
        "by": change.by,
        "reason": change.reason,
        "owner": change.owner,
        "expires": change.expires.and_then(when),
        "link": link(base_url),
    })
}

/// One line of text, in which nothing is markup or calls anybody.
fn slack(change: &Change, base_url: &str) -> Value {
    let plain = |text: &str| {
        text.replace('&', "&amp;")
            .replace('<', "&lt;")
            .replace('>', "&gt;")
            .replace(['`', '\n'], " ")
    };
    let what = match change.kind {
        Kind::Entered => "is in quarantine now",
        Kind::Renewed => "stays in quarantine",
        Kind::Left => "has left quarantine",
        Kind::Expired => "is out of quarantine: its time is up",
        Kind::Refused => "is flaky, but the quarantine is full",
    };
    let owner = change.owner.as_deref().map(|it| format!(" (owner: {})", plain(it)));
    let text = format!(
        "`{}` {what}{}: {}\n<{}|Quarantine>",
        plain(&change.subject.to_string()),
        owner.unwrap_or_default(),
        plain(&change.reason),
        link(base_url)
    );
    json!({ "text": text })
}

#[cfg(test)]
mod tests {
    use kiln_ci::model::{Subject, TestKey};
    use kiln_ci::quarantine::Actor;

    use super::*;

    fn change() -> Change {
        let test = TestKey {
            instance: String::new(),
            label: "//a:<t>".to_owned(),
            configuration: String::new(),
        };
        Change {
            number: 7,
            at: Time(1_000),
            subject: Subject { test, case: None },
            kind: Kind::Entered,
            by: Actor::Policy,
            reason: "<!channel> `x`\nfailed".to_owned(),
            owner: Some("@app".to_owned()),
            expires: None,
            evidence: None,
        }
    }

    #[test]
    fn what_others_wrote_is_no_markup() {
        let text = slack(&change(), "http://k")["text"].as_str().unwrap().to_owned();
        assert_eq!(
            text,
            "`//a:&lt;t&gt;` is in quarantine now (owner: @app): &lt;!channel&gt;  x  failed\n\
             <http://k/api/v1/tests/quarantine|Quarantine>"
        );
        let body = generic(&change(), "http://k");
        assert_eq!(body["event"], "tests.quarantine.entered");
        assert_eq!(body["label"], "//a:<t>");
        assert_eq!((&body["at"], &body["case"]), (&json!("1970-01-01T00:00:01Z"), &Value::Null));
    }

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
        let webhook = Webhook::new(&WebhookOptions { url, form: Form::Json }, "http://k").unwrap();
        let result = webhook.tell(&change()).await;
        (answers.await.unwrap(), result)
    }

    #[tokio::test]
    async fn a_change_is_posted_and_no_redirection_is_followed() {
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
