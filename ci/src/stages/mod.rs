//! What stages of pipelines do: commands as sandboxed actions, programs of the operator with secrets, and what they print,
//! bounded and without secrets.
//!
//! | module | what it does |
//! | --- | --- |
//! | `command`, `action` | commands as actions, over any workers |
//! | `program`, `secret` | listed programs, and their secrets |
//! | `begun` | what was begun for an attempt: nothing is begun twice |
//! | `wait` | builds of others |
//! | `log`, `mask` | what is printed: bounded, without secrets |

mod action;
mod begun;
mod command;
#[cfg(test)]
mod command_tests;
mod log;
mod mask;
mod program;
mod secret;
#[cfg(test)]
pub(crate) mod testing;
mod wait;

pub use action::{Unfit, check};
pub use begun::{Begun, Ledger};
pub use command::{
    ActionEnd, Actions, ActionsError, Commands, Done, MNEMONIC, TakeReports, Wanted, end_of,
    invocation_of,
};
pub use log::{HEAD, MOST, StageLog, TAIL};
pub use mask::{Forms, MASK, MAX_SECRET, MIN_SECRET, Masker, masked};
pub use program::{ListedProgram, Programs};
pub use secret::{Secret, SecretError, SecretList, SecretSource, forms};
pub use wait::{BuildState, Builds, GateState, wait};
