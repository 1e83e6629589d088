//! Environments that cannot be taken down, told at the address that the operator names.

use async_trait::async_trait;
use kiln_ci::ephemeral::{Preview, TellStuck};
use serde_json::{Value, json};

use crate::serve::webhook::{Webhook, plain};

pub struct ByWebhook(pub Webhook);

#[async_trait]
impl TellStuck for ByWebhook {
    async fn stuck(&self, preview: &Preview) -> Result<(), String> {
        let Self(webhook) = self;
        let body = webhook.message(|_| generic(preview), |_| slack(preview));
        webhook.post(&body).await
    }
}

/// The message for programs, as one JSON object.
fn generic(it: &Preview) -> Value {
    json!({
        "event": "preview.stuck",
        "preview": it.name,
        "kind": it.kind,
        "pipeline": it.pipeline,
        "run": it.run,
        "by": it.by,
        "tries": it.failures,
        "reason": it.why,
    })
}

/// The message for Slack: one line of text, in which nothing is markup or calls anybody.
fn slack(it: &Preview) -> Value {
    let text = format!(
        "`{}` is still up after {} tries to take it down: {}",
        plain(&it.name),
        it.failures,
        plain(&it.why),
    );
    json!({ "text": text })
}
