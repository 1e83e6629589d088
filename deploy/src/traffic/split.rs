//! A split as balancers are told it: every word checked, every member with its weight.

use std::collections::HashSet;

use super::error::TrafficError;
use super::weights::{Part, weights};
use crate::rollouts::machine::Generation;
use crate::rollouts::parts::{Place, Pool, Split};
use crate::words::{is_address, is_name, is_part};

/// Members of all pools.
pub const MAX_MEMBERS: usize = 10_000;
const MAX_POOLS: usize = 16;
/// The part of a percent by which shares may miss 100 together.
const ROUNDING: f64 = 0.01;

/// A server of a balancer. With weight 0 it gets no new request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    pub name: String,
    pub address: String,
    pub weight: u32,
}

/// What a balancer is to do for a place.
#[derive(Debug, Clone, PartialEq)]
pub struct Checked {
    /// What the balancer calls the place: `SERVICE.ENVIRONMENT`.
    pub name: String,
    pub generation: Generation,
    pub servers: Vec<Server>,
    /// All of the split as one line of text, without a character that ends a comment.
    pub line: String,
}

/// What a balancer calls a place. No part has a dot, so that no two places have the same.
pub fn name_of(place: &Place) -> Result<String, TrafficError> {
    for part in [&place.service, &place.environment] {
        if !is_part(part) {
            let expected = "expected 1 to 63 letters, digits, _ and -";
            return Err(wrong(format!("{part:?} cannot name anything in a balancer: {expected}")));
        }
    }
    Ok(format!("{}.{}", place.service, place.environment))
}

/// Checks a split. `most`: the highest weight that the balancer knows.
pub fn check(place: &Place, split: &Split, most: u32) -> Result<Checked, TrafficError> {
    let name = name_of(place)?;
    words(&split.pools)?;
    shares(&split.pools)?;
    let part = |pool: &Pool| Part { share: pool.share, members: pool.members.len() };
    let parts: Vec<_> = split.pools.iter().map(part).collect();
    let weights =
        weights(&parts, most).map_err(|nearest| wrong(too_fine(&parts, &nearest, most)))?;
    let of = |(pool, weight): (&Pool, u32)| {
        let server = move |member: &crate::rollouts::parts::Member| Server {
            name: member.name.clone(),
            address: member.address.clone(),
            weight,
        };
        pool.members.iter().map(server).collect::<Vec<_>>()
    };
    let servers = split.pools.iter().zip(weights).flat_map(of).collect();
    // Text and numbers are written whatever they are; what is no number is null.
    let line = serde_json::to_string(split).unwrap_or_default();
    Ok(Checked { name, generation: split.generation, servers, line })
}

fn words(pools: &[Pool]) -> Result<(), TrafficError> {
    let count: usize = pools.iter().map(|pool| pool.members.len()).sum();
    if pools.len() > MAX_POOLS || count > MAX_MEMBERS {
        let text = format!(
            "{count} members in {} pools; at most {MAX_MEMBERS} in {MAX_POOLS} are",
            pools.len()
        );
        return Err(wrong(text));
    }
    let (mut names, mut addresses) = (HashSet::new(), HashSet::new());
    for member in pools.iter().flat_map(|pool| &pool.members) {
        if !is_name(&member.name) {
            return Err(wrong(format!("{:?} cannot name a server", shown(&member.name))));
        }
        if !is_address(&member.address) {
            let (name, address) = (&member.name, shown(&member.address));
            return Err(wrong(format!("{name}: {address:?} is no address: expected host:port")));
        }
        if !names.insert(&member.name) || !addresses.insert(&member.address) {
            let (name, address) = (&member.name, &member.address);
            return Err(wrong(format!("{name} ({address}) or its address is there twice")));
        }
    }
    Ok(())
}

