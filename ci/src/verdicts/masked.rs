//! What gates masked last: for people who want to know what they did not have to wait for.

use serde::{Deserialize, Serialize};

use super::answers::{Answered, Question};
use super::error::VerdictError;
use super::keys;
use super::survey::Survey;
use crate::attempts::cut;
use crate::model::{Subject, Time};
use crate::storage::{Expect, StorageError, Write};

/// Failures that are remembered, and bytes of all of them as they are kept.
const MAX_KEPT: usize = 200;
const MAX_BYTES: usize = 256 << 10;
/// Bytes of an invocation and of what was found.
const MAX_TEXT: usize = 1_024;
/// How often it is tried while others note something, too. What is not noted then is missing in a list for people.
const TRIES: u32 = 4;

/// A failure that a gate let pass.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Masked {
    pub at: Time,
    pub invocation: String,
    pub subject: Subject,
    /// What was found and on what evidence, in words.
    pub text: String,
    pub is_quarantined: bool,
}

impl Masked {
    fn is_same(&self, other: &Self) -> bool {
        self.invocation == other.invocation && self.subject == other.subject
    }
}

impl Survey {
    /// What gates masked last, newest first.
    pub async fn masked(&self) -> Result<Vec<Masked>, VerdictError> {
        Ok(self.kept().await?.1)
    }

    /// Notes what a gate masks that is not to be asked again. The same answer given twice is noted once.
    pub async fn note(
        &self,
        question: &Question,
        answered: &Answered,
        now: Time,
    ) -> Result<(), VerdictError> {
        let masked = answered.outcome.items.iter().filter(|it| it.masked()).map(|it| Masked {
            at: now,
            invocation: cut(&question.invocation, MAX_TEXT).to_owned(),
            subject: it.subject.clone(),
            text: cut(&it.to_string(), MAX_TEXT).to_owned(),
            is_quarantined: it.quarantine.is_some(),
        });
        let masked: Vec<_> = masked.take(MAX_KEPT).collect();
        if masked.is_empty() || answered.pending {
            return Ok(());
        }
        for _ in 0..TRIES {
            let (expect, mut kept) = self.kept().await?;
            let is_new = |it: &&Masked| !kept.iter().any(|own| own.is_same(it));
            let new: Vec<_> = masked.iter().filter(is_new).cloned().collect();
            if new.is_empty() {
                return Ok(());
            }
            kept.splice(0..0, new);
            let write = Write { key: keys::MASKED.into(), expect, value: Some(fitting(kept)?) };
            match self.records.write(vec![write]).await {
                Err(StorageError::Conflict(_)) => {}
                done => return Ok(done?),
            }
        }
        Err(VerdictError::Restless)
    }

    async fn kept(&self) -> Result<(Expect, Vec<Masked>), VerdictError> {
        let Some(record) = self.records.get(keys::MASKED).await? else {
            return Ok((Expect::Absent, Vec::new()));
        };
        // What cannot be read is written anew.
        let kept = keys::decode(&record.value).unwrap_or_default();
        Ok((Expect::Version(record.version), kept))
    }
}

/// The record of masked failures, without the oldest where there are too many.
fn fitting(mut kept: Vec<Masked>) -> Result<bytes::Bytes, VerdictError> {
    kept.truncate(MAX_KEPT);
    loop {
        let value = keys::encode(&kept)?;
        if value.len() <= MAX_BYTES || kept.len() <= 1 {
            return Ok(value);
        }
        kept.truncate(kept.len() / 2);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::flakes::{Judgement, Tries, Verdict};
    use crate::gate::{Failure, Run, gate};
    use crate::model::TestKey;
    use crate::quarantine::Quarantine;
    use crate::storage::memory::Memory;

    fn answered(label: &str, verdict: Verdict) -> Answered {
        let test = TestKey { label: label.into(), ..samples_key() };
        let passes = u32::from(verdict == Verdict::Flaky);
        let failure = Failure {
            subject: Subject { test, case: None },
            at: Time(1),
            signature: None,
            known: false,
            edited: false,
            judgement: Some(Judgement { verdict, broken: 0.0 }),
            tries: Tries { straight: 1 - passes, passes },
            settled: true,
        };
        let run = Run { instance: "i", incomplete: None, failures: vec![failure], tests: 100 };
        let outcome = gate(&run, &Quarantine::default(), Time(1));
        Answered { outcome, pending: false, known: true }
    }

    fn samples_key() -> TestKey {
        TestKey { instance: "i".into(), label: String::new(), configuration: String::new() }
    }

    #[tokio::test]
    async fn what_is_masked_is_noted_once_and_within_bounds() {
        let survey = Survey::new(Arc::new(Memory::default()));
        let ask =
            |invocation: &str| Question { invocation: invocation.into(), ..Default::default() };
        let flaky = answered("//a:t", Verdict::Flaky);
        for now in [5, 6] {
            survey.note(&ask("one"), &flaky, Time(now)).await.unwrap();
        }
        survey.note(&ask("two"), &answered("//a:b", Verdict::Broken), Time(7)).await.unwrap();
        let pending = Answered { pending: true, ..flaky.clone() };
        survey.note(&ask("three"), &pending, Time(7)).await.unwrap();
        let masked = survey.masked().await.unwrap();
        assert_eq!(masked.len(), 1, "{masked:?}");
        assert_eq!((masked[0].at, &*masked[0].invocation), (Time(5), "one"));
        assert!(masked[0].text.contains("flaky") || masked[0].text.contains("passed"));
        for number in 0..250 {
            survey.note(&ask(&number.to_string()), &flaky, Time(9)).await.unwrap();
        }
        let masked = survey.masked().await.unwrap();
        assert_eq!((masked.len(), &*masked[0].invocation), (MAX_KEPT, "249"));
    }
}
