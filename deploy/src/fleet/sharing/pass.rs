//! The keys of passes: made by whichever frontend needs them first, and shared by all.

use ring::rand::{SecureRandom as _, SystemRandom};

use super::groups::lock;
use crate::fleet::error::FleetError;
use crate::fleet::store::{MAX_ATTEMPTS, as_found, put};
use crate::fleet::{Fleet, keys};
use crate::rollouts::machine::Millis;
use crate::swarm::pass::{PassKeys, SEED};

impl Fleet {
    pub(super) async fn pass_keys(&self, now: Millis) -> Result<PassKeys, FleetError> {
        let known = lock(&self.sharing.keys).clone();
        if let Some(known) = known.filter(|it| it.are_good(now)) {
            return Ok(known);
        }
        let mut seed = [0; SEED];
        SystemRandom::new().fill(&mut seed).map_err(|_| FleetError::Random)?;
        for _ in 0..MAX_ATTEMPTS {
            let found = self.store.get::<PassKeys>(keys::PASS_KEYS).await?;
            let before = found.as_ref().map(|(it, _)| it);
            let keys = match PassKeys::renewed(before, seed, now) {
                None => before.cloned(),
                Some(new) => {
                    let write = put(keys::PASS_KEYS.to_owned(), as_found(&found), &new)?;
                    self.store.commit(vec![write]).await?.then_some(new)
                }
            };
            if let Some(keys) = keys {
                *lock(&self.sharing.keys) = Some(keys.clone());
                return Ok(keys);
            }
        }
        Err(FleetError::Restless)
    }
}
