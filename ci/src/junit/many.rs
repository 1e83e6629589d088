//! Reports with more cases than anybody holds in memory.

use std::io::{self, Read};
use std::time::Duration;

use super::{Limits, Reason, read};

const MILLION: u64 = 1_000_000;

/// A report without its head: cases that are made as they are read.
struct Endless {
    left: u64,
    piece: Vec<u8>,
}

impl Endless {
    fn of(cases: u64) -> Self {
        Self { left: cases, piece: Vec::new() }
    }
}

impl Read for Endless {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.piece.is_empty() && self.left > 0 {
            self.left -= 1;
            self.piece = format!("<testcase name='t{}' time='0.5'/>\n", self.left).into_bytes();
            if self.left == 0 {
                self.piece.extend(b"</testsuite>");
            }
        }
        let length = self.piece.len().min(into.len());
        into[..length].copy_from_slice(&self.piece[..length]);
        self.piece.drain(..length);
        Ok(length)
    }
}

#[test]
fn many_cases_and_long_output_are_read_as_a_stream() {
    let head = format!("<testsuite><system-out>{}</system-out>", "x<!---->".repeat(1 << 17));
    let source = head.as_bytes().chain(Endless::of(50_000));
    let mut sum = Duration::ZERO;
    let limits = Limits { tag: 1000, ..Limits::default() };
    let totals = read(source, &limits, |one| sum += one.result.duration.unwrap_or_default());
    assert_eq!(totals.expect("it is read").attempts, 50_000);
    assert_eq!(sum, Duration::from_secs(25_000));
}

#[test]
fn of_a_million_cases_no_more_is_read_than_the_limit_lets_through() {
    let limits = Limits { attempts: 20_000, ..Limits::default() };
    let mut cases = Endless::of(MILLION);
    let mut handed_out = 0_u64;
    let source = "<testsuite>".as_bytes().chain(&mut cases);
    let refused = read(source, &limits, |_| handed_out += 1).expect_err("they are too many");
    assert!(matches!(refused.reason, Reason::Attempts(20_000)), "{refused}");
    assert_eq!(handed_out, 20_000);
    // Beyond the limit there is what one buffer holds: 16 KiB, in which a case takes more than 30 bytes.
    let taken = MILLION - cases.left;
    assert!((20_000..21_000).contains(&taken), "{taken} cases were read");

    // Bytes are bounded in the same way, whatever is in them.
    let limits = Limits { report: 500_000, ..Limits::default() };
    let mut cases = Endless::of(MILLION);
    let refused = read("<testsuite>".as_bytes().chain(&mut cases), &limits, |_| {});
    let refused = refused.expect_err("they are too long");
    assert!(matches!(refused.reason, Reason::LongReport(500_000)), "{refused}");
    assert!(MILLION - cases.left < 20_000, "{} cases are left", cases.left);
}

#[test]
#[ignore = "takes long in a build for debugging: cargo nextest run --release -p kiln-ci --run-ignored only a_million_cases"]
fn a_million_cases_are_within_the_usual_limits() {
    let source = "<testsuite>".as_bytes().chain(Endless::of(MILLION));
    let totals = read(source, &Limits::default(), |_| {}).expect("it is read");
    assert_eq!((totals.cases, totals.attempts), (MILLION, MILLION));
}
