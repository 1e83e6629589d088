//! What is noted of events, and who is told.

use kiln_cas::stores::audit::AuditEvent;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::error::ControlError;
use super::kept::{Rollout, phase};
use super::store::{decode, delete};
use super::{Control, keys};
use crate::news;
use crate::rollouts::machine::{End, Event, Logged, Millis, Phase, Why};

/// Characters of a text that is noted.
const MAX_TEXT: usize = 2_000;

/// Something that whoever watches over rollouts should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    pub rollout: String,
    pub number: u64,
    pub at: Millis,
    /// `rollout.step`, `rollout.rollback`: as the audit log has it.
    pub event: String,
    pub service: String,
    pub environment: String,
    pub release: String,
    pub text: String,
}

/// Says in words why a rollout is reverted.
pub fn in_words(why: &Why) -> String {
    match why {
        Why::Breach(what) => what.clone(),
        Why::Deadline => "it took longer than its deadline".to_owned(),
        Why::Stuck(_) => "a target answers, and does not get to run the release".to_owned(),
        Why::Lost(1) => "1 target has gone silent".to_owned(),
        Why::Lost(count) => format!("{count} targets have gone silent"),
        Why::LockLost => "the deploy lock ran out".to_owned(),
        Why::Aborted(by) => format!("aborted by {by}"),
        Why::Superseded(by) => format!("superseded by {by}"),
    }
}

/// What is noted of an event, as an action and in words; `None`: nothing. `which`: the targets that a rollback begins for, or
/// what one that failed left behind, as far as that is known.
pub fn noted(event: &Event, rollout: &Rollout, which: &str) -> Option<(&'static str, String)> {
    let step = |at: &usize| rollout.steps.get(*at).cloned().unwrap_or_default();
    Some(match event {
        Event::Started => {
            ("rollout.start", format!("begins, by {}: {}", rollout.by, rollout.reason))
        }
        Event::Refused(why) => ("rollout.refuse", why.clone()),
        Event::GateBegan(at) => {
            ("rollout.gate", format!("waits for a person before the step {}", step(at)))
        }
        Event::StepBegan(at) => ("rollout.step", format!("the step {} begins", step(at))),
        Event::SoakBegan => ("rollout.soak", "all targets have it, and are watched".to_owned()),
        Event::Paused(why) => ("rollout.pause", format!("paused: {why}")),
        Event::Frozen(why) => ("rollout.freeze", format!("frozen: {why}")),
        Event::Resumed => ("rollout.resume", "goes on".to_owned()),
        Event::RollbackBegan(why) => ("rollout.rollback", with(in_words(why), which)),
        Event::Ended(end) => ("rollout.end", ended(*end, which)),
        _ => return None,
    })
}

fn ended(end: End, which: &str) -> String {
    match end {
        End::RollbackFailed => with("NOT all is restored: a person is needed".to_owned(), which),
        end => phase(Phase::Ended(end)).replace('_', " "),
    }
}

fn with(text: String, which: &str) -> String {
    if which.is_empty() { text } else { format!("{text}: {which}") }
}

pub fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

/// A line of the audit log.
pub fn line(rollout: &Rollout, action: &str, by: &str, why: &str, at: Millis) -> AuditEvent {
    let details = json!({
        "rollout": rollout.id,
        "environment": rollout.place.environment,
        "service": rollout.place.service,
        "digest": &*rollout.spec.new,
        "reason": cut(why),
    });
    AuditEvent {
        time: at / 1_000,
        actor: cut(by),
        action: action.to_owned(),
        subject: cut(&format!("{} for {}", rollout.release, rollout.place)),
        details: details.to_string(),
    }
}

/// Everything that is noted of events that begin at a number, by whoever said so. `which`: as [`noted`] has it.
pub fn of_events(
    rollout: &Rollout,
    by: &str,
    events: &[Logged],
    (first, which): (u64, &str),
) -> Vec<(AuditEvent, Notice)> {
    let of = |(number, logged): (u64, &Logged)| {
        let (action, text) = noted(&logged.event, rollout, which)?;
        let text = if rollout.drill.is_some() { format!("a drill: {text}") } else { text };
        let notice = Notice {
            rollout: rollout.id.clone(),
            number,
            at: logged.at,
            event: action.to_owned(),
            service: rollout.place.service.clone(),
            environment: rollout.place.environment.clone(),
            release: rollout.release.to_string(),
            text: cut(&text),
        };
        Some((line(rollout, action, by, &text, logged.at), notice))
    };
    (first..).zip(events).filter_map(of).collect()
}

impl Control {
    /// What is yet to be told, oldest first of each rollout. What cannot be read is removed.
    pub async fn notices(&self, limit: usize) -> Result<Vec<Notice>, ControlError> {
        Ok(news::read(&*self.store.records, keys::NOTICES, limit, decode).await?)
    }

    /// Forgets a notice: it was told, or is given up.
    pub async fn told(&self, notice: &Notice) -> Result<(), ControlError> {
        let key = keys::notice(&notice.rollout, notice.number);
        self.store.records.write(vec![delete(key)]).await?;
        Ok(())
    }
}
