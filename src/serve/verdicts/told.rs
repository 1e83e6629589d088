//! Changes of the quarantine, told at the address that the operator names.

use async_trait::async_trait;
use kiln_ci::model::Time;
use kiln_ci::quarantine::{Change, Kind};
use kiln_ci::verdicts::Teller;
use serde_json::{Value, json};

use crate::serve::webhook::{Webhook, plain};
use kiln_web::json::rfc3339;

pub struct Told(pub Webhook);

#[async_trait]
impl Teller for Told {
    async fn tell(&self, change: &Change) -> Result<(), String> {
        let Self(webhook) = self;
        let body = webhook.message(|url| generic(change, url), |url| slack(change, url));
        webhook.post(&body).await
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

/// The page for people who want to know more.
fn link(base_url: &str) -> String {
    format!("{base_url}/tests/quarantine")
}

/// The message for programs, as one JSON object.
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

/// The message for Slack: one line of text, in which nothing is markup or calls anybody.
fn slack(change: &Change, base_url: &str) -> Value {
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
             <http://k/tests/quarantine|Quarantine>"
        );
        let body = generic(&change(), "http://k");
        assert_eq!(body["event"], "tests.quarantine.entered");
        assert_eq!(body["label"], "//a:<t>");
        assert_eq!((&body["at"], &body["case"]), (&json!("1970-01-01T00:00:01Z"), &Value::Null));
    }
}
