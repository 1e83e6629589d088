//! Sources of what is measured of both versions: Prometheus, probes over HTTP, or a program of the operator. A source
//! says what it found of both cohorts in the same window and resolution, or in words why it found nothing; it never
//! makes a value up. docs/rollouts.md says how they are set up.

mod command;
mod probe;
mod prometheus;
mod read;
mod template;

pub use read::read;
