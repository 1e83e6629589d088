//! What follows from failures of tests.

use kiln_ci::flakes::Limits;
use kiln_ci::quarantine::Policy;
use kiln_ci::verdicts::VerdictOptions;
use kiln_net::urls;

use super::error::ConfigError;
use super::settings::Settings;
use crate::serve::{Form, VerdictsOptions, WebhookOptions};

pub fn verdicts(settings: &Settings) -> Result<VerdictsOptions, ConfigError> {
    let count = |name| {
        let number = settings.number(name);
        number.map(|number| usize::try_from(number).unwrap_or(usize::MAX))
    };
    let (limits, policy) = (Limits::default(), Policy::default());
    let limits = Limits {
        per_failure: count("tests.shadow_runs")
            .map_or(limits.per_failure, |it| u32::try_from(it).unwrap_or(u32::MAX)),
        at_once: count("tests.shadow_at_once").unwrap_or(limits.at_once),
        per_day: settings.duration("tests.shadow_budget"),
        reserve: count("tests.shadow_reserve").unwrap_or(limits.reserve),
        ..limits
    };
    let expiry = settings.duration("tests.quarantine_stay");
    let policy = Policy {
        stay: policy.stay.min(expiry),
        expiry,
        cap: settings.text("tests.quarantine_share").parse().unwrap_or(policy.cap),
        ..policy
    };
    let judging = VerdictOptions { limits, policy, window: settings.duration("tests.window") };
    Ok(VerdictsOptions {
        on: settings.flag("tests.judge") && settings.flag("tests.record"),
        judging,
        owners: settings.path("tests.codeowners"),
        webhook: webhook(settings, "tests.webhook", "tests.webhook_format")?,
    })
}

/// The webhook that these settings name, if they name one.
pub fn webhook(
    settings: &Settings,
    setting: &'static str,
    format: &str,
) -> Result<Option<WebhookOptions>, ConfigError> {
    let url = settings.text(setting);
    if url.is_empty() {
        return Ok(None);
    }
    // The address may be a secret: it is not repeated.
    let parsed = urls::parse(url);
    let error = parsed.err().map(|error| error.to_string());
    let other = (!url.starts_with("http://") && !url.starts_with("https://"))
        .then(|| "expected http:// or https://".to_owned());
    if let Some(why) = error.or(other) {
        return Err(ConfigError::Combination(format!("{setting} is no address: {why}")));
    }
    let form = match settings.text(format) {
        "slack" => Form::Slack,
        _ => Form::Json,
    };
    Ok(Some(WebhookOptions { setting, url: url.to_owned(), form }))
}
