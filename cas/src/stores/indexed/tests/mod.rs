//! An indexed store whose parts fail, pause and end.

mod behind;
mod collect;
mod heal;
mod in_s3;
mod lookups;
mod lost;
mod rig;
mod skew;
