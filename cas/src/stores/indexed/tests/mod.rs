//! An indexed store whose parts fail, pause and end.

mod alone;
mod collect;
mod in_s3;
mod lookups;
mod lost;
mod read_repair;
mod rig;
mod skew;
mod write_behind;
