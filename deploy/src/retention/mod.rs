//! Decides which releases stay, and why: a pure decision over what there is and where it stands.
//!
//! A release goes or stays with all that it holds: its content and everything that was signed about it. Releases of the same content
//! go or stay together. So nothing that was signed goes before what it is about, and none of it is left over afterwards.

mod collect;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::oci::ContentDigest;
use crate::promotion::World;
use crate::releases::ReleaseName;
use crate::timestamp::Timestamp;

pub use collect::{CollectError, Collector};

/// How long releases stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Former releases of each environment that stay beside the current one: rollbacks return to them.
    pub predecessors: usize,
    /// The newest of each repository stay however old they are.
    pub newest: usize,
    /// Seconds for which a release stays at least.
    pub age: i64,
}

impl Default for Rules {
    fn default() -> Self {
        Self { predecessors: 5, newest: 10, age: 90 * 86_400 }
    }
}

/// A release that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub name: ReleaseName,
    pub digest: ContentDigest,
    pub created: Timestamp,
    pub rejected: bool,
    /// What is known beside to need it.
    pub needed: Vec<Stays>,
    /// All that it is made of and that was signed about it, with sizes.
    pub content: Vec<(ContentDigest, u64)>,
}

/// Why a release stays.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Stays {
    /// The release stands in an environment.
    Current {
        environment: String,
    },
    /// The release stood in an environment, so many releases ago.
    Predecessor {
        environment: String,
        back: usize,
    },
    /// A promotion of the release waits.
    Waits {
        environment: String,
    },
    /// A rollout delivers it, returns to it, or has delivered it last.
    Rollout {
        place: String,
    },
    /// The release is among the newest of its repository; 1 is the newest.
    Newest {
        place: usize,
    },
    Young {
        until: Timestamp,
    },
    /// Another name of the same content stays.
    Same {
        release: ReleaseName,
    },
    /// The release was changed again and again while it was to go: the next collection looks at it anew.
    Busy,
}

impl fmt::Display for Stays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Current { environment } => write!(f, "it stands in {environment}"),
            Self::Predecessor { environment, back } => {
                write!(f, "it stood in {environment}, {back} back")
            }
            Self::Waits { environment } => write!(f, "it waits for {environment}"),
            Self::Rollout { place } => write!(f, "a rollout to {place} needs it"),
            Self::Newest { place } => write!(f, "it is number {place} of the newest here"),
            Self::Young { until } => write!(f, "it is kept until {until}"),
            Self::Same { release } => write!(f, "{release} stays and is the same"),
            Self::Busy => write!(f, "it is being changed"),
        }
    }
}

/// What becomes of a release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fate {
    pub release: ReleaseName,
    pub digest: ContentDigest,
    /// Every reason for which the release stays; none: it goes.
    pub stays: Vec<Stays>,
    /// Bytes that nothing which stays needs. Where several releases that go share some, the first counts them.
    pub frees: u64,
}

impl Fate {
    pub fn goes(&self) -> bool {
        self.stays.is_empty()
    }
}

/// What stands somewhere, stood there, or is about to.
fn standing(world: &World, rules: Rules) -> BTreeMap<ContentDigest, Vec<Stays>> {
    let mut standing: BTreeMap<ContentDigest, Vec<Stays>> = BTreeMap::new();
    let mut note = |digest: &ContentDigest, why| {
        standing.entry(digest.clone()).or_default().push(why);
    };
    for (environment, place) in &world.places {
        if let Some(current) = &place.current {
            note(&current.digest, Stays::Current { environment: environment.clone() });
        }
        // One that came back again and again is one predecessor.
        let mut seen: BTreeSet<_> = place.current.iter().map(|it| &it.digest).collect();
        let others = place.past.iter().filter(|it| seen.insert(&it.placed.digest));
        for (index, past) in others.take(rules.predecessors).enumerate() {
            let environment = environment.clone();
            note(&past.placed.digest, Stays::Predecessor { environment, back: index + 1 });
        }
    }
    for waiting in &world.waiting {
        note(&waiting.digest, Stays::Waits { environment: waiting.environment.clone() });
    }
    standing
}

/// Places of releases in their repositories, newest first, from 1 on. What is rejected has none.
fn places(releases: &[Held]) -> BTreeMap<&ReleaseName, usize> {
    let mut by_repository: BTreeMap<_, Vec<&Held>> = BTreeMap::new();
    for release in releases.iter().filter(|it| !it.rejected) {
        by_repository.entry(&release.name.repository).or_default().push(release);
    }
    let mut places = BTreeMap::new();
    for releases in by_repository.values_mut() {
        releases.sort_by_key(|it| (std::cmp::Reverse(it.created), &it.name));
        places.extend(releases.iter().zip(1..).map(|(it, place)| (&it.name, place)));
    }
    places
}

/// Decides about all releases, in their order. `world`: where releases stand, read *after* the releases were listed: one that was
/// promoted meanwhile stays.
pub fn retain(releases: &[Held], world: &World, rules: Rules, now: Timestamp) -> Vec<Fate> {
    let (standing, places) = (standing(world, rules), places(releases));
    let mut fates: Vec<Fate> = Vec::with_capacity(releases.len());
    for release in releases {
        let mut stays = standing.get(&release.digest).cloned().unwrap_or_default();
        stays.extend(release.needed.iter().cloned());
        let place = places.get(&release.name).copied();
        stays.extend(place.filter(|it| *it <= rules.newest).map(|place| Stays::Newest { place }));
        let until = release.created.plus(rules.age);
        stays.extend((now < until).then_some(Stays::Young { until }));
        fates.push(Fate {
            release: release.name.clone(),
            digest: release.digest.clone(),
            stays,
            frees: 0,
        });
    }
    keep_together(&mut fates);
    count(releases, &mut fates);
    fates
}

/// Names of the same content stay where one of them does.
fn keep_together(fates: &mut [Fate]) {
    let kept = fates.iter().filter(|it| !it.goes());
    let kept: BTreeMap<_, _> = kept.map(|it| (it.digest.clone(), it.release.clone())).collect();
    for fate in fates.iter_mut().filter(|it| it.goes()) {
        let same = kept.get(&fate.digest).cloned();
        fate.stays.extend(same.map(|release| Stays::Same { release }));
    }
}

/// Counts what would be free.
fn count(releases: &[Held], fates: &mut [Fate]) {
    let mut needed: BTreeSet<&ContentDigest> = BTreeSet::new();
    for (release, _) in releases.iter().zip(fates.iter()).filter(|(_, it)| !it.goes()) {
        needed.extend(release.content.iter().map(|(digest, _)| digest));
    }
    for (release, fate) in releases.iter().zip(fates.iter_mut()).filter(|(_, it)| it.goes()) {
        for (digest, size) in &release.content {
            if needed.insert(digest) {
                fate.frees = fate.frees.saturating_add(*size);
            }
        }
    }
}
