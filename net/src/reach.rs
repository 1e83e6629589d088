//! Which addresses a host name may lead to. Whoever controls a name in the DNS could otherwise
//! point it at services that only this machine or its network can reach.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::urls::is_localhost;

/// How far a connection may reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// Addresses of the internet.
    Public,
    /// Public addresses and those of private networks, but neither this machine nor its neighbours' link:
    /// services there, such as a cloud's metadata, trust whoever reaches them.
    Network,
    /// Any address, this machine's own included.
    Anywhere,
}

impl Reach {
    pub fn includes(self, address: IpAddr) -> bool {
        self >= needed(address)
    }
}

/// The least reach that includes the address.
fn needed(address: IpAddr) -> Reach {
    match address {
        IpAddr::V4(address) => needed_v4(address),
        IpAddr::V6(address) => match embedded(address) {
            Some(address) => needed_v4(address),
            None => least(&V6, address.to_bits(), Ipv6Addr::BITS),
        },
    }
}

fn needed_v4(address: Ipv4Addr) -> Reach {
    least(&V4, u128::from(address.to_bits()), Ipv4Addr::BITS)
}

/// An address that carries one of version 4: mapped, translated (RFC 6052) or 6to4.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let last = Ipv4Addr::from_bits(address.to_bits() as u32);
    match address.segments() {
        [0, 0, 0, 0, 0, 0xffff, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => Some(last),
        [0x2002, high, low, ..] => {
            Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)))
        }
        _ => None,
    }
}

/// Bits of a network, how many of them count, and who may reach it. What is in none is public.
type Networks = [(u128, u32, Reach)];

fn least(networks: &Networks, bits: u128, width: u32) -> Reach {
    let inside = |network: &&(u128, u32, Reach)| {
        let rest = width - network.1;
        bits >> rest == network.0 >> rest
    };
    networks.iter().find(inside).map_or(Reach::Public, |network| network.2)
}

const fn v4(a: u8, b: u8, c: u8, d: u8) -> u128 {
    Ipv4Addr::new(a, b, c, d).to_bits() as u128
}

const fn v6(text: [u16; 8]) -> u128 {
    let [a, b, c, d, e, f, g, h] = text;
    Ipv6Addr::new(a, b, c, d, e, f, g, h).to_bits()
}

/// IPv4 networks with the reach that their addresses need, from the registries of special-purpose addresses (RFC 6890),
/// smaller ones first.
const V4: [(u128, u32, Reach); 15] = [
    // Metadata of a cloud, in a network that is shared otherwise.
    (v4(100, 100, 100, 200), 32, Reach::Anywhere),
    (v4(255, 255, 255, 255), 32, Reach::Anywhere),
    (v4(192, 0, 0, 0), 24, Reach::Network),
    (v4(192, 0, 2, 0), 24, Reach::Network),
    (v4(198, 51, 100, 0), 24, Reach::Network),
    (v4(203, 0, 113, 0), 24, Reach::Network),
    (v4(169, 254, 0, 0), 16, Reach::Anywhere),
    (v4(192, 168, 0, 0), 16, Reach::Network),
    (v4(198, 18, 0, 0), 15, Reach::Network),
    (v4(172, 16, 0, 0), 12, Reach::Network),
    (v4(100, 64, 0, 0), 10, Reach::Network),
    (v4(0, 0, 0, 0), 8, Reach::Anywhere),
    (v4(10, 0, 0, 0), 8, Reach::Network),
    (v4(127, 0, 0, 0), 8, Reach::Anywhere),
    // Multicast, and what nobody was given.
    (v4(224, 0, 0, 0), 3, Reach::Anywhere),
];

const V6: [(u128, u32, Reach); 9] = [
    // Unspecified and loopback.
    (0, 127, Reach::Anywhere),
    // Metadata of a cloud, in a network that is private otherwise.
    (v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]), 128, Reach::Anywhere),
    (0, 96, Reach::Anywhere),
    (v6([0x64, 0xff9b, 1, 0, 0, 0, 0, 0]), 48, Reach::Network),
    // Teredo: where it ends is not to be seen.
    (v6([0x2001, 0, 0, 0, 0, 0, 0, 0]), 32, Reach::Anywhere),
    (v6([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0]), 32, Reach::Network),
    (v6([0xfe80, 0, 0, 0, 0, 0, 0, 0]), 10, Reach::Anywhere),
    (v6([0xff00, 0, 0, 0, 0, 0, 0, 0]), 8, Reach::Anywhere),
    (v6([0xfc00, 0, 0, 0, 0, 0, 0, 0]), 7, Reach::Network),
];

