//! The log of an attempt on its way to whoever keeps it: without secrets, and of one that is long its beginning and its end.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

use super::mask::{Forms, Masker};
use crate::pipelines::Progress;

/// Bytes of a log that are kept from its beginning, which are told at once.
pub const HEAD: usize = 640 << 10;
/// Bytes of a log that are kept from its end, which are told when the log has ended.
pub const TAIL: usize = 256 << 10;
/// Bytes of all that is told of one log, with what is said about the rest.
pub const MOST: usize = HEAD + TAIL + 512;

/// What of a long text is kept.
#[derive(Debug, Default)]
struct Kept {
    /// Bytes of the head that were passed on.
    head: usize,
    tail: VecDeque<u8>,
    left_out: u64,
}

impl Kept {
    /// What of `data` is passed on at once.
    fn push<'a>(&mut self, data: &'a [u8]) -> &'a [u8] {
        let room = HEAD.saturating_sub(self.head).min(data.len());
        let (now, later) = data.split_at(room);
        self.head += now.len();
        let skipped = later.len().saturating_sub(TAIL);
        let later = later.get(skipped..).unwrap_or_default();
        let over = (self.tail.len() + later.len()).saturating_sub(TAIL);
        self.tail.drain(..over);
        self.tail.extend(later);
        self.left_out = self.left_out.saturating_add((over + skipped) as u64);
        now
    }

    /// Whatever is told later comes behind the gap, and so does not belong to the beginning.
    fn skip(&mut self, count: u64) {
        self.head = HEAD;
        let gone = self.tail.len() as u64;
        self.tail.clear();
        self.left_out = self.left_out.saturating_add(count).saturating_add(gone);
    }

    /// What is passed on when all has come.
    fn end(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        if self.left_out > 0 {
            let note = format!(
                "\n[kiln: {} bytes of this log are left out here; its beginning and its end are kept]\n",
                self.left_out
            );
            rest.extend_from_slice(note.as_bytes());
        }
        rest.extend(std::mem::take(&mut self.tail));
        rest
    }
}

struct LogState {
    /// What masks secrets in standard output and in standard error.
    maskers: [Masker; 2],
    kept: Kept,
    /// The offset of the next byte in the attempt's log.
    offset: u64,
    /// The last byte that came, where one did.
    last: Option<u8>,
    ended: bool,
}

/// The log of one attempt, as a runner writes it.
pub struct StageLog<'a> {
    progress: &'a dyn Progress,
    state: Mutex<LogState>,
}

impl<'a> StageLog<'a> {
    /// `forms`: what is not to be seen in it. What was told of this attempt before stays, and what comes is put behind it.
    pub fn new(progress: &'a dyn Progress, forms: &Forms) -> Self {
        let offset = progress.logged();
        let maskers = [Masker::new(forms.clone()), Masker::new(forms.clone())];
        // What is there already is a part of the beginning: all of it together stays within its bound.
        let head = usize::try_from(offset).unwrap_or(HEAD).min(HEAD);
        let kept = Kept { head, ..Kept::default() };
        let state = LogState { maskers, kept, offset, last: None, ended: false };
        let log = Self { progress, state: Mutex::new(state) };
        if offset > 0 {
            log.say("another server goes on with this: what was printed is told again");
        }
        log
    }

    fn state(&self) -> MutexGuard<'_, LogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends what was printed, with secrets masked.
    pub fn append(&self, stderr: bool, data: &[u8]) {
        let mut state = self.state();
        let [out, err] = &mut state.maskers;
        let seen = if stderr { err.pass(data) } else { out.pass(data) };
        self.put(&mut state, &seen);
    }

    /// Notes that so many bytes were printed that are not looked at.
    pub fn skip(&self, count: u64) {
        self.state().kept.skip(count);
    }

    /// A line of Kiln's own.
    pub fn say(&self, line: &str) {
        let mut state = self.state();
        let own_line = if state.last.is_none_or(|it| it == b'\n') { "" } else { "\n" };
        let text = format!("{own_line}[kiln: {line}]\n");
        self.put(&mut state, text.as_bytes());
    }

