//! The sandbox with real processes, as root and as an ordinary user.

mod endings;
mod harness;
mod isolation;
mod leftovers;
mod misbehaving;
mod roots;
