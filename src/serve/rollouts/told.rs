//! News of rollouts, told at the address that the operator names.

use kiln_deploy::rollouts::control::Notice;
use kiln_deploy::timestamp::Timestamp;
use serde_json::{Value, json};

use crate::serve::webhook::{Form, Webhook, plain};

pub async fn tell(webhook: &Webhook, notice: &Notice) -> Result<(), String> {
    let body = match webhook.form {
        Form::Json => generic(notice, &webhook.base_url),
        Form::Slack => slack(notice, &webhook.base_url),
    };
    webhook.post(&body).await
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
