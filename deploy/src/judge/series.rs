//! Points of a cohort and what is done with them before they are compared.

/// The value of a metric in each interval, in the order of time; `None`: there was none.
pub type Points = Vec<Option<f64>>;

/// What becomes of intervals without a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NanStrategy {
    #[default]
    Remove,
    /// No value means 0, as with counters of errors.
    Replace,
}

/// Values, in the order of time, and what was left out or put in to get them.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Cleaned {
    pub values: Vec<f64>,
    pub missing: usize,
    pub outliers: usize,
}

/// Applies what a metric says of missing values, and of outliers (`factor`: how many interquartile
/// ranges beyond the quartiles one is).
pub fn clean(points: &[Option<f64>], nan: NanStrategy, factor: Option<f64>) -> Cleaned {
    let missing = points.iter().filter(|point| point.is_none()).count();
    let mut values: Vec<f64> = match nan {
        NanStrategy::Remove => points.iter().flatten().copied().collect(),
        NanStrategy::Replace => points.iter().map(|point| point.unwrap_or(0.0)).collect(),
    };
    // There is one zero: -0 would be another value to whoever sorts.
    values.iter_mut().for_each(|value| *value += 0.0);
    let before = values.len();
    if let Some((low, high)) = factor.and_then(|factor| fences(&values, factor)) {
        values.retain(|value| (low..=high).contains(value));
    }
    Cleaned { outliers: before - values.len(), values, missing }
}

/// The bounds below and above which values are outliers: Tukey's fences, but never within the first and the last
/// percentile.
fn fences(values: &[f64], factor: f64) -> Option<(f64, f64)> {
    let sorted = sorted(values);
    let at = |share| quantile(&sorted, share);
    let (low, high) = (at(0.25)?, at(0.75)?);
    let reach = factor * (high - low);
    Some(((low - reach).min(at(0.01)?), (high + reach).max(at(0.99)?)))
}

pub fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
}

/// The quantile of sorted values, interpolated as R does by default (type 7).
pub fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let place = share * sorted.len().checked_sub(1)? as f64;
    let (below, part) = (place.floor(), place.fract());
    let low = *sorted.get(below as usize)?;
    let high = sorted.get(below as usize + 1).copied().unwrap_or(low);
    Some(low + part * (high - low))
}

/// The mean; NaN where there are no values.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_r() {
        let values: Vec<f64> = (0..8).map(|i| f64::from(i) / 2.0).collect();
        assert!((quantile(&values, 0.05).unwrap() - 0.175).abs() < 1e-12);
        assert_eq!(quantile(&values, 0.5), Some(1.75));
        assert_eq!(quantile(&values, 1.0), Some(3.5));
        assert_eq!(quantile(&[], 0.5), None);
    }

    #[test]
    fn missing_values_go_or_become_zero() {
        let points = [Some(1.0), None, Some(-0.0)];
        let removed = clean(&points, NanStrategy::Remove, None);
        assert_eq!((removed.values, removed.missing), (vec![1.0, 0.0], 1));
        assert_eq!(clean(&points, NanStrategy::Replace, None).values, [1.0, 0.0, 0.0]);
    }

    #[test]
    fn outliers_are_far_from_the_quartiles_and_rare() {
        let mut points: Points = (0..200).map(|i| Some(f64::from(i % 10))).collect();
        points.push(Some(1000.0));
        let cleaned = clean(&points, NanStrategy::Remove, Some(3.0));
        assert_eq!((cleaned.outliers, cleaned.values.len()), (1, 200));
        // A tenth of all is no outlier.
        let many: Points = (0..100).map(|i| Some(if i < 10 { 1e3 } else { 1.0 })).collect();
        assert_eq!(clean(&many, NanStrategy::Remove, Some(3.0)).outliers, 0);
    }
}
