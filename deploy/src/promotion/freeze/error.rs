//! Why there is no such window.

use jiff::civil::Date;

use super::rule::RuleError;

/// Why there is no such window.
#[derive(Debug, thiserror::Error)]
pub enum FreezeError {
    #[error("zone: {0:?} is no zone such as Europe/Berlin or UTC")]
    Zone(String),
    #[error("start: {0:?} is no time such as 2026-01-02T17:00, which is of the zone")]
    Start(String),
    #[error("lasts: {0:?} is no time such as 90m, 63h or 3d; at most 366 days")]
    Lasts(String),
    #[error("rule")]
    Rule(#[from] RuleError),
    #[error("start: {0} is no day of the rule")]
    NotOfRule(Date),
    #[error("except: {0:?} is no day such as 2026-12-24")]
    Except(String),
}
