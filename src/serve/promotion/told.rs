//! Changes of environments, told at the address that the operator names.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kiln_deploy::promotion::{Change, ChangeKind, Keeper, PromotionError};
use serde_json::{Value, json};

use crate::serve::telling::{Notices, Pace};
use crate::serve::webhook::{Webhook, plain};

/// When changes are told.
pub const PACE: Pace = Pace { look: Duration::from_secs(10), term: Duration::from_secs(60) };

/// Changes that are yet to be told, and who is told.
pub struct Changes {
    pub keeper: Arc<Keeper>,
    pub webhook: Webhook,
}

#[async_trait]
impl Notices for Changes {
    type Notice = Change;
    type Error = PromotionError;

    const CALLED: &'static str = "a change";
    const LEASE: &'static str = "promotion/telling";

    async fn waiting(&self, most: usize) -> Result<Vec<Change>, PromotionError> {
        self.keeper.notices(most).await
    }

    fn which(&self, notice: &Change) -> String {
        notice.number.to_string()
    }

    async fn tell(&self, notice: &Change) -> Result<(), String> {
        let webhook = &self.webhook;
        let body = webhook.message(|url| generic(notice, url), |url| slack(notice, url));
        webhook.post(&body).await
    }

    async fn told(&self, notice: &Change) -> Result<(), PromotionError> {
        self.keeper.told(notice.number).await
    }
}

/// The message for programs, as one JSON object.
fn generic(change: &Change, base_url: &str) -> Value {
    json!({
        "event": change.kind.action(),
        "number": change.number,
        "at": change.at,
        "by": change.by.name,
        "automation": change.by.automation,
        "environment": change.environment,
        "subject": change.subject,
        "digest": change.digest,
        "reason": change.reason,
        "before": change.before,
        "after": change.after,
        "link": format!("{base_url}/environments"),
    })
}

/// The message for Slack: one line of text, in which nothing is markup or calls anybody.
fn slack(change: &Change, base_url: &str) -> Value {
    let what = match change.kind {
        ChangeKind::Promoted => "is promoted",
        ChangeKind::RolledBack => "is what was rolled back to",
        ChangeKind::Waits => "waits to be promoted",
        ChangeKind::GaveUp => "is not promoted any more",
        ChangeKind::Approved => "is approved",
        ChangeKind::Withdrawn => "is not approved any more",
        ChangeKind::Held => "is held: nothing is promoted",
        ChangeKind::Lifted => "is held no more",
        ChangeKind::OverrideAsked => {
            "is to be promoted in spite of freezes: somebody has to confirm it"
        }
        ChangeKind::Overridden => "may be promoted in spite of freezes",
        ChangeKind::Rejected => "is rejected for good",
    };
    let subject = match (change.subject.as_str(), change.environment.as_str()) {
        ("", environment) => environment.to_owned(),
        (subject, "") => subject.to_owned(),
        (subject, environment) => format!("{subject} ({environment})"),
    };
    let text = format!(
        "`{}` {what}, by {}: {}\n<{base_url}/environments|Environments>",
        plain(&subject),
        plain(&change.by.name),
        plain(&change.reason),
    );
    json!({ "text": text })
}

#[cfg(test)]
mod tests {
    use kiln_deploy::promotion::Actor;
    use kiln_deploy::timestamp::Timestamp;

    use super::*;

    #[test]
    fn what_others_wrote_is_no_markup() {
        let change = Change {
            number: 7,
            at: Timestamp::from_unix(1),
            kind: ChangeKind::RolledBack,
            by: Actor { name: "ana".to_owned(), automation: false },
            environment: "prod".to_owned(),
            subject: "team/app:1".to_owned(),
            digest: None,
            reason: "<!channel> `x`\nfailed".to_owned(),
            before: None,
            after: None,
        };
        let text = slack(&change, "http://k")["text"].as_str().unwrap().to_owned();
        assert_eq!(
            text,
            "`team/app:1 (prod)` is what was rolled back to, by ana: &lt;!channel&gt;  x  failed\n\
             <http://k/environments|Environments>"
        );
        let body = generic(&change, "http://k");
        assert_eq!(
            (&body["event"], &body["at"]),
            (&json!("release.rollback"), &json!("1970-01-01T00:00:01Z"))
        );
    }
}
