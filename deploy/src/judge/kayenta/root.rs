//! The root finder of R (`uniroot`, after Brent and Dekker), with the tolerance that R's
//! `wilcox.test` gives it. Kayenta's published intervals are reproduced by no other: on data of a small
//! scale they are as coarse as this tolerance.

/// The absolute tolerance of a root.
const TOLERANCE: f64 = 1e-4;
/// Steps after which whatever was found is taken.
const STEPS: u32 = 1_001;

/// A point of a bracket and the function's value there.
#[derive(Clone, Copy)]
struct At {
    x: f64,
    f: f64,
}

/// The point at which `function`, which falls from `low` to `high`, crosses zero.
pub fn root(low: f64, high: f64, function: impl Fn(f64) -> f64) -> f64 {
    let at = |x: f64| At { x, f: function(x) };
    // The best guess is `b`, the one before it `a`; the root is between `b` and `c`.
    let (mut a, mut b) = (at(low), at(high));
    let mut c = a;
    for _ in 0..STEPS {
        if a.f == 0.0 {
            return a.x;
        }
        let before = b.x - a.x;
        if c.f.abs() < b.f.abs() {
            (a, b, c) = (b, c, b);
        }
        let tolerance = 2.0 * f64::EPSILON * b.x.abs() + TOLERANCE / 2.0;
        let halved = (c.x - b.x) / 2.0;
        if halved.abs() <= tolerance || b.f == 0.0 {
            return b.x;
        }
        let may_interpolate = before.abs() >= tolerance && a.f.abs() > b.f.abs();
        let step = if may_interpolate { interpolated(a, b, c, before, tolerance) } else { None };
        let step = step.unwrap_or(halved);
        let least = if step > 0.0 { tolerance } else { -tolerance };
        a = b;
        b = at(b.x + if step.abs() < tolerance { least } else { step });
        if (b.f > 0.0 && c.f > 0.0) || (b.f < 0.0 && c.f < 0.0) {
            c = a;
        }
    }
    b.x
}

/// A step by a line through two points, or by a parabola through three, where it stays within the
/// bracket and is not too long.
fn interpolated(a: At, b: At, c: At, before: f64, tolerance: f64) -> Option<f64> {
    let width = c.x - b.x;
    let (p, q) = if a.x == c.x {
        let ratio = b.f / a.f;
        (width * ratio, 1.0 - ratio)
    } else {
        let (q, t1, t2) = (a.f / c.f, b.f / c.f, b.f / a.f);
        let p = t2 * (width * q * (q - t1) - (b.x - a.x) * (t1 - 1.0));
        (p, (q - 1.0) * (t1 - 1.0) * (t2 - 1.0))
    };
    let (p, q) = if p > 0.0 { (p, -q) } else { (-p, q) };
    let fits = p < 0.75 * width * q - (tolerance * q).abs() / 2.0 && p < (before * q / 2.0).abs();
    fits.then(|| p / q)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_found_within_the_tolerance() {
        assert!((root(0.0, 3.0, |x| 2.0 - x * x) - 2.0_f64.sqrt()).abs() < 1e-4);
        assert_eq!(root(1.0, 3.0, |x| 1.0 - x), 1.0);
        assert_eq!(root(0.0, 1.0, |x| 1.0 - x), 1.0);
    }

    #[test]
    fn it_ends_whatever_the_function_is() {
        let steps = std::cell::Cell::new(0);
        root(-1e300, 1e300, |_| {
            steps.set(steps.get() + 1);
            f64::NAN
        });
        assert!(steps.get() <= STEPS + 2);
    }
}
