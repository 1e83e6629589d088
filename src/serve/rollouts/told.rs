//! News of rollouts, told at the address that the operator names.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kiln_deploy::rollouts::control::{Control, ControlError, Notice};
use kiln_deploy::timestamp::Timestamp;
use serde_json::{Value, json};

use crate::serve::telling::{Notices, Pace};
use crate::serve::webhook::{Webhook, plain};

/// When news are told. Another server tells a rollback about as soon as it drives that.
pub const PACE: Pace = Pace { look: Duration::from_secs(5), term: Duration::from_secs(10) };

/// News of rollouts that are yet to be told, and who is told.
pub struct RolloutNews {
    pub control: Arc<Control>,
    pub webhook: Webhook,
}

#[async_trait]
impl Notices for RolloutNews {
    type Notice = Notice;
    type Error = ControlError;

    const CALLED: &'static str = "a rollout's news";
    /// Not the lease of who drives, which is given up as soon as nothing is rolled out any more, in the middle of telling that.
    const LEASE: &'static str = "rollouts/telling";

    async fn waiting(&self, most: usize) -> Result<Vec<Notice>, ControlError> {
        self.control.notices(most).await
    }

    fn which(&self, notice: &Notice) -> String {
        notice.rollout.clone()
    }

    async fn tell(&self, notice: &Notice) -> Result<(), String> {
        let webhook = &self.webhook;
        let body = webhook.message(|url| generic(notice, url), |url| slack(notice, url));
        webhook.post(&body).await
    }

    async fn told(&self, notice: &Notice) -> Result<(), ControlError> {
        self.control.told(notice).await
    }
}

/// The message for programs, as one JSON object.
fn generic(notice: &Notice, base_url: &str) -> Value {
    let seconds = i64::try_from(notice.at / 1_000).unwrap_or(i64::MAX);
    json!({
        "event": notice.event,
        "rollout": notice.rollout,
        "number": notice.number,
        "at": Timestamp::from_unix(seconds),
        "service": notice.service,
        "environment": notice.environment,
        "release": notice.release,
        "text": notice.text,
        "link": format!("{base_url}/rollouts/{}", notice.rollout),
    })
}

/// The message for Slack: one line of text, in which nothing is markup or calls anybody.
fn slack(notice: &Notice, base_url: &str) -> Value {
    let text = format!(
        "`{}` for {} in {}: {}\n<{base_url}/rollouts/{}|Rollout>",
        plain(&notice.release),
        plain(&notice.service),
        plain(&notice.environment),
        plain(&notice.text),
        notice.rollout,
    );
    json!({ "text": text })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_is_no_markup() {
        let notice = Notice {
            rollout: "m1".to_owned(),
            number: 7,
            at: 1_000,
            event: "rollout.rollback".to_owned(),
            service: "api".to_owned(),
            environment: "prod".to_owned(),
            release: "team/app:1".to_owned(),
            text: "aborted by <!channel> `x`".to_owned(),
        };
        let text = slack(&notice, "http://k")["text"].as_str().unwrap().to_owned();
        assert_eq!(
            text,
            "`team/app:1` for api in prod: aborted by &lt;!channel&gt;  x \n<http://k/rollouts/m1|Rollout>"
        );
        assert_eq!(generic(&notice, "http://k")["at"], "1970-01-01T00:00:01Z");
    }
}
