//! Runs on records that fail or cannot be read, with frontends that die, in groups, by schedules and by pushes.

mod crashes;
mod damage;
mod faults;
mod leading;
mod lives;
mod pushes;
mod rig;
mod schedules;
