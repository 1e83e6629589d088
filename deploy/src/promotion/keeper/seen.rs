//! What stands in environments, for those who only look.

use kiln_cas::records::{Expect, SharedRecords, Write};

use super::error::PromotionError;
use super::keys::WORLD;
use super::store::{decode, must_be_absent};
use crate::promotion::world::World;

/// What stands in all environments at one moment.
pub struct Seen {
    pub world: World,
    /// A write that changes nothing of it, and fails once somebody else did.
    pub unchanged: Write,
}

impl Seen {
    pub async fn read(records: &SharedRecords) -> Result<Self, PromotionError> {
        let Some(stored) = records.get(WORLD).await? else {
            let unchanged = must_be_absent(WORLD.to_owned());
            return Ok(Self { world: World::default(), unchanged });
        };
        let world = decode(&stored)?;
        let expect = Expect::Version(stored.version);
        let unchanged = Write { key: stored.key, expect, value: Some(stored.value) };
        Ok(Self { world, unchanged })
    }
}
