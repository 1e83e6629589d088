//! Sources of signals as they really answer: the real Prometheus (beside `KILN_PROMTOOL`; scripts/test.sh installs it
//! and sets the variable), and servers that are probed.
#![allow(clippy::panic, clippy::unwrap_used)]

mod history;
mod probes;
mod prometheus;
mod rig;
