//! Builds that told of themselves, by what is known of them.

use kiln_ci::events::{EventLog, LogError, Noted, Summary};
use serde::Deserialize;

use crate::error::WebError;
use crate::format::{encode, short};

/// Builds that are looked through for one answer, and how many are read at once.
const MAX_LOOKED_AT: usize = 5000;
const AT_ONCE: usize = 250;
/// Longest text that is looked for, in characters.
const MAX_TEXT: usize = 200;

pub const OUTCOMES: [(&str, &str); 4] =
    [("", "all outcomes"), ("succeeded", "succeeded"), ("failed", "failed"), ("open", "going on")];

/// What stands in the address. Texts are parts of what they are looked for in.
#[derive(Deserialize, Default, Clone, schemars::JsonSchema)]
pub struct Search {
    #[serde(default)]
    pub user: String,
    #[serde(default)]
    pub branch: String,
    /// The beginning of a commit's hash.
    #[serde(default)]
    pub commit: String,
    /// The command of the builds that are listed, as a whole: `test`; empty: any.
    #[serde(default)]
    pub command: String,
    /// Part of a pattern that was asked for, or of what failed first.
    #[serde(default)]
    pub target: String,
    #[serde(default)]
    pub outcome: String,
    /// Set: builds that told of themselves, though nothing else is asked for.
    pub told: Option<String>,
    /// Builds that began before this one.
    #[serde(default)]
    pub before: String,
    /// How many builds an answer for programs has at most; pages do not use it.
    pub limit: Option<usize>,
}

pub struct Found {
    pub builds: Vec<Noted>,
    /// The `before` of the next page.
    pub next: Option<String>,
}

impl Search {
    fn fields(&self) -> [(&'static str, &str); 6] {
        [
            ("user", &self.user),
            ("branch", &self.branch),
            ("commit", &self.commit),
            ("command", &self.command),
            ("target", &self.target),
            ("outcome", &self.outcome),
        ]
    }

    pub fn is_used(&self) -> bool {
        self.told.is_some() || self.fields().iter().any(|(_, value)| !value.is_empty())
    }

    pub fn check(&self) -> Result<(), WebError> {
        if OUTCOMES.iter().any(|(name, _)| *name == self.outcome) {
            return Ok(());
        }
        let message = format!("outcome {:?} is not known", short(&self.outcome, 60));
        Err(WebError::invalid(message, "There are succeeded, failed, open."))
    }

    /// The newest that are so, at most `limit`.
    pub async fn find(&self, streams: &EventLog, limit: usize) -> Result<Found, LogError> {
        let mut before = Some(self.before.clone()).filter(|it| !it.is_empty());
        let mut builds = Vec::new();
        let mut looked_at = 0;
        loop {
            let page = streams.builds(before.as_deref(), AT_ONCE).await?;
            let is_last = page.len() < AT_ONCE;
            looked_at += page.len();
            for it in page {
                before = Some(it.place.clone());
                if self.is_wanted(&it.summary) {
                    builds.push(it);
                }
                if builds.len() == limit {
                    return Ok(Found { builds, next: before });
                }
            }
            if is_last || looked_at >= MAX_LOOKED_AT {
                return Ok(Found { builds, next: before.filter(|_| !is_last) });
            }
        }
    }

    fn is_wanted(&self, it: &Summary) -> bool {
        let has = |text: &str, part: &str| text.to_lowercase().contains(&part.to_lowercase());
        let of = |text: &Option<String>, part: &str| {
            part.is_empty() || text.as_ref().is_some_and(|text| has(text, part))
        };
        let begins = |text: &Option<String>, part: &str| {
            part.is_empty() || text.as_ref().is_some_and(|text| text.starts_with(part))
        };
        let mut targets = it.patterns.iter().chain(&it.first_failure);
        let outcome = match (&it.exit_code, it.is_complete) {
            (Some((0, _)), _) => "succeeded",
            (None, false) => "open",
            _ => "failed",
        };
        of(&it.origin.user, &self.user)
            && of(&it.origin.branch, &self.branch)
            && begins(&it.origin.commit, &self.commit)
            && (self.command.is_empty() || self.command == it.command)
            && (self.target.is_empty() || targets.any(|text| has(text, &self.target)))
            && (self.outcome.is_empty() || self.outcome == outcome)
    }

    /// The next page of what is found.
    pub fn link(&self, before: &str) -> String {
        let mut link = format!("/builds?told=1&before={}", encode(before, false));
        for (name, value) in self.fields().into_iter().filter(|(_, value)| !value.is_empty()) {
            link.push_str(&format!("&{name}={}", encode(&short(value, MAX_TEXT), false)));
        }
        link
    }
}
