//! Roles, which people give, and the rights that they stand for.

use std::fmt;
use std::str::FromStr;

use kiln_cas::access::Right;
use serde::Deserialize;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    ReadCache,
    WriteCache,
    Execute,
    Worker,
    ReleaseManager,
    Agent,
    Queue,
    QueueRunner,
    Admin,
}

impl Role {
    pub const ALL: [(Self, &str); 9] = [
        (Self::ReadCache, "read-cache"),
        (Self::WriteCache, "write-cache"),
        (Self::Execute, "execute"),
        (Self::Worker, "worker"),
        (Self::ReleaseManager, "release-manager"),
        (Self::Agent, "agent"),
        (Self::Queue, "queue"),
        (Self::QueueRunner, "queue-runner"),
        (Self::Admin, "admin"),
    ];

    /// Whoever executes needs to upload inputs and to download outputs; whoever works, too.
    /// Neither needs to say what an action results in: the server publishes that. An agent reads nothing but what
    /// it was told to run, and the runner of a queue nothing but that: its token lies beside code of all branches.
    pub fn grants(self, right: Right) -> bool {
        use Right::{Execute, Host, Land, Queue, Read, Release, Work, WriteBlobs, WriteResults};
        match self {
            Self::ReadCache => matches!(right, Read),
            Self::WriteCache => matches!(right, Read | WriteBlobs | WriteResults),
            Self::Execute => matches!(right, Read | WriteBlobs | Execute),
            Self::Worker => matches!(right, Read | WriteBlobs | Work),
            Self::ReleaseManager => matches!(right, Read | WriteBlobs | Release),
            Self::Agent => matches!(right, Host),
            Self::Queue => matches!(right, Read | Queue),
            Self::QueueRunner => matches!(right, Land),
            Self::Admin => true,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::ALL[*self as usize].1)
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|(_, name)| *name == text);
        found.map(|(role, _)| role).ok_or_else(|| {
            let names = Self::ALL.map(|(_, name)| name).join(", ");
            format!("{text:?} is no role; there are {names}")
        })
    }
}

/// A set of roles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Roles(u16);

impl Roles {
    pub fn insert(&mut self, role: Role) {
        self.0 |= 1 << role as u8;
    }

    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn contains(self, role: Role) -> bool {
        self.0 & 1 << role as u8 != 0
    }

    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub fn grants(self, right: Right) -> bool {
        self.iter().any(|role| role.grants(right))
    }

    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().map(|(role, _)| role).filter(move |role| self.contains(*role))
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        let mut all = Self::default();
        roles.into_iter().for_each(|role| all.insert(role));
        all
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.iter().map(|role| role.to_string()).collect();
        f.write_str(&if names.is_empty() { "none".to_owned() } else { names.join(", ") })
    }
}

/// The least role that gives a right, for messages.
pub fn role_for(right: Right) -> &'static str {
    match right {
        Right::Read => "read-cache",
        Right::WriteBlobs => "execute or write-cache",
        Right::WriteResults => "write-cache",
        Right::Execute => "execute",
        Right::Work => "worker",
        Right::Release => "release-manager",
        Right::Host => "agent",
        Right::Queue => "queue",
        Right::Land => "queue-runner",
        Right::Administer => "admin",
    }
}

/// What a caller wants to do who asks for this right, as words for a message.
pub fn in_words(right: Right) -> &'static str {
    match right {
        Right::Read => "read",
        Right::WriteBlobs => "store blobs",
        Right::WriteResults => "write action results",
        Right::Execute => "have actions executed",
        Right::Work => "run actions for this server",
        Right::Release => "release",
        Right::Host => "run releases as an agent",
        Right::Queue => "change a merge queue",
        Right::Land => "run a merge queue",
        Right::Administer => "act on what belongs to others",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RIGHTS: [Right; 10] = [
        Right::Read,
        Right::WriteBlobs,
        Right::WriteResults,
        Right::Execute,
        Right::Work,
        Right::Release,
        Right::Host,
        Right::Queue,
        Right::Land,
        Right::Administer,
    ];

    #[test]
    fn names_and_places_agree() {
        for (index, (role, name)) in Role::ALL.into_iter().enumerate() {
            assert_eq!(role as usize, index);
            assert_eq!((role.to_string().as_str(), name.parse()), (name, Ok(role)));
        }
        assert!("reader".parse::<Role>().unwrap_err().contains("read-cache, write-cache"));
    }

    #[test]
    fn a_laptop_cannot_poison_and_a_worker_cannot_either() {
        let writers: Vec<_> = Role::ALL
            .into_iter()
            .filter(|(role, _)| role.grants(Right::WriteResults))
            .map(|(_, name)| name)
            .collect();
        assert_eq!(writers, ["write-cache", "admin"]);
        let apart = [Role::Agent, Role::QueueRunner];
        for (role, _) in Role::ALL.into_iter().filter(|(role, _)| !apart.contains(role)) {
            assert!(role.grants(Right::Read), "{role}: without it no other right is of use");
        }
        for right in RIGHTS {
            assert_eq!(
                Role::Agent.grants(right),
                right == Right::Host,
                "{right:?}: a host is told, and no more"
            );
            assert_eq!(Role::QueueRunner.grants(right), right == Right::Land, "{right:?}");
        }
        for right in RIGHTS {
            assert!(Role::Admin.grants(right));
            for name in role_for(right).split(" or ") {
                assert!(name.parse::<Role>().unwrap().grants(right));
            }
        }
    }

    proptest::proptest! {
        #[test]
        fn a_set_grants_what_one_of_its_roles_grants(picked: [bool; 9]) {
            let roles: Vec<_> = Role::ALL
                .into_iter()
                .zip(picked)
                .filter_map(|((role, _), picked)| picked.then_some(role))
                .collect();
            let set: Roles = roles.iter().copied().collect();
            for right in RIGHTS {
                assert_eq!(set.grants(right), roles.iter().any(|role| role.grants(right)));
            }
            assert_eq!(set.iter().collect::<Vec<_>>(), roles);
        }
    }
}
