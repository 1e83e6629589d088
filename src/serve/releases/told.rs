//! Changes of releases, told at the address that the operator names: what the audit log says of them, entry by entry.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use kiln_cas::records::{Expect, RecordsError, SharedRecords, Write};
use kiln_cas::stores::audit::{AuditEntry, AuditEvent, AuditLog, MAX_PAGE};
use kiln_deploy::timestamp::Timestamp;
use kiln_web::format::encode;
use serde_json::{Map, Value, json};

use crate::serve::telling::{Notices, Pace};
use crate::serve::webhook::{Webhook, plain};

/// When changes are told.
pub const PACE: Pace = Pace { look: Duration::from_secs(10), term: Duration::from_secs(60) };

/// The record with the sequence of the audit log up to which everything was told.
const PLACE: &str = "releases/told";
/// What is said where that record is no number.
const LOST: &str = "a record that cannot be read is written anew: changes of releases up to here that nobody was told of yet \
     stay untold; `kiln audit log` has them";
/// Seconds. What is older than this is told to nobody: it happened while nobody was to be told.
const MOST_AGE: u64 = 24 * 3600;

/// What is told of a release, as the audit log names it, and in words.
const ACTIONS: [(&str, &str); 4] = [
    ("release.create", "is released"),
    ("release.import", "is taken in"),
    ("release.reject", "is rejected for good"),
    ("release.remove", "is removed"),
];

/// Changes that are yet to be told, and who is told.
pub struct ReleaseNotices {
    records: SharedRecords,
    log: AuditLog,
    webhook: Webhook,
    /// The sequence up to which this server has found nothing to tell.
    passed: AtomicU64,
    now: fn() -> i64,
}

impl ReleaseNotices {
    /// `now` gives nanoseconds since the Unix epoch.
    pub fn new(records: &SharedRecords, webhook: Webhook, now: fn() -> i64) -> Self {
        let (records, log) = (records.clone(), AuditLog::new(records.clone()));
        Self { records, log, webhook, passed: AtomicU64::new(0), now }
    }

    /// The sequence up to which everything was told. Whoever tells for the first time begins behind all that is there, and so
    /// does whoever cannot read where others were: nobody could mend the record but by writing it anew.
    async fn place(&self) -> Result<u64, RecordsError> {
        loop {
            let record = self.records.get(PLACE).await?;
            if let Some(place) = record.as_ref().and_then(|it| number(&it.value)) {
                return Ok(place);
            }
            let end = self.log.head().await?.map_or(0, |(sequence, _)| sequence);
            let expect = record.as_ref().map_or(Expect::Absent, |it| Expect::Version(it.version));
            match self.put(end, expect).await {
                Err(RecordsError::Conflict { .. }) => {}
                done => {
                    done?;
                    if record.is_some() {
                        tracing::error!(key = PLACE, end, "{LOST}");
                    }
                    return Ok(end);
                }
            }
        }
    }

    async fn put(&self, place: u64, expect: Expect) -> Result<(), RecordsError> {
        let value = Some(place.to_string().into_bytes().into());
        let write = Write { key: PLACE.to_owned(), expect, value };
        self.records.write(vec![write]).await.map(drop)
    }

    fn is_told(&self, event: &AuditEvent) -> bool {
        let now = u64::try_from((self.now)()).unwrap_or(0) / 1_000_000_000;
        let is_recent = event.time.saturating_add(MOST_AGE) >= now;
        is_recent && ACTIONS.iter().any(|(action, _)| *action == event.action)
    }
}

#[async_trait]
impl Notices for ReleaseNotices {
    type Notice = AuditEntry;
    type Error = RecordsError;

    const CALLED: &'static str = "a change of a release";
    const LEASE: &'static str = "releases/telling";

    async fn waiting(&self, most: usize) -> Result<Vec<AuditEntry>, RecordsError> {
        let mut after = self.place().await?.max(self.passed.load(Ordering::Relaxed));
        loop {
            let (mut entries, upto) = self.log.follow(after, MAX_PAGE).await?;
            entries.retain(|it| self.is_told(&it.event));
            if !entries.is_empty() || upto == after {
                entries.truncate(most);
                return Ok(entries);
            }
            after = upto;
            self.passed.fetch_max(upto, Ordering::Relaxed);
        }
    }

    fn which(&self, notice: &AuditEntry) -> String {
        notice.sequence.to_string()
    }

    async fn tell(&self, notice: &AuditEntry) -> Result<(), String> {
        let webhook = &self.webhook;
        let body = webhook.message(|url| generic(notice, url), |url| slack(notice, url));
        webhook.post(&body).await
    }

    async fn told(&self, notice: &AuditEntry) -> Result<(), RecordsError> {
        self.put(notice.sequence, Expect::Anything).await
    }
}

