//! Whose turn it is: which of several processes does what one alone is to do.
//!
//! | module | what it does |
//! | --- | --- |
//! | `state` | what one process knows of a lease, and what follows, without I/O |
//! | `turn` | keeps it in a record that is written by compare-and-swap |

mod state;
#[cfg(test)]
mod tests;
mod turn;

pub use state::{Claim, DRIFT, Fence, Lease, MAX_TERM, Next};
pub use turn::{Slot, Standing, Turn};
