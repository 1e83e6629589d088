//! What is known of flaky tests, and what became of those in quarantine.

use std::borrow::Cow;

use kiln_ci::attempts::Attempt;
use kiln_ci::flakes::{Flip, Tier, Verdict};
use kiln_ci::verdicts::{CaseRecord, Masked, Suspect};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::audit::AuditEntry;
use super::suite::{nanos, outcome};
use super::verdicts::SubjectName;

/// What `GET /api/v1/tests/flakes` answers: tests that failed and passed with equal inputs.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Flakes {
    /// How many tests were looked through.
    pub tests: usize,
    /// Whether there are more tests or suspects than are looked at.
    pub is_cut: bool,
    /// Tests of this page: first those that are called flaky, then by evidence and rate.
    pub flakes: Vec<Flake>,
    /// How many flaky or suspected tests there are on all pages.
    pub total: usize,
    pub next_page: Option<usize>,
    /// Failures that are run again, or were: the newest of each test, newest first.
    pub judged: Vec<Judged>,
    /// Worker time that shadow runs took today, in milliseconds.
    pub shadow_ms_today: u64,
}

/// A test, or a case, that there is evidence against.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Flake {
    #[serde(flatten)]
    pub test: SubjectName,
    /// Address of the page that shows the test.
    pub page: String,
    /// `flaky`: failed and passed with equal inputs twice, an hour apart, or four times; else `suspected`.
    pub standing: Cow<'static, str>,
    /// The strongest: `proven`, `across_seeds`, `same_target` or `suspected`.
    pub evidence: Cow<'static, str>,
    /// Failures that a pass with equal inputs and seed followed, and the commits that they were in.
    pub flips: usize,
    pub commits: usize,
    /// Passes of the last 14 days. Of the failures beside them only those count that a pass with equal inputs followed.
    pub passes: u32,
    pub failures: u32,
    pub timeouts: u32,
    /// Failures for which the surroundings are to blame.
    pub excused: u32,
    /// The share of its runs that is expected to fail.
    pub rate: f64,
    /// The probability that the rate is above 2 %.
    pub above_2_percent: f64,
    /// Passes of the test since its last failure.
    pub clean_runs: u32,
    #[serde(with = "super::time")]
    #[schemars(with = "Option<String>")]
    pub last_failure_at: i64,
    pub owner: Option<String>,
    pub is_quarantined: bool,
    /// The newest failures that a pass with equal inputs followed, newest first.
    pub newest: Vec<FlakeFlip>,
    /// The last run that the server made of the test by itself (a shadow run); `null` where there was none lately.
    pub shadow: Option<ShadowRun>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct FlakeFlip {
    #[serde(with = "super::time")]
    #[schemars(with = "Option<String>")]
    pub at: i64,
    pub commit: Option<String>,
    pub evidence: Cow<'static, str>,
    pub signature: Option<String>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct ShadowRun {
    #[serde(with = "super::time")]
    #[schemars(with = "Option<String>")]
    pub at: i64,
    /// Why the server ran the test: `shadow-decide`, `shadow-control` or `shadow-probe`.
    pub strategy: String,
    pub outcome: Cow<'static, str>,
    pub worker: String,
}

/// A failure, and what came of it so far.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Judged {
    #[serde(flatten)]
    pub test: SubjectName,
    pub page: String,
    #[serde(with = "super::time")]
    #[schemars(with = "Option<String>")]
    pub failed_at: i64,
    /// What the failure turned out to be so far: `flaky`, `broken` or `undecided`.
    pub verdict: Cow<'static, str>,
    /// The probability that the test fails always.
    pub broken: f64,
    /// Failures in a row with equal inputs, and passes since the first of them.
    pub straight: u32,
    pub passes: u32,
    /// Shadow runs that the failure has cost so far.
    pub shadow_runs: u32,
    /// Whether the verdict is final, so that nothing more will be tried.
    pub is_settled: bool,
    pub owner: Option<String>,
}

/// What `GET /api/v1/tests/quarantine/history` answers: what became of the quarantine, and what it let pass.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct QuarantineHistory {
    /// Changes of the quarantine, as the audit log has them, newest first.
    pub changes: Vec<AuditEntry>,
    /// Failures that gates let pass, newest first.
    pub masked: Vec<MaskedFailure>,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct MaskedFailure {
    #[serde(flatten)]
    pub test: SubjectName,
    #[serde(with = "super::time")]
    #[schemars(with = "Option<String>")]
    pub at: i64,
    pub invocation: String,
    /// What the gate found, and on what evidence, in words.
    pub text: String,
    pub is_quarantined: bool,
}

pub fn tier_name(tier: Tier) -> &'static str {
    match tier {
        Tier::Suspected => "suspected",
        Tier::SameTarget => "same_target",
        Tier::AcrossSeeds => "across_seeds",
        Tier::Proven => "proven",
    }
}

impl Flake {
    pub fn new(it: &Suspect, page: String) -> Self {
        Self {
            test: SubjectName::from(&it.subject),
            page,
            standing: if it.is_flaky { "flaky" } else { "suspected" }.into(),
            evidence: tier_name(it.tier).into(),
            flips: it.flips,
            commits: it.commits,
            passes: it.passes,
            failures: it.failures,
            timeouts: it.timeouts,
            excused: it.excused,
            rate: it.rate,
            above_2_percent: it.above,
            clean_runs: it.clean,
            last_failure_at: it.last_failure.map_or(0, nanos),
            owner: None,
            is_quarantined: false,
            newest: it.newest.iter().map(FlakeFlip::from).collect(),
            shadow: None,
        }
    }
}

impl From<&Flip> for FlakeFlip {
    fn from(it: &Flip) -> Self {
        Self {
            at: nanos(it.at),
            commit: it.commit.clone(),
            evidence: tier_name(it.tier).into(),
            signature: it.signature.map(|it| it.to_string()),
        }
    }
}

impl From<&Attempt> for ShadowRun {
    fn from(it: &Attempt) -> Self {
        let (strategy, worker) = (it.strategy.clone(), it.worker.clone());
        Self { at: nanos(it.started), strategy, outcome: outcome(it.outcome).into(), worker }
    }
}

impl Judged {
    pub fn new(it: &CaseRecord, page: String) -> Self {
        let verdict = match it.judgement.verdict {
            Verdict::Flaky => "flaky",
            Verdict::Broken => "broken",
            Verdict::Undecided => "undecided",
        };
        Self {
            test: SubjectName::from(&it.case.fresh.subject),
            page,
            failed_at: nanos(it.at),
            verdict: verdict.into(),
            broken: it.judgement.broken,
            straight: it.tries.straight,
            passes: it.tries.passes,
            shadow_runs: it.runs,
            is_settled: it.settled,
            owner: None,
        }
    }
}

impl From<&Masked> for MaskedFailure {
    fn from(it: &Masked) -> Self {
        Self {
            test: SubjectName::from(&it.subject),
            at: nanos(it.at),
            invocation: it.invocation.clone(),
            text: it.text.clone(),
            is_quarantined: it.is_quarantined,
        }
    }
}
