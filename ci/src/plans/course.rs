//! Decides which piece a runner gets next: a state machine without I/O or clock.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Time;

/// Pieces of one plan.
pub const MAX_PIECES: usize = 4_096;
/// Runners, each attempt of one counted by itself.
const MAX_RUNS: usize = 2_048;
/// Pieces that all runs together have been given, retries included.
const MAX_GIVEN: usize = 65_536;
/// How often one piece is given to somebody else because its runner was not heard of again.
const MAX_AGAIN: u8 = 8;
/// Bytes of a runner's name, and of what tells its attempts apart.
const MAX_NAME: usize = 200;

/// How far a plan is. Pieces are numbered from 0, in the order in which they are given out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Course {
    pieces: Vec<Stand>,
    runs: Vec<Run>,
    /// The time after which a piece whose runner says nothing is given to another one. `None`: never.
    again_after: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Stand {
    Open,
    Taken {
        run: u32,
        at: Time,
        /// How often the piece was given to somebody else so far.
        #[serde(default)]
        again: u8,
    },
    Done,
}

/// One attempt of a runner, and what it was given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Run {
    runner: String,
    attempt: String,
    /// Numbers of the pieces that the attempt was given, in this order.
    given: Vec<u32>,
    /// What earlier attempts of the runner had and this one has not had yet.
    to_repeat: Vec<u32>,
    /// The request that was answered last, and how: the same one again gets the same answer.
    last: Option<(u64, NextPiece)>,
}

/// The runner that asks, and its request.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    pub runner: &'a str,
    /// What tells a job that is run again from the one before: a new text.
    pub attempt: &'a str,
    /// A number of the request's own: when an answer is lost and asked for again, it is the same.
    pub request: u64,
    pub now: Time,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum NextPiece {
    Piece(Given),
    /// Others still work on the rest, and it may be given out again: ask once more later.
    Wait,
    /// There is nothing for this runner any more.
    Nothing,
}

/// A piece for a runner.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Given {
    pub piece: u32,
    /// An earlier attempt of the runner had it.
    pub is_repeat: bool,
    /// The runner that had it and was not heard of again.
    pub instead_of: Option<String>,
}

/// How far a plan is, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub open: usize,
    pub taken: usize,
    pub done: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("a plan has at least one piece and at most {MAX_PIECES}; this one has {0}")]
    Pieces(usize),
    #[error(
        "the name of a runner, and what tells its attempts apart, has at most {MAX_NAME} bytes of text on one line; \
             a runner has a name"
    )]
    Name,
    #[error("a later attempt of runner {0} has begun: this one is over")]
    Superseded(String),
    #[error("more runners and retries than a plan is for: make a new plan")]
    TooMany,
}

impl Course {
    pub fn new(pieces: usize, again_after: Option<Duration>) -> Result<Self, Refused> {
        if pieces == 0 || pieces > MAX_PIECES {
            return Err(Refused::Pieces(pieces));
        }
        Ok(Self { pieces: vec![Stand::Open; pieces], runs: Vec::new(), again_after })
    }

    /// The next piece. Who asks has done with the piece that it got before.
    pub fn next(&mut self, turn: Turn<'_>) -> Result<NextPiece, Refused> {
        let at = self.run(turn)?;
        let run = &self.runs[at];
        if let Some((request, answer)) = &run.last
            && *request == turn.request
        {
            return Ok(answer.clone());
        }
        if self.runs[at + 1..].iter().any(|it| it.runner == run.runner) {
            return Err(Refused::Superseded(run.runner.clone()));
        }
        self.end(at);
        let answer = self.choose(at, turn.now)?;
        self.runs[at].last = Some((turn.request, answer.clone()));
        Ok(answer)
    }

