//! Plans that runners work off: a suite is cut into pieces once, and whoever has room takes the next one.
//!
//! Pieces are handed out longest first. What a runner had is remembered under its name: when its job is run again
//! it gets exactly these pieces once more, so that a retry cannot turn green by running other tests. Records are
//! changed by comparison, so any number of servers hand out one plan.

mod course;
mod keys;
mod service;

pub use course::{Course, Given, MAX_PIECES, NextPiece, Progress, Refused, Turn};
pub use service::{Handed, MAX_PLAN, Piece, Plan, PlanError, Plans, Standing};
