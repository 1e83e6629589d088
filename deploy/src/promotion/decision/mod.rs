//! Whether a release may stand in an environment: yes or no, with every reason at once.

mod gates;
mod reasons;

pub use self::reasons::{Checked, Decision, Gate, Question, Reason, Record, Standing};

/// Asks every gate, whatever the others say.
pub fn decide(question: &Question<'_>) -> Decision {
    let mut decision = Decision::default();
    gates::record(question, &mut decision);
    gates::clock(question, &mut decision);
    gates::upstream(question, &mut decision);
    gates::provenance(question, &mut decision);
    gates::tests(question, &mut decision);
    gates::approvals(question, &mut decision);
    gates::freezes(question, &mut decision);
    gates::conditions(question, &mut decision);
    gates::checks(question, &mut decision);
    decision
}
