//! Keys of the records in which promotion keeps what it knows.
//!
//! | key | what |
//! | --- | --- |
//! | `promotion/world` | [`World`](super::super::world::World), in JSON |
//! | `promotion/done/{environment}/{generation}` | a promotion or rollback with every reason |
//! | `promotion/summary/{environment}/{generation}` | the signed summary of it |
//! | `promotion/rejected/{digest}` | who rejected a release, and why; never goes |
//! | `promotion/rolled-back/{environment}/{digest}` | what was rolled back there, until a person promotes it again |
//! | `promotion/notice/{number}` | a change that is to be told |
//! | `promotion/turn/{environment}` | which process does what happens by itself there: a lease |

use crate::oci::ContentDigest;

pub const WORLD: &str = "promotion/world";
pub const NOTICES: &str = "promotion/notice/";
pub const REJECTED: &str = "promotion/rejected/";

pub fn done_of(environment: &str) -> String {
    format!("promotion/done/{environment}/")
}

pub fn done(environment: &str, generation: u64) -> String {
    format!("{}{generation:020}", done_of(environment))
}

pub fn summary(environment: &str, generation: u64) -> String {
    format!("promotion/summary/{environment}/{generation:020}")
}

pub fn rejected(digest: &ContentDigest) -> String {
    format!("{REJECTED}{digest}")
}

pub fn rolled_back(environment: &str, digest: &ContentDigest) -> String {
    format!("promotion/rolled-back/{environment}/{digest}")
}

pub fn notice(number: u64) -> String {
    format!("{NOTICES}{number:020}")
}

pub fn turn(environment: &str) -> String {
    format!("promotion/turn/{environment}")
}