#[derive(Debug, thiserror::Error)]
#[error(
    "{name} leads to {address}, which is {what}: that is not fetched by a name which the \
     configuration does not vouch for"
)]
struct OutOfReach {
    name: String,
    address: IpAddr,
    what: &'static str,
}

/// Says how far a host name may reach.
pub type ReachOf = Arc<dyn Fn(&str) -> Reach + Send + Sync>;

/// Looks names up, and hands out only addresses within their reach: a connection is made to
/// exactly what was checked.
pub(crate) struct Bounded(pub ReachOf);

impl Resolve for Bounded {
    fn resolve(&self, name: Name) -> Resolving {
        let name = name.as_str().to_owned();
        let reach = (self.0)(&name);
        Box::pin(async move { look_up(&name, reach).await })
    }
}

async fn look_up(name: &str, reach: Reach) -> Result<Addrs, Box<dyn Error + Send + Sync>> {
    // The port is put in by who connects.
    let found: Vec<SocketAddr> = tokio::net::lookup_host((name, 0)).await?.collect();
    let within: Vec<_> = found.iter().copied().filter(|at| reach.includes(at.ip())).collect();
    match (within.is_empty(), found.first()) {
        (true, Some(first)) => {
            let (name, address) = (name.to_owned(), first.ip());
            Err(OutOfReach { name, address, what: described(address) }.into())
        }
        _ => Ok(Box::new(within.into_iter())),
    }
}

/// What kind of address it is, for messages.
pub fn described(address: IpAddr) -> &'static str {
    match needed(address) {
        Reach::Public => "an address of the internet",
        Reach::Network => "an address of a private network",
        Reach::Anywhere => "an address of this machine or its link",
    }
}

/// How far a host may reach by being what it is: `localhost` leads to this machine.
pub fn of_name(name: &str, otherwise: Reach) -> Reach {
    if is_localhost(name) { Reach::Anywhere } else { otherwise }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_of_the_internet_of_a_network_or_of_this_machine() {
        for (address, expected) in [
            ("93.184.216.34", Reach::Public),
            ("172.32.0.1", Reach::Public),
            ("2606:2800:220:1::1", Reach::Public),
            ("::ffff:93.184.216.34", Reach::Public),
            ("10.1.2.3", Reach::Network),
            ("172.31.255.255", Reach::Network),
            ("192.168.0.1", Reach::Network),
            ("100.64.0.1", Reach::Network),
            ("fd12::1", Reach::Network),
            ("64:ff9b::a00:1", Reach::Network),
            ("2002:a00:1::1", Reach::Network),
            ("127.0.1.1", Reach::Anywhere),
            ("0.0.0.0", Reach::Anywhere),
            ("169.254.169.254", Reach::Anywhere),
            ("100.100.100.200", Reach::Anywhere),
            ("239.0.0.1", Reach::Anywhere),
            ("255.255.255.255", Reach::Anywhere),
            ("::", Reach::Anywhere),
            ("::1", Reach::Anywhere),
            ("::ffff:127.0.0.1", Reach::Anywhere),
            ("::ffff:169.254.169.254", Reach::Anywhere),
            ("64:ff9b::7f00:1", Reach::Anywhere),
            ("fe80::1", Reach::Anywhere),
            ("ff02::1", Reach::Anywhere),
            ("fd00:ec2::254", Reach::Anywhere),
        ] {
            assert_eq!(needed(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[tokio::test]
    async fn a_name_leads_no_farther_than_it_may() {
        let near = look_up("localhost", Reach::Anywhere).await.map(Iterator::count);
        assert!(near.unwrap() > 0);
        let error = look_up("localhost", Reach::Network).await.map(|_| ()).unwrap_err();
        assert!(error.to_string().contains("localhost leads to"), "{error}");
    }
}