    /// What is done now, for people.
    pub fn standing(&self, line: &str) {
        self.progress.standing(line);
    }

    /// Ends the log: all has come.
    pub fn end(&self) {
        let mut state = self.state();
        if std::mem::replace(&mut state.ended, true) {
            return;
        }
        let [out, err] = &mut state.maskers;
        let left = [out.end(), err.end()].concat();
        self.put(&mut state, &left);
        let rest = state.kept.end();
        self.tell(&mut state, Bytes::from(rest));
    }

    fn put(&self, state: &mut LogState, seen: &[u8]) {
        state.last = seen.last().copied().or(state.last);
        let now = Bytes::copy_from_slice(state.kept.push(seen));
        self.tell(state, now);
    }

    fn tell(&self, state: &mut LogState, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        let offset = state.offset;
        state.offset += chunk.len() as u64;
        self.progress.log(offset, chunk);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::testing::Heard;
    use super::*;

    #[test]
    fn a_gigabyte_keeps_its_beginning_and_its_end_and_says_so() {
        let heard = Heard::default();
        let log = StageLog::new(&heard, &Forms::default());
        log.append(false, b"first\n");
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..64 {
            log.append(false, &chunk);
        }
        // The middle of the log is skipped, because no process has it at hand any more.
        log.skip(960 << 20);
        log.append(true, b"\nlast\n");
        assert!(heard.said().len() <= HEAD, "its end comes at its end");
        log.end();
        log.end();
        let said = heard.said();
        assert!(said.starts_with("first\n") && said.ends_with("\nlast\n"));
        let left_out = 6 + (1024 << 20) - HEAD;
        assert!(
            said.contains(&format!("[kiln: {left_out} bytes of this log are left out")),
            "{}",
            said.len()
        );
        assert!(said.len() <= MOST);
    }

    #[test]
    fn secrets_are_hidden_across_pieces_and_streams_do_not_mix() {
        let heard = Heard::default();
        let forms = Forms::of([&b"s3cret-token"[..]]).unwrap();
        let log = StageLog::new(&heard, &forms);
        log.append(false, b"token s3cre");
        log.append(true, b"warning\n");
        log.append(false, b"t-token!\n");
        log.say("ended");
        log.end();
        assert_eq!(heard.said(), "token warning\n***!\n[kiln: ended]\n");
    }

    #[test]
    fn what_is_gone_on_with_is_put_behind_what_was_told() {
        let heard = Heard { before: 7, ..Heard::default() };
        let log = StageLog::new(&heard, &Forms::default());
        log.append(false, b"a");
        log.end();
        assert!(heard.said().ends_with("told again]\na"), "{}", heard.said());
        let full = Heard { before: HEAD as u64, ..Heard::default() };
        let log = StageLog::new(&full, &Forms::default());
        log.append(false, &vec![b'x'; HEAD]);
        log.end();
        assert!(full.before as usize + full.said().len() <= MOST, "{}", full.said().len());
    }

    proptest! {
        #[test]
        fn nothing_is_lost_of_what_fits(pieces in proptest::collection::vec("[a-z\n]{0,40}", 0..20)) {
            let heard = Heard::default();
            let log = StageLog::new(&heard, &Forms::default());
            pieces.iter().for_each(|it| log.append(false, it.as_bytes()));
            log.end();
            prop_assert_eq!(heard.said(), pieces.concat());
        }

        #[test]
        fn what_is_kept_and_what_is_left_out_is_all_of_it(sizes in proptest::collection::vec(0_usize..(2 << 20), 0..8)) {
            let mut kept = Kept::default();
            let mut total = 0_u64;
            for size in &sizes {
                total += *size as u64;
                kept.push(&vec![b'x'; *size]);
            }
            let there = (kept.head + kept.tail.len()) as u64;
            prop_assert_eq!(there + kept.left_out, total);
            prop_assert!(kept.head <= HEAD && kept.tail.len() <= TAIL);
            prop_assert!(kept.left_out == 0 || kept.tail.len() == TAIL);
        }
    }
}
