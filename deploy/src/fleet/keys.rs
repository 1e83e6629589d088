//! Keys of the records in which the fleet keeps what it knows. Names hold no slash.
//!
//! | key | what |
//! | --- | --- |
//! | `fleet/agent/{service}/{environment}/{name}` | what an agent said last ([`KeptAgent`](super::KeptAgent)) |
//! | `fleet/order/{service}/{environment}/{name}` | what it is to run ([`KeptOrder`](super::KeptOrder)) |
//! | `fleet/told/{service}/{environment}` | another value with each order there: frontends that keep questions open look at it |
//! | `fleet/peer/{service}/{environment}/{name}` | what an agent gives to others ([`KeptPeer`](super::KeptPeer)) |
//! | `fleet/pass-keys` | what says that somebody is an agent of a service is signed by these ([`PassKeys`](crate::swarm::pass::PassKeys)) |
//! | `fleet/count` | how many agents there are |

use crate::rollouts::parts::Place;

pub const AGENTS: &str = "fleet/agent/";
pub const COUNT: &str = "fleet/count";
pub const PASS_KEYS: &str = "fleet/pass-keys";

pub fn agents_of(place: &Place) -> String {
    format!("{AGENTS}{}/{}/", place.service, place.environment)
}

pub fn agent(place: &Place, name: &str) -> String {
    format!("{}{name}", agents_of(place))
}

pub fn orders_of(place: &Place) -> String {
    format!("fleet/order/{}/{}/", place.service, place.environment)
}

pub fn order(place: &Place, name: &str) -> String {
    format!("{}{name}", orders_of(place))
}

pub fn peers_of(place: &Place) -> String {
    format!("fleet/peer/{}/{}/", place.service, place.environment)
}

pub fn peer(place: &Place, name: &str) -> String {
    format!("{}{name}", peers_of(place))
}

pub fn told(place: &Place) -> String {
    format!("fleet/told/{}/{}", place.service, place.environment)
}

/// Place and name of the key of an agent.
pub fn read_agent(key: &str) -> Option<(Place, &str)> {
    let mut parts = key.strip_prefix(AGENTS)?.splitn(3, '/');
    let (service, environment, name) = (parts.next()?, parts.next()?, parts.next()?);
    let place = Place { service: service.to_owned(), environment: environment.to_owned() };
    Some((place, name))
}
