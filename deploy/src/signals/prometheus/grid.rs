//! The moments at which both cohorts are looked at: the same for both.

use std::time::Duration;

use crate::judge::Points;
use crate::rollouts::parts::Window;

/// Prometheus refuses more of a series.
const MAX_POINTS: u64 = 11_000;
/// Intervals at the end without a value, from which on what there is is old.
const STALE: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Grid {
    /// Unix milliseconds of the end of the first interval.
    pub first: u64,
    pub last: u64,
    /// Milliseconds, at least 1.
    pub step: u64,
    pub points: usize,
}

impl Grid {
    /// `Err`: what is wrong with a window, in words.
    pub fn of(window: &Window) -> Result<Self, String> {
        let step = u64::try_from(window.step.as_millis()).unwrap_or(u64::MAX).max(1);
        let points = window.to.saturating_sub(window.from) / step;
        if points == 0 {
            return Err("the window is shorter than one interval".to_owned());
        }
        if points > MAX_POINTS {
            return Err(format!(
                "the window has {points} intervals; at most {MAX_POINTS} are asked for"
            ));
        }
        let last = window.from + points * step;
        Ok(Self { first: window.from + step, last, step, points: points as usize })
    }

    /// Values by their time, in seconds, at their places. Not numbers, or no finite ones: no value. `Err`: a time that was
    /// not asked for.
    pub fn place(&self, values: &[(f64, f64)]) -> Result<Points, String> {
        let mut points: Points = vec![None; self.points];
        for (time, value) in values {
            let at = (time * 1000.0 - self.first as f64) / self.step as f64;
            let near = (at - at.round()).abs() * (self.step as f64) <= 1.0 && at.round() >= 0.0;
            match points.get_mut(at.round() as usize).filter(|_| near) {
                Some(point) => *point = Some(*value).filter(|value| value.is_finite()),
                None => return Err(format!("it has a value at {time}, which was not asked for")),
            }
        }
        Ok(points)
    }

    /// How old the last value is, where it is older than it should be.
    pub fn stale(&self, points: &Points) -> Option<Duration> {
        let last = points.iter().rposition(Option::is_some)?;
        let missing = self.points.saturating_sub(last + 1);
        (missing > STALE).then(|| Duration::from_millis(missing as u64 * self.step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid(seconds: u64) -> Grid {
        let window = Window {
            from: 1_000_500,
            to: 1_000_500 + seconds * 1000,
            step: Duration::from_secs(10),
        };
        Grid::of(&window).unwrap()
    }

    #[test]
    fn values_are_put_where_they_belong() {
        let grid = grid(65);
        assert_eq!((grid.first, grid.last, grid.points), (1_010_500, 1_060_500, 6));
        let values = [(1010.5, 1.0), (1030.5, 3.0), (1040.5, f64::NAN), (1060.5, f64::INFINITY)];
        let points = grid.place(&values).unwrap();
        assert_eq!(points, [Some(1.0), None, Some(3.0), None, None, None]);
        for bad in [1000.5, 1015.0, 1070.5, f64::NAN, -1.0, 1e300] {
            assert!(grid.place(&[(bad, 1.0)]).is_err(), "{bad}");
        }
    }

    #[test]
    fn old_values_are_told_from_few() {
        let grid = grid(100);
        let until = |last: usize| (0..10).map(|at| (at <= last).then_some(1.0)).collect::<Points>();
        assert_eq!(grid.stale(&until(9)), None);
        assert_eq!(grid.stale(&until(6)), None);
        assert_eq!(grid.stale(&until(5)), Some(Duration::from_secs(40)));
        assert_eq!(grid.stale(&vec![None; 10]), None);
    }

    #[test]
    fn windows_have_an_end() {
        let window = |to, step| Window { from: 5, to, step: Duration::from_secs(step) };
        assert!(Grid::of(&window(4, 1)).is_err() && Grid::of(&window(1_004, 1)).is_err());
        assert!(Grid::of(&window(20_000_000, 1)).unwrap_err().contains("at most 11000"));
        assert!(Grid::of(&window(u64::MAX, 0)).is_err());
    }
}
