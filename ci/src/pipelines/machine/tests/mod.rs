//! The machine against every order of events, and groups against every order of runs.

mod groups;
mod lives;
mod world;
