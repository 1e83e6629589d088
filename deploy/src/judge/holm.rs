//! Many metrics are many chances to be wrong. Holm's correction keeps the chance of any false alarm
//! in a judgement at what one metric alone may have.

/// What each p-value counts for when all are taken together, in the same order.
pub fn adjusted(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut adjusted = vec![1.0; values.len()];
    let mut least: f64 = 0.0;
    for (before, place) in order.into_iter().enumerate() {
        least = least.max(values[place] * (values.len() - before) as f64).min(1.0);
        adjusted[place] = least;
    }
    adjusted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_r_adjusts() {
        // R: p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")
        let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12);
        assert!(close(&adjusted(&[0.01, 0.04, 0.03, 0.005]), &[0.03, 0.06, 0.06, 0.02]));
        assert_eq!(adjusted(&[0.5]), [0.5]);
        assert_eq!(adjusted(&[0.9, 0.9]), [1.0, 1.0]);
        assert_eq!(adjusted(&[]), Vec::<f64>::new());
    }
}