    /// The index in `runs` of the runner's run. A new attempt of a runner gets a run of its own, which is to repeat
    /// what the attempt before it had.
    fn run(&mut self, turn: Turn<'_>) -> Result<usize, Refused> {
        let fits = |text: &str| text.len() <= MAX_NAME && !text.chars().any(char::is_control);
        if turn.runner.is_empty() || !fits(turn.runner) || !fits(turn.attempt) {
            return Err(Refused::Name);
        }
        let own = |it: &Run| it.runner == turn.runner;
        let found = self.runs.iter().position(|it| own(it) && it.attempt == turn.attempt);
        if let Some(at) = found {
            return Ok(at);
        }
        if self.runs.len() >= MAX_RUNS {
            return Err(Refused::TooMany);
        }
        let before = self.runs.iter().rev().find(|it| own(it));
        // What it had, and what it had not come to repeat.
        let to_repeat: Vec<u32> =
            before.map(|it| [&it.given[..], &it.to_repeat].concat()).unwrap_or_default();
        self.runs.push(Run {
            runner: turn.runner.to_owned(),
            attempt: turn.attempt.to_owned(),
            given: Vec::new(),
            to_repeat,
            last: None,
        });
        Ok(self.runs.len() - 1)
    }

    /// Notes that a run has done with the piece that it got last.
    fn end(&mut self, run: usize) {
        let Some(last) = self.runs[run].given.last().map(|it| *it as usize) else { return };
        if let Some(stand @ Stand::Taken { .. }) = self.pieces.get_mut(last)
            && matches!(stand, Stand::Taken { run: own, .. } if *own as usize == run)
        {
            *stand = Stand::Done;
        }
    }

    fn choose(&mut self, run: usize, now: Time) -> Result<NextPiece, Refused> {
        if !self.runs[run].to_repeat.is_empty() {
            let piece = self.runs[run].to_repeat.remove(0);
            return self.give(run, Given { piece, is_repeat: true, instead_of: None }, now);
        }
        if let Some(open) = self.pieces.iter().position(|it| *it == Stand::Open) {
            let given = Given { piece: number(open), is_repeat: false, instead_of: None };
            return self.give(run, given, now);
        }
        let Some(patience) = self.again_after else { return Ok(NextPiece::Nothing) };
        let is_late = |it: &Stand| match it {
            Stand::Taken { run: own, at, again } => {
                *own as usize != run && *again < MAX_AGAIN && now.since(*at) >= patience
            }
            _ => false,
        };
        if let Some(late) = self.pieces.iter().position(is_late) {
            let instead_of = match self.pieces[late] {
                Stand::Taken { run, .. } => self.runs.get(run as usize).map(|it| it.runner.clone()),
                _ => None,
            };
            let given = Given { piece: number(late), is_repeat: false, instead_of };
            return self.give(run, given, now);
        }
        let may_come = |it: &Stand| matches!(it, Stand::Taken { again, .. } if *again < MAX_AGAIN);
        Ok(if self.pieces.iter().any(may_come) { NextPiece::Wait } else { NextPiece::Nothing })
    }

    fn give(&mut self, run: usize, given: Given, now: Time) -> Result<NextPiece, Refused> {
        if self.runs.iter().map(|it| it.given.len()).sum::<usize>() >= MAX_GIVEN {
            return Err(Refused::TooMany);
        }
        if let Some(stand) = self.pieces.get_mut(given.piece as usize) {
            let before = match stand {
                Stand::Taken { again, .. } => *again,
                _ => 0,
            };
            let again = before + u8::from(given.instead_of.is_some());
            *stand = Stand::Taken { run: number(run), at: now, again };
        }
        self.runs[run].given.push(given.piece);
        Ok(NextPiece::Piece(given))
    }

    pub fn progress(&self) -> Progress {
        let mut progress = Progress::default();
        for it in &self.pieces {
            match it {
                Stand::Open => progress.open += 1,
                Stand::Taken { .. } => progress.taken += 1,
                Stand::Done => progress.done += 1,
            }
        }
        progress
    }

    /// Each runner with its attempt and what it was given, in the order in which they came.
    pub fn runners(&self) -> impl Iterator<Item = (&str, &str, &[u32])> {
        self.runs.iter().map(|it| (&*it.runner, &*it.attempt, &*it.given))
    }
}

fn number(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[path = "course_tests.rs"]
mod tests;
