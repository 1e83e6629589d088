//! A canary is judged again and again while it bakes. Whoever looks often is wrong more often: one
//! bad look is not enough, two of the last three are. A breach needs no second look.

use std::collections::VecDeque;

use super::judgement::Verdict;

/// Looks that are remembered.
pub const LOOKS: usize = 3;
/// How many of these looks must be bad.
pub const BAD: usize = 2;

/// What the last looks at a canary said.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Looks {
    last: VecDeque<Verdict>,
}

impl Looks {
    /// What follows from one more look. `breach`: nothing has to be waited for.
    pub fn look(&mut self, verdict: Verdict, breach: bool) -> Verdict {
        self.last.push_back(verdict);
        if self.last.len() > LOOKS {
            self.last.pop_front();
        }
        let bad = self.last.iter().filter(|one| **one == Verdict::Rollback).count();
        match verdict {
            Verdict::Rollback if breach || bad >= BAD => Verdict::Rollback,
            Verdict::Rollback => Verdict::Hold,
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Verdict::{Hold, Promote, Rollback};
    use super::*;

    #[test]
    fn two_of_three_bad_looks_revert() {
        let mut looks = Looks::default();
        let said =
            [Promote, Rollback, Promote, Rollback, Hold, Rollback].map(|it| looks.look(it, false));
        assert_eq!(said, [Promote, Hold, Promote, Rollback, Hold, Rollback]);
        let mut looks = Looks::default();
        let apart = [Rollback, Promote, Promote, Rollback].map(|it| looks.look(it, false));
        assert_eq!(apart, [Hold, Promote, Promote, Hold]);
        assert_eq!(Looks::default().look(Rollback, true), Rollback);
    }
}
