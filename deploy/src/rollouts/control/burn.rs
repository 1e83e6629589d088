//! Budgets of errors and how fast they burn, in a long window and in a short one, which says that they still do (the SRE
//! Workbook's chapter on alerting).

use std::time::Duration;

use crate::judge::{Burn, Counts};
use crate::rollouts::parts::{Asked, Cohorts, Measured, Query, Signals, Window};

/// Pairs of windows of a budget.
pub const MAX_WINDOWS: usize = 8;

/// The pace from which on a budget burns too fast, if it does in both windows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BurnWindow {
    pub long: Duration,
    pub short: Duration,
    pub factor: f64,
}

/// A fiftieth of a month's budget in an hour, and a twentieth in six.
pub const STANDARD: [BurnWindow; 2] = [
    BurnWindow { long: Duration::from_secs(3_600), short: Duration::from_secs(300), factor: 14.4 },
    BurnWindow {
        long: Duration::from_secs(6 * 3_600),
        short: Duration::from_secs(1_800),
        factor: 6.0,
    },
];

/// How fast the canary burns its budget, for each pair of windows that end with what is asked. `objective`: the share
/// of events that must be good. `Err`: why nothing is known, in words.
pub async fn burn(
    signals: &dyn Signals,
    asked: &Asked,
    objective: f64,
    windows: &[BurnWindow],
) -> Result<Vec<Burn>, String> {
    if !matches!(asked.query, Query::Counts { .. }) {
        return Err("a budget needs counts: bad events out of all".to_owned());
    }
    if windows.len() > MAX_WINDOWS {
        return Err(format!("{} pairs of windows; at most {MAX_WINDOWS} are", windows.len()));
    }
    let mut burns = Vec::new();
    for window in windows {
        burns.push(Burn {
            name: asked.metric.clone(),
            objective,
            factor: window.factor,
            long: canary(signals, asked, window.long).await?,
            short: canary(signals, asked, window.short).await?,
        });
    }
    Ok(burns)
}

/// Counts of the canary alone. What is not there is no traffic: a budget neither burns nor is kept.
async fn canary(signals: &dyn Signals, asked: &Asked, length: Duration) -> Result<Counts, String> {
    let to = asked.window.to;
    let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
    let mut cohorts: Cohorts = asked.cohorts.clone();
    cohorts.baseline.targets.clear();
    // Before that the same targets ran the old version, whose errors are none of the canary's.
    let from = to.saturating_sub(length_ms).max(asked.window.from);
    let step = Duration::from_millis(to.saturating_sub(from));
    let window = Window { from, to, step };
    let asked = Asked { cohorts, window, ..asked.clone() };
    match signals.measure(&asked).await {
        Measured::Counts { canary, .. } => Ok(canary),
        Measured::Missing(_) => Ok(Counts::default()),
        Measured::Failed(why) => Err(why),
        Measured::Points { .. } => Err("a budget needs counts, and it gave values".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use async_trait::async_trait;

    use super::*;
    use crate::oci::ContentDigest;
    use crate::rollouts::parts::{Cohort, Place, Target};

    /// Counts of both versions in the time between these, in milliseconds.
    fn asked(from: u64, to: u64) -> Asked {
        let cohort = |version: &str, target: &str| Cohort {
            version: ContentDigest::of(version.as_bytes()),
            targets: vec![Target {
                name: target.to_owned(),
                address: None,
                labels: BTreeMap::new(),
            }],
        };
        Asked {
            place: Place { service: "api".to_owned(), environment: "prod".to_owned() },
            metric: "errors".to_owned(),
            query: Query::Counts { bad: String::new(), total: String::new() },
            cohorts: Cohorts { canary: cohort("new", "c"), baseline: cohort("old", "a") },
            window: Window { from, to, step: Duration::from_secs(15) },
        }
    }

    /// Answers by the length of the window in seconds.
    struct ByWindow(fn(u64) -> Measured);

    #[async_trait]
    impl Signals for ByWindow {
        async fn measure(&self, asked: &Asked) -> Measured {
            assert!(asked.cohorts.baseline.targets.is_empty());
            (self.0)((asked.window.to - asked.window.from) / 1000)
        }
    }

    async fn of(answers: fn(u64) -> Measured) -> Result<Vec<Burn>, String> {
        burn(&ByWindow(answers), &asked(0, 100_000_000), 0.999, &STANDARD).await
    }

    fn counts(bad: u64, total: u64) -> Measured {
        Measured::Counts { canary: Counts { bad, total }, baseline: Counts::default() }
    }

    #[tokio::test]
    async fn what_ran_before_the_canary_burns_none_of_its_budget() {
        let asked = asked(99_400_000, 100_000_000);
        let before =
            |seconds: u64| if seconds > 600 { counts(20, 1_000) } else { counts(0, 1_000) };
        let burns = burn(&ByWindow(before), &asked, 0.999, &STANDARD).await.unwrap();
        assert!(burns.iter().all(|it| it.long.bad == 0 && it.short.bad == 0), "{burns:?}");
    }

    #[tokio::test]
    async fn a_budget_burns_in_both_windows_or_not() {
        let burns = of(|_| counts(20, 1_000)).await.unwrap();
        assert!(burns.iter().all(|it| it.breach().is_some()), "{burns:?}");
        // It was bad an hour ago, and is not any more.
        let over =
            of(|seconds| if seconds >= 3_600 { counts(20, 1_000) } else { counts(0, 1_000) });
        assert!(over.await.unwrap().iter().all(|it| it.breach().is_none()));
        let burns = of(|seconds| match seconds {
            300 => Measured::Missing("none".to_owned()),
            _ => counts(0, 1_000),
        });
        let burns = burns.await.unwrap();
        assert!(burns[0].is_silent() && !burns[1].is_silent());
        assert_eq!(of(|_| Measured::Failed("502".to_owned())).await, Err("502".to_owned()));
    }
}
