//! How often and after what pause something is tried again.

use std::time::Duration;

use kiln_net::Backoff;

use crate::images::config::Timing;
use crate::images::problem::Problem;

pub struct Retries {
    left: u32,
    failures: u32,
    backoff: Backoff,
    longest: Duration,
}

impl Retries {
    pub fn new(timing: &Timing) -> Self {
        Self {
            left: timing.attempts.saturating_sub(1),
            failures: 0,
            backoff: Backoff::new(timing.first_pause, timing.longest_pause),
            longest: timing.longest_pause,
        }
    }

    /// Waits before the next attempt, or returns the problem that ends it. A registry that wants a
    /// longer pause than we make gets the longest.
    pub async fn pause(&mut self, problem: Problem) -> Result<(), Problem> {
        let Problem::Passing { text, after } = problem else { return Err(problem) };
        if self.left == 0 {
            return Err(Problem::Passing { text, after });
        }
        self.left -= 1;
        self.failures += 1;
        let pause = after.unwrap_or_else(|| self.backoff.pause(self.failures)).min(self.longest);
        tracing::debug!(?pause, problem = text, "trying again");
        tokio::time::sleep(pause).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    fn timing() -> Timing {
        Timing {
            attempts: 4,
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(3),
            ..Timing::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow_and_end() {
        let (mut retries, start) = (Retries::new(&timing()), Instant::now());
        for _ in 0..3 {
            retries.pause(Problem::passing("busy")).await.unwrap();
        }
        let passed = start.elapsed().as_secs_f64();
        assert!((3.0..=6.1).contains(&passed), "{passed}");
        assert_eq!(retries.pause(Problem::passing("busy")).await, Err(Problem::passing("busy")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_may_ask_for_a_pause_but_not_for_an_age() {
        let (mut retries, start) = (Retries::new(&timing()), Instant::now());
        let after = Some(Duration::from_secs(3600));
        retries.pause(Problem::Passing { text: "busy".into(), after }).await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 3);
        let fatal = Problem::Final("gone".into());
        assert_eq!(retries.pause(fatal.clone()).await, Err(fatal));
    }
}
