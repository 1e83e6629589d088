//! Runs on records that fail or cannot be read, with frontends that die, in groups, and by schedules.

mod crashes;
mod damage;
mod faults;
mod leading;
mod lives;
mod rig;
mod schedules;
