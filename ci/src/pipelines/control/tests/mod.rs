//! Runs on records that fail, with frontends that die, in groups, and by schedules.

mod crashes;
mod faults;
mod leading;
mod lives;
mod rig;
mod schedules;
