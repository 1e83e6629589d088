//! How many changes are tested at once, and where a batch that failed is cut.
//!
//! A test of a prefix asks: is the first bad change in it? Each passing prefix lands, each failing one is cut
//! again; what lies behind it is put back untested. The first bad change's place is geometric, and the batch's
//! size is Golomb's parameter for it, which asks the fewest questions that any code with whole ones can.

/// Most changes of a batch.
pub const MAX_BATCH: usize = 128;

/// The best size of a batch where changes are bad with this probability: the least m with q^m + q^(m+1) <= 1.
pub fn batch(bad: f64) -> usize {
    let good = 1.0 - bad.clamp(1e-6, 1.0 - 1e-6);
    let size = ((1.0 + good).ln() / -good.ln()).ceil();
    // Neither negative nor a fraction by now; a float beyond the range is cut to it.
    (size.max(1.0) as usize).min(MAX_BATCH)
}

/// How long a prefix of a batch that failed is tested next: 1 to `weights.len()`. Weights say how likely each
/// is to be the first bad one, `none` how likely it is that none is; they need not sum to 1. The whole batch
/// is tested again where that is the best question.
pub fn first_cut(weights: &[f64], none: f64) -> usize {
    let mut leaves: Vec<f64> = weights.iter().map(|it| it.max(1e-12)).collect();
    if none > 0.0 {
        leaves.push(none);
    }
    Tree::of(&leaves).cut
}

/// The alphabetic tree with the least expected depth (Knuth 1971: the best roots are monotone).
struct Tree {
    cut: usize,
}

impl Tree {
    fn of(leaves: &[f64]) -> Self {
        let n = leaves.len();
        let mut sums = vec![0.0_f64; n + 1];
        for (at, leaf) in leaves.iter().enumerate() {
            sums[at + 1] = sums[at] + leaf;
        }
        let place = |from: usize, to: usize| from * n + to;
        let mut cost = vec![0.0_f64; n * n];
        let mut root: Vec<usize> = (0..n * n).map(|it| it / n.max(1)).collect();
        for length in 2..=n {
            for from in 0..=n - length {
                let to = from + length - 1;
                let first = root[place(from, to - 1)].max(from);
                let last = root[place(from + 1, to)].min(to - 1).max(first);
                let of = |at: usize| cost[place(from, at)] + cost[place(at + 1, to)];
                let best = (first..=last).min_by(|one, other| of(*one).total_cmp(&of(*other)));
                let best = best.unwrap_or(from);
                cost[place(from, to)] = of(best) + sums[to + 1] - sums[from];
                root[place(from, to)] = best;
            }
        }
        let cut = if n < 2 { 1 } else { root[place(0, n - 1)] + 1 };
        Self { cut }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometric(bad: f64, n: usize) -> Vec<f64> {
        std::iter::successors(Some(bad), |it| Some(it * (1.0 - bad))).take(n).collect()
    }

    /// Expected runs until the first bad one of a failed batch is known.
    fn runs(weights: &[f64]) -> f64 {
        if weights.len() < 2 {
            return 0.0;
        }
        let (left, right) = weights.split_at(first_cut(weights, 0.0));
        weights.iter().sum::<f64>() + runs(left) + runs(right)
    }

    #[test]
    fn runs_per_change_come_near_the_entropy() {
        for (bad, size, published) in [(0.01, 69, 0.0811), (0.05, 14, 0.2880), (0.10, 7, 0.4725)] {
            assert_eq!(batch(bad), size);
            let weights = geometric(bad, size);
            let per_change = (1.0 + runs(&weights)) * bad / weights.iter().sum::<f64>();
            assert!((per_change - published).abs() < 2e-4, "{bad}: {per_change}");
        }
        assert_eq!((batch(0.5), batch(1.0), batch(0.0)), (1, 1, MAX_BATCH));
    }

    #[test]
    fn cuts_go_where_the_doubt_is() {
        assert_eq!(first_cut(&[1.0], 0.0), 1);
        assert_eq!(first_cut(&[1.0, 1.0], 0.0), 1);
        assert_eq!(first_cut(&[0.0, 0.0, 0.0, 1.0, 1.0], 0.0), 4, "those before are not suspected");
        assert_eq!(first_cut(&[0.01, 0.01], 1.0), 2, "a flake is the likeliest: the same again");
        for n in 1..MAX_BATCH {
            let cut = first_cut(&geometric(0.05, n), 0.001);
            assert!((1..=n).contains(&cut), "{n}: {cut}");
        }
    }
}
