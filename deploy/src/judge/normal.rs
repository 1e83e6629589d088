//! The standard normal distribution.

use std::f64::consts::SQRT_2;

use statrs::function::erf::{erfc, erfc_inv};

/// How likely a value of at least `z` is.
pub fn above(z: f64) -> f64 {
    erfc(z / SQRT_2) / 2.0
}

/// The value that `share` of all are above.
pub fn exceeded_by(share: f64) -> f64 {
    SQRT_2 * erfc_inv(2.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        assert!((exceeded_by(0.025) - 1.959_963_984_540_054).abs() < 1e-9);
        assert!((exceeded_by(0.01) - 2.326_347_874_040_841).abs() < 1e-9);
        assert!((above(1.959_963_984_540_054) - 0.025).abs() < 1e-10);
        assert!((above(-8.0) - 1.0).abs() < 1e-12);
        assert!((above(6.0) - 9.865_876_450_377e-10).abs() < 1e-15);
    }
}