fn shares(pools: &[Pool]) -> Result<(), TrafficError> {
    for pool in pools {
        if !(0.0..=100.0).contains(&pool.share) {
            return Err(wrong(format!("{} is no share in percent", pool.share)));
        }
        if pool.share > 0.0 && pool.members.is_empty() {
            return Err(wrong(format!("nobody is there to get {} % of the requests", pool.share)));
        }
    }
    let sum: f64 = pools.iter().map(|pool| pool.share).sum();
    if (sum - 100.0).abs() > ROUNDING {
        return Err(wrong(format!("the shares add up to {sum} %, not to 100")));
    }
    Ok(())
}

fn too_fine(parts: &[Part], nearest: &[f64], most: u32) -> String {
    let worst =
        |(part, near): (&Part, &f64)| ((part.share - near).abs() / part.share, part.share, *near);
    let pairs = parts.iter().zip(nearest).filter(|(part, _)| part.share > 0.0).map(worst);
    let worst = pairs.max_by(|one, other| one.0.total_cmp(&other.0));
    let (_, share, near) = worst.unwrap_or_default();
    format!("weights up to {most} cannot express {share} %; the nearest is {near:.2} %")
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

fn wrong(text: String) -> TrafficError {
    TrafficError::Split(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollouts::parts::{Member, Side};

    fn place() -> Place {
        Place { service: "api".to_owned(), environment: "prod".to_owned() }
    }

    fn pool(side: Side, share: f64, members: &[(&str, &str)]) -> Pool {
        let member = |(name, address): &(&str, &str)| Member {
            name: (*name).to_owned(),
            address: (*address).to_owned(),
        };
        Pool { side, share, members: members.iter().map(member).collect() }
    }

    fn checked(pools: Vec<Pool>) -> Result<Checked, String> {
        let split = Split { generation: Generation { fence: 1, change: 2 }, pools };
        check(&place(), &split, 256).map_err(|error| error.to_string())
    }

    #[test]
    fn members_get_what_their_pool_gets() {
        let found = checked(vec![
            pool(Side::Baseline, 90.0, &[("a", "10.0.0.1:80"), ("b", "10.0.0.2:80")]),
            pool(Side::Canary, 10.0, &[("c", "[::1]:80")]),
        ]);
        let found = found.unwrap();
        let weights: Vec<_> =
            found.servers.iter().map(|it| (it.name.as_str(), it.weight)).collect();
        assert_eq!(weights, [("a", 9), ("b", 9), ("c", 2)]);
        assert_eq!(found.name, "api.prod");
    }

    #[test]
    fn what_no_balancer_could_do_is_refused() {
        let all = |members| vec![pool(Side::Baseline, 100.0, members)];
        for (pools, part) in [
            (all(&[]), "nobody is there"),
            (all(&[("a; } server {", "h:80")]), "cannot name a server"),
            (all(&[("a", "h:80 weight=9; #")]), "is no address"),
            (all(&[("a", "h:80\nserver x y:1")]), "is no address"),
            (all(&[("a", "h:80"), ("a", "h:81")]), "twice"),
            (all(&[("a", "h:80"), ("b", "h:80")]), "twice"),
            (vec![pool(Side::Canary, 50.0, &[("a", "h:80")])], "add up to 50 %"),
            (vec![pool(Side::Canary, f64::NAN, &[("a", "h:80")])], "no share"),
            (vec![pool(Side::Canary, -1.0, &[]), pool(Side::Baseline, 101.0, &[])], "no share"),
            (
                vec![
                    pool(Side::Baseline, 99.9, &[("a", "h:80")]),
                    pool(Side::Canary, 0.1, &[("b", "h:81")]),
                ],
                "cannot express 0.1 %; the nearest is 0.39 %",
            ),
        ] {
            let error = checked(pools).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        for bad in ["", "../x", "a.b", "a b", "a}"] {
            let place = Place { service: bad.to_owned(), ..place() };
            assert!(name_of(&place).is_err(), "{bad:?}");
        }
    }
}
