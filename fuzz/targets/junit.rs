//! Reports of test runners: whatever they hold, they are read within their limits or refused, and it
//! does not matter in what pieces their bytes arrive.
#![no_main]

use std::io::{self, Read};

use kiln_ci::junit::{CaseAttempt, Limits, Refused, Totals, read};
use libfuzzer_sys::fuzz_target;

const LIMITS: Limits =
    Limits { report: 1 << 16, tag: 512, name: 32, message: 48, attempts: 64, depth: 8 };

struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.1.min(self.0.len()).min(into.len());
        into[..length].copy_from_slice(&self.0[..length]);
        self.0 = &self.0[length..];
        Ok(length)
    }
}

fn all(report: &[u8], piece: usize) -> (Result<Totals, Refused>, Vec<CaseAttempt>) {
    let mut attempts = Vec::new();
    let totals = read(Pieces(report, piece), &LIMITS, |attempt| attempts.push(attempt));
    (totals, attempts)
}

// The first byte says how long the pieces are, the rest is the report.
fuzz_target!(|data: &[u8]| {
    let Some((&piece, report)) = data.split_first() else { return };
    let (whole, attempts) = all(report, usize::MAX);
    let (other, others) = all(report, usize::from(piece).max(1));
    match (whole, other) {
        (Ok(totals), Ok(other)) => {
            assert_eq!(totals, other);
            assert_eq!(attempts, others);
            assert_eq!(totals.attempts, attempts.len() as u64);
        }
        (Err(refused), Err(other)) => {
            assert_eq!(refused.to_string(), other.to_string());
            let lines = report.iter().filter(|&&byte| byte == b'\n').count() as u64;
            assert!((1..=lines + 1).contains(&refused.line), "{refused}");
        }
        (one, other) => panic!("{one:?}, but in pieces {other:?}"),
    }
    for CaseAttempt { attempt, result, .. } in &attempts {
        assert!(*attempt > 0 && result.case.name.len() <= LIMITS.name);
        assert!(result.message.as_ref().is_none_or(|text| text.len() <= LIMITS.message));
    }
});
