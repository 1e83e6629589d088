//! How busy the workers were: computed from the times of executions, so that nothing has to
//! be sampled.

use kiln_protos::events::Timeline;
use kiln_scheduler::Snapshot;
use kiln_scheduler::journal::Stage;
use maud::{Markup, html};

use crate::design::chart::{WIDTH, grid, num, round_up, scaled};
use crate::format::{clock, count};

const BUCKETS: usize = 120;
const HEIGHT: f64 = 160.0;
const MINUTE: i64 = 60_000_000_000;
/// Windows to choose from, in minutes.
const WINDOWS: [i64; 5] = [5, 15, 30, 60, 180];

/// Average number of waiting and of running actions in each part of a window.
pub struct Activity {
    pub start: i64,
    pub end: i64,
    pub queued: Vec<f64>,
    pub running: Vec<f64>,
}

impl Activity {
    /// What workers did up to `now`, in the shortest window that holds all of `runs`, or the longest.
    pub fn of(runs: &[Timeline], snapshot: &Snapshot, now: i64) -> Self {
        let oldest = runs.iter().map(|t| t.queued).filter(|at| *at > 0).min().unwrap_or(now);
        let minutes = WINDOWS
            .into_iter()
            .find(|minutes| now - oldest <= minutes * MINUTE)
            .unwrap_or(WINDOWS[WINDOWS.len() - 1]);
        let mut activity = Self {
            start: now - minutes * MINUTE,
            end: now,
            queued: vec![0.0; BUCKETS],
            running: vec![0.0; BUCKETS],
        };
        for t in runs {
            if let Some((from, to)) = Stage::Queue.span_of_finished(t) {
                activity.add(from, to, false);
            }
            // What is over has ended, even if the end of its last step is not known.
            activity.add(t.leased, t.finished.max(t.upload_end), true);
        }
        let since =
            |for_ms: u64| now.saturating_sub(i64::try_from(for_ms).unwrap_or(0) * 1_000_000);
        for waiting in &snapshot.queued {
            activity.add(since(waiting.for_ms), now, false);
        }
        for running in &snapshot.running {
            let leased = since(running.for_ms);
            activity.add(since(running.for_ms.saturating_add(running.waited_ms)), leased, false);
            activity.add(leased, now, true);
        }
        activity
    }

    /// Adds one action from `from` to `to`.
    fn add(&mut self, from: i64, to: i64, running: bool) {
        if from <= 0 || to <= from || to <= self.start {
            return;
        }
        let width = ((self.end - self.start) / BUCKETS as i64).max(1);
        let (from, to) = (from.max(self.start), to.min(self.end));
        let series = if running { &mut self.running } else { &mut self.queued };
        let first = ((from - self.start) / width) as usize;
        let last = ((to - self.start) / width) as usize;
        for (i, value) in series.iter_mut().enumerate().take(last + 1).skip(first) {
            let begin = self.start + i as i64 * width;
            let overlap = to.min(begin + width) - from.max(begin);
            *value += overlap.max(0) as f64 / width as f64;
        }
    }

    pub fn peak(&self) -> f64 {
        self.queued.iter().chain(&self.running).copied().fold(0.0, f64::max)
    }

    pub fn is_empty(&self) -> bool {
        self.peak() == 0.0
    }

    /// Running actions as an area below the number of slots, waiting ones as a line.
    pub fn chart(&self, slots: u64) -> Markup {
        let most = round_up(self.peak().max(slots as f64).ceil() as u64);
        let top = most as f64;
        let y = |value: f64| HEIGHT - value / top * HEIGHT;
        let step = WIDTH / BUCKETS as f64;
        let points = |series: &[f64]| {
            let point = |(i, value): (usize, &f64)| {
                format!("{},{}", num((i as f64 + 0.5) * step), num(y(*value)))
            };
            series.iter().enumerate().map(point).collect::<Vec<_>>().join(" ")
        };
        let area = format!("0,{HEIGHT} {} {WIDTH},{HEIGHT}", points(&self.running));
        let limit = num(y(slots as f64));
        let chart = html! {
            svg.chart viewBox={ "0 0 1000 " (HEIGHT) } preserveAspectRatio="none" role="img"
                aria-label="Running and waiting actions over time" {
                (grid(HEIGHT))
                polygon.run points=(area) {}
                @if slots > 0 { line.limit x1="0" x2="1000" y1=(limit) y2=(limit) {} }
                polyline.waiting points=(points(&self.queued)) {}
            }
        };
        let actions = [most, most / 2, 0].map(count);
        let middle = i64::midpoint(self.start, self.end);
        let times = [clock(self.start), clock(middle), format!("{} UTC", clock(self.end))];
        scaled(&chart, &actions, None, &times)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_worker_took_waited_to_its_end() {
        let now = 100 * MINUTE;
        let run =
            Timeline { queued: now - 4 * MINUTE, finished: now - MINUTE, ..Timeline::default() };
        let activity = Activity::of(&[run], &Snapshot::default(), now);
        let minutes = |series: &[f64]| series.iter().sum::<f64>() * 5.0 / BUCKETS as f64;
        assert!((minutes(&activity.queued) - 3.0).abs() < 0.01, "{:?}", activity.queued);
        assert!(minutes(&activity.running) < 0.01);
    }

    #[test]
    fn what_runs_all_the_time_counts_as_one_everywhere() {
        let mut activity = Activity {
            start: 1_000,
            end: 1_000 + BUCKETS as i64 * 10,
            queued: vec![0.0; BUCKETS],
            running: vec![0.0; BUCKETS],
        };
        activity.add(1, i64::MAX, true);
        assert!(activity.running.iter().all(|value| (*value - 1.0).abs() < 1e-9));
        activity.add(1_005, 1_020, false);
        assert_eq!(activity.queued[..3], [0.5, 1.0, 0.0]);
        activity.add(1_005, 1_005, false);
        activity.add(0, 5_000, false);
        assert_eq!(activity.queued[..3], [0.5, 1.0, 0.0]);
    }
}
