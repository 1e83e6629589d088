//! The controller over records in memory, with targets that obey: how rollouts end, who may start one, and that a
//! crash between any two writes changes nothing about it.

mod crashes;
mod damage;
mod drills;
mod faults;
mod faulty;
mod figures;
mod lives;
mod outages;
mod pace;
mod reading;
mod rig;
mod sets;
