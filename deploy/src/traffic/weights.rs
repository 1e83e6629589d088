//! Shares of pools as whole weights of their members.

/// A pool: which part of all requests it gets, in percent, and how many share it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Part {
    pub share: f64,
    pub members: usize,
}

/// A share that is missed by no more than this part of itself is met exactly.
const EXACT: f64 = 0.001;
/// A share may be missed by this part of itself, at most.
const TOLERANCE: f64 = 0.05;

/// A weight for the members of each part, from 1 to `most`; 0 where the share is. The smallest that come near
/// enough: balancers take turns over a whole round of them. `Err`: the nearest shares, none of which is near enough.
pub fn weights(parts: &[Part], most: u32) -> Result<Vec<u32>, Vec<f64>> {
    let each = |part: &Part| if part.share > 0.0 { part.share / part.members as f64 } else { 0.0 };
    let highest = parts.iter().map(each).fold(0.0, f64::max);
    let scaled = |scale: u32| {
        let weight = |part: &Part| match each(part) {
            0.0 => 0,
            own => (own / highest * f64::from(scale)).round().max(1.0) as u32,
        };
        parts.iter().map(weight).collect::<Vec<_>>()
    };
    let mut best: Option<(f64, Vec<u32>)> = None;
    for scale in 1..=most {
        let weights = scaled(scale);
        let missed = missed(parts, &weights);
        if best.as_ref().is_none_or(|(least, _)| missed < *least) {
            best = Some((missed, weights));
        }
        if missed <= EXACT {
            break;
        }
    }
    match best {
        Some((missed, weights)) if missed <= TOLERANCE => Ok(weights),
        Some((_, weights)) => Err(shares(parts, &weights)),
        None => Err(Vec::new()),
    }
}

/// The part of itself by which the worst share is missed.
fn missed(parts: &[Part], weights: &[u32]) -> f64 {
    let reached = shares(parts, weights);
    let wanted = parts.iter().zip(reached).filter(|(part, _)| part.share > 0.0);
    wanted.map(|(part, reached)| (part.share - reached).abs() / part.share).fold(0.0, f64::max)
}

/// The share that each part gets with these weights, in percent.
fn shares(parts: &[Part], weights: &[u32]) -> Vec<f64> {
    let of = |(part, weight): (&Part, &u32)| part.members as f64 * f64::from(*weight);
    let all: f64 = parts.iter().zip(weights).map(of).sum();
    parts.iter().zip(weights).map(|it| of(it) / all * 100.0).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(parts: &[(f64, usize)], most: u32) -> Result<Vec<u32>, Vec<f64>> {
        let part = |(share, members): &(f64, usize)| Part { share: *share, members: *members };
        weights(&parts.iter().map(part).collect::<Vec<_>>(), most)
    }

    #[test]
    fn weights_are_small_and_exact() {
        assert_eq!(of(&[(90.0, 36), (10.0, 4)], 256), Ok(vec![1, 1]));
        assert_eq!(of(&[(99.0, 1), (1.0, 1)], 256), Ok(vec![99, 1]));
        assert_eq!(of(&[(99.0, 39), (1.0, 1)], 256), Ok(vec![33, 13]));
        assert_eq!(of(&[(0.0, 3), (100.0, 2)], 256), Ok(vec![0, 1]));
        assert_eq!(of(&[(100.0, 3), (0.0, 0)], 256), Ok(vec![1, 0]));
    }

    #[test]
    fn a_share_that_is_too_small_for_the_balancer_is_told() {
        let nearest = of(&[(99.9, 1), (0.1, 1)], 256).unwrap_err();
        assert!((nearest[1] - 100.0 / 257.0).abs() < 1e-9, "{nearest:?}");
        assert_eq!(of(&[(99.9, 1), (0.1, 1)], 10_000), Ok(vec![999, 1]));
    }

    proptest! {
        #[test]
        fn shares_are_met(share in 1.0..99.0f64, new in 1usize..50, old in 1usize..50) {
            let parts = [(100.0 - share, old), (share, new)];
            let found = of(&parts, 10_000);
            let weights = found.expect("it is near enough");
            let (old, new) = (old as f64 * f64::from(weights[0]), new as f64 * f64::from(weights[1]));
            let reached = new / (old + new) * 100.0;
            let least = share.min(100.0 - share);
            let missed = (reached - share).abs() / least;
            prop_assert!(missed <= 0.0011, "{reached} of {share}: {weights:?}");
        }
    }
}
