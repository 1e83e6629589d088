//! How many connections each peer has: one cannot take them all.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// Who connects, as far as its address tells: an IPv4 address, or the first half of an IPv6 address,
/// which is what one customer of a network has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PeerKey(IpAddr);

impl From<IpAddr> for PeerKey {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) if !address.is_loopback() => {
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX)))
            }
            other => other,
        })
    }
}

/// Connections by peer. Clones share the counts.
#[derive(Debug, Clone)]
pub struct Peers {
    open: Arc<Mutex<HashMap<PeerKey, u32>>>,
    most: u32,
}

/// The place of one connection among those of its peer; it is counted until it is dropped.
#[derive(Debug)]
pub struct Place {
    peers: Peers,
    key: PeerKey,
}

impl Peers {
    pub fn new(most: u32) -> Self {
        Self { open: Arc::default(), most }
    }

    /// Takes a place for a connection from this address; `None`: the peer has as many as one may
    /// have.
    pub fn admit(&self, address: IpAddr) -> Option<Place> {
        let key = PeerKey::from(address);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.entry(key).or_default();
        if *count >= self.most {
            return None;
        }
        *count += 1;
        Some(Place { peers: self.clone(), key })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.peers.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_peer_takes_no_places_of_others_and_gives_its_own_back() {
        let peers = Peers::new(2);
        let admit = |address: &str| peers.admit(address.parse().unwrap());
        let first = admit("10.0.0.1").unwrap();
        let second = admit("::ffff:10.0.0.1").unwrap();
        assert!(admit("10.0.0.1").is_none());
        assert!(admit("10.0.0.2").is_some());
        drop(first);
        assert!(admit("10.0.0.1").is_some());
        drop(second);
        assert!(peers.open.lock().unwrap().is_empty());
    }

    #[test]
    fn all_addresses_of_one_ipv6_network_are_one_peer() {
        let key = |address: &str| PeerKey::from(address.parse::<IpAddr>().unwrap());
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:10.0.0.1"), key("10.0.0.1"));
        assert_ne!(key("10.0.0.1"), key("10.0.0.2"));
    }
}