fn number(value: &[u8]) -> Option<u64> {
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// What the entry says beside who did what.
fn details(entry: &AuditEntry) -> Map<String, Value> {
    serde_json::from_str(&entry.event.details).unwrap_or_default()
}

fn link(entry: &AuditEntry, base_url: &str) -> String {
    let page = format!("{base_url}/releases/{}", encode(&entry.event.subject, true));
    match details(entry).get("instance").and_then(Value::as_str) {
        None | Some("") => page,
        Some(instance) => format!("{page}?instance={}", encode(instance, false)),
    }
}

/// The message for programs, as one JSON object.
fn generic(entry: &AuditEntry, base_url: &str) -> Value {
    let AuditEvent { time, actor, action, subject, .. } = &entry.event;
    json!({
        "event": action,
        "number": entry.sequence,
        "at": Timestamp::from_unix(i64::try_from(*time).unwrap_or(i64::MAX)),
        "by": actor,
        "release": subject,
        "details": details(entry),
        "link": link(entry, base_url),
    })
}

/// The message for Slack: one line of text, in which nothing is markup or calls anybody.
fn slack(entry: &AuditEntry, base_url: &str) -> Value {
    let AuditEvent { actor, action, subject, .. } = &entry.event;
    let what = ACTIONS.iter().find(|(known, _)| known == action).map_or("", |(_, what)| *what);
    let reason = details(entry).get("reason").and_then(Value::as_str).map(plain);
    let reason = reason.map(|it| format!(": {it}")).unwrap_or_default();
    let link = link(entry, base_url);
    let text =
        format!("`{}` {what}, by {}{reason}\n<{link}|Release>", plain(subject), plain(actor));
    json!({ "text": text })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kiln_cas::stores::MemoryRecords;

    use super::*;
    use crate::serve::webhook::{Form, WebhookOptions};

    /// Seconds since the Unix epoch.
    const NOW: u64 = 1_700_000_000;

    fn notices(records: &SharedRecords) -> ReleaseNotices {
        let url = "http://127.0.0.1:9/hook".to_owned();
        let options = WebhookOptions { setting: "releases.webhook", url, form: Form::Json };
        let webhook = Webhook::new(&options, "http://k").unwrap();
        ReleaseNotices::new(records, webhook, || NOW as i64 * 1_000_000_000)
    }

    fn event(action: &str, time: u64, details: &Value) -> AuditEvent {
        AuditEvent {
            time,
            actor: "ana".to_owned(),
            action: action.to_owned(),
            subject: "team/app:1.0".to_owned(),
            details: details.to_string(),
        }
    }

    async fn note(records: &SharedRecords, action: &str, time: u64) -> AuditEntry {
        AuditLog::new(records.clone()).append(event(action, time, &json!({}))).await.unwrap()
    }

    #[tokio::test]
    async fn each_change_since_somebody_is_told_is_told_once_whoever_tells() {
        let records: SharedRecords = Arc::new(MemoryRecords::default());
        note(&records, "release.create", NOW).await;
        let one = notices(&records);
        assert!(one.waiting(10).await.unwrap().is_empty(), "it was there before anybody was told");
        let made = note(&records, "release.create", NOW).await;
        note(&records, "release.promote", NOW).await;
        note(&records, "release.remove", NOW - MOST_AGE - 1).await;
        let rejected = note(&records, "release.reject", NOW).await;
        let two = notices(&records);
        for it in [&one, &two] {
            assert_eq!(it.waiting(1).await.unwrap(), std::slice::from_ref(&made));
            assert_eq!(it.waiting(10).await.unwrap(), [made.clone(), rejected.clone()]);
        }
        one.told(&made).await.unwrap();
        assert_eq!(two.waiting(10).await.unwrap(), std::slice::from_ref(&rejected));
        two.told(&rejected).await.unwrap();
        note(&records, "release.promote", NOW).await;
        for it in [one, two, notices(&records)] {
            assert!(it.waiting(10).await.unwrap().is_empty());
        }
    }

    #[tokio::test]
    async fn a_place_that_cannot_be_read_holds_up_nothing_that_happens_later() {
        let records: SharedRecords = Arc::new(MemoryRecords::default());
        let one = notices(&records);
        note(&records, "release.create", NOW).await;
        let value = Some("odd".into());
        let odd = Write { key: PLACE.to_owned(), expect: Expect::Anything, value };
        records.write(vec![odd]).await.unwrap();
        assert!(one.waiting(10).await.unwrap().is_empty(), "nobody knows whether it was told");
        let later = note(&records, "release.reject", NOW).await;
        for it in [&one, &notices(&records)] {
            assert_eq!(it.waiting(10).await.unwrap(), std::slice::from_ref(&later));
        }
    }

    #[test]
    fn what_others_wrote_is_no_markup() {
        let details = json!({"reason": "<!channel> `x`\nfailed", "instance": "team"});
        let event = event("release.reject", 1, &details);
        let entry = AuditEntry { sequence: 7, event, previous: [0; 32], hash: [0; 32] };
        assert_eq!(
            slack(&entry, "http://k")["text"],
            "`team/app:1.0` is rejected for good, by ana: &lt;!channel&gt;  x  failed\n\
             <http://k/releases/team/app%3A1.0?instance=team|Release>"
        );
        let body = generic(&entry, "http://k");
        assert_eq!(
            (&body["event"], &body["at"], &body["release"]),
            (&json!("release.reject"), &json!("1970-01-01T00:00:01Z"), &json!("team/app:1.0"))
        );
        assert_eq!(body["details"], details);
    }
}
