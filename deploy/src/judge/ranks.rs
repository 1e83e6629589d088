//! Ranks of two samples together, in time that grows with their size.

/// What the ranks of two samples come to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RankSum {
    /// Pairs in which the first sample's value is the greater one; of equal ones, half.
    pub u: f64,
    /// The sum of t³ - t over groups of t equal values.
    pub ties: f64,
}

/// Ranks `x - shift` among `y`. Both are sorted.
pub fn rank_sum(x: &[f64], y: &[f64], shift: f64) -> RankSum {
    let (mut xs, mut ys) = (x.iter().map(|x| x - shift).peekable(), y.iter().copied().peekable());
    let (mut u, mut below, mut ties) = (0.0, 0.0, 0.0);
    loop {
        let value = match (xs.peek(), ys.peek()) {
            (Some(&x), Some(&y)) => x.min(y),
            (Some(&one), None) | (None, Some(&one)) => one,
            (None, None) => return RankSum { u, ties },
        };
        let mut a = 0.0;
        while xs.next_if(|x| *x <= value).is_some() {
            a += 1.0;
        }
        let mut b = 0.0;
        while ys.next_if(|y| *y <= value).is_some() {
            b += 1.0;
        }
        u += a * (below + b / 2.0);
        below += b;
        let group: f64 = a + b;
        ties += group * group * group - group;
        // A value that is no number is equal to nothing: it must not hold this up.
        if group == 0.0 {
            return RankSum { u: f64::NAN, ties };
        }
    }
}

/// The variance of U where there is no difference, for samples of `m` and `n` values.
pub fn variance(m: f64, n: f64, ties: f64) -> f64 {
    let all = m + n;
    m * n / 12.0 * (all + 1.0 - ties / (all * (all - 1.0)))
}

/// The rank of each value, 1 for the least; equal ones share the mean of theirs.
pub fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_unstable_by(|a, b| values[*a].total_cmp(&values[*b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for group in order.chunk_by(|a, b| values[*a] == values[*b]) {
        let rank = before as f64 + (group.len() as f64 + 1.0) / 2.0;
        group.iter().for_each(|place| ranks[*place] = rank);
        before += group.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::series::sorted;

    #[test]
    fn pairs_are_counted_as_one_by_one() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..200 {
            let mut draw = |n| (0..n).map(|_| f64::from(random.u8(0..12))).collect::<Vec<_>>();
            let (x, y) = (sorted(&draw(9)), sorted(&draw(13)));
            let pair = |x: f64, y: f64| match x.total_cmp(&y) {
                std::cmp::Ordering::Greater => 1.0,
                std::cmp::Ordering::Equal => 0.5,
                std::cmp::Ordering::Less => 0.0,
            };
            let slow: f64 =
                x.iter().map(|x| y.iter().map(|y| pair(x - 1.0, *y)).sum::<f64>()).sum();
            let shifted: Vec<f64> = x.iter().map(|x| x - 1.0).collect();
            let both = sorted(&[shifted, y.clone()].concat());
            let groups = both.chunk_by(|a, b| a == b).map(|group| group.len() as f64);
            let ties: f64 = groups.map(|t| t * t * t - t).sum();
            assert_eq!(rank_sum(&x, &y, 1.0), RankSum { u: slow, ties });
        }
    }

    #[test]
    fn equal_values_share_their_rank() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0]), [3.5, 1.0, 3.5, 2.0]);
        assert_eq!(ranks(&[]), Vec::<f64>::new());
    }
}
