//! An agent says what it has of a version, and hears of others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use fastrand::Rng;
use kiln_cas::records::Expect;

use super::groups::{Key, lock};
use super::kept::{Card, KeptPeer};
use crate::agent::Speaker;
use crate::fleet::error::FleetError;
use crate::fleet::names::{self, NameProblem};
use crate::fleet::store::put;
use crate::fleet::{Fleet, keys};
use crate::rollouts::machine::Millis;
use crate::rollouts::parts::Place;
use crate::swarm::downloader::MAX_NAMED;
use crate::swarm::pass::{Bearer, is_fingerprint};
use crate::swarm::tracker::{Ask, FORGOTTEN, Known};
use crate::swarm::{PeerCard, Share, Shared};

/// Bytes of what says which agents are near each other.
const MAX_NEAR: usize = 200;
/// What others said is read so often.
const READ_EVERY: Millis = 3_000;

fn check(share: &Share) -> Result<(), NameProblem> {
    share.address.as_deref().map_or(Ok(()), names::check_address)?;
    let is_line = share.near.len() <= MAX_NEAR && !share.near.chars().any(char::is_control);
    if !is_line {
        return Err(NameProblem::Value("near".to_owned()));
    }
    if !is_fingerprint(&share.fingerprint) {
        return Err(NameProblem::Fingerprint);
    }
    let named = [&share.seeded, &share.starving];
    if named.into_iter().any(|it| it.len() > MAX_NAMED) || share.has > share.pieces {
        return Err(NameProblem::TooLong("the list of pieces that are named"));
    }
    Ok(())
}

impl Fleet {
    /// An agent says what it has of a version that it was told, and hears of others.
    pub async fn share(
        &self,
        speaker: &Speaker,
        account: &str,
        share: &Share,
    ) -> Result<Shared, FleetError> {
        check(share)?;
        self.may_fetch(speaker, account, &share.version).await?;
        let (place, now) = (&speaker.place, self.now());
        let keys = self.pass_keys(now).await?;
        // Who has all hears of nobody.
        if share.has < share.pieces {
            self.read_others(place, now).await?;
        }
        let key = Key {
            place: place.clone(),
            version: share.version.clone(),
            list: share.list.clone(),
            pieces: share.pieces,
        };
        let card = share.address.as_ref().map(|address| Card {
            address: address.clone(),
            fingerprint: share.fingerprint.clone(),
        });
        let (answer, is_news) = self.sharing.with(&key, now, |group| {
            let answer = group.swarm.answer(
                &Ask {
                    name: &speaker.name,
                    near: &share.near,
                    has: share.has,
                    seeded: &share.seeded,
                    starving: &share.starving,
                    peer: card.as_ref(),
                },
                now,
                &mut Rng::new(),
            );
            (answer, card.is_some() && group.is_news(&speaker.name, share.has, share.pieces, now))
        });
        if let Some(card) = card.filter(|_| is_news) {
            let kept = KeptPeer {
                version: key.version,
                list: key.list,
                pieces: key.pieces,
                has: share.has,
                near: share.near.clone(),
                address: card.address,
                fingerprint: card.fingerprint,
                heard: now,
            };
            let write = put(keys::peer(place, &speaker.name), Expect::Anything, &kept)?;
            self.store.commit(vec![write]).await?;
        }
        let (list, fingerprint) = (&share.list, share.fingerprint.as_str());
        let pass = keys.sign(&Bearer { place, list, fingerprint }, now).unwrap_or_default();
        let peers = answer.peers.into_iter().map(|(name, card, is_near)| PeerCard {
            name,
            address: card.address,
            fingerprint: card.fingerprint,
            is_near,
        });
        Ok(Shared {
            peers: peers.collect(),
            grants: answer.grants,
            again: Duration::from_millis(answer.again),
            pass,
            keys: keys.public(),
        })
    }

    /// Reads who asked other frontends.
    async fn read_others(&self, place: &Place, now: Millis) -> Result<(), FleetError> {
        {
            let mut read = lock(&self.sharing.read);
            read.retain(|_, at| now.saturating_sub(*at) < READ_EVERY);
            if read.insert(place.clone(), now).is_some() {
                return Ok(());
            }
        }
        for (name, kept) in self.store.below::<KeptPeer>(&keys::peers_of(place)).await? {
            if now.saturating_sub(kept.heard) < FORGOTTEN {
                self.hear(place, &name, kept);
            }
        }
        Ok(())
    }

    fn hear(&self, place: &Place, name: &str, kept: KeptPeer) {
        let KeptPeer { version, list, pieces, has, near, address, fingerprint, heard } = kept;
        let key = Key { place: place.clone(), version, list, pieces };
        self.sharing.with(&key, heard, |group| {
            // What was said here is newer than what is written of it.
            let is_newer = group.swarm.crowd.get(name).is_none_or(|it| it.heard < heard);
            if is_newer {
                let peer = Card { address, fingerprint };
                group.swarm.crowd.hear(name, Known { near, has, heard, peer }, heard);
            }
        });
    }

    /// Bytes of releases that agents were given by this frontend.
    pub fn given(&self) -> Arc<AtomicU64> {
        self.sharing.given.clone()
    }

    pub fn give(&self, bytes: usize) {
        self.sharing.given.fetch_add(bytes as u64, Ordering::Relaxed);
    }
}
