//! Picks the peers that an agent is told: a few, mostly near ones and those that have something, anew each time.

use std::collections::HashMap;

use fastrand::Rng;

use crate::rollouts::machine::Millis;

/// Peers of one answer. Of these so many are near ones, if there are.
pub const SAMPLE: usize = 10;
const NEAR: usize = 7;
/// How often one is drawn for each that is wanted: those that have nothing are drawn in vain.
const DRAWS: usize = 4;
/// A peer that was not heard of for so long is named to nobody.
pub const FORGOTTEN: Millis = 45_000;

/// An agent that gives pieces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known<P> {
    /// Agents of one value are near each other.
    pub near: String,
    /// How many pieces the agent has.
    pub has: u32,
    pub heard: Millis,
    /// The address and the rest by which the peer is reached.
    pub peer: P,
}

/// The agents that fetch or have one list of pieces.
#[derive(Debug)]
pub struct Crowd<P> {
    peers: Vec<(String, Known<P>)>,
    places: HashMap<String, usize>,
    near: HashMap<String, Vec<usize>>,
    cleaned: Millis,
}

impl<P> Default for Crowd<P> {
    fn default() -> Self {
        Self { peers: Vec::new(), places: HashMap::new(), near: HashMap::new(), cleaned: 0 }
    }
}

impl<P: Clone> Crowd<P> {
    pub fn len(&self) -> usize {
        self.peers.len()
    }

    pub fn is_empty(&self) -> bool {
        self.peers.is_empty()
    }

    pub fn get(&self, name: &str) -> Option<&Known<P>> {
        self.places.get(name).and_then(|at| self.peers.get(*at)).map(|(_, it)| it)
    }

    /// An agent was heard. Whoever was not for long is forgotten now and then.
    pub fn hear(&mut self, name: &str, known: Known<P>, now: Millis) {
        if now >= self.cleaned.saturating_add(FORGOTTEN) {
            self.cleaned = now;
            self.keep(|it| it.heard.saturating_add(FORGOTTEN) > now);
        }
        match self.places.get(name).and_then(|at| self.peers.get_mut(*at)) {
            Some((_, before)) if before.near == known.near => *before = known,
            Some(_) => {
                self.remove(name);
                self.add(name, known);
            }
            None => self.add(name, known),
        }
    }

    pub fn remove(&mut self, name: &str) {
        if self.places.contains_key(name) {
            let peers = std::mem::take(&mut self.peers);
            self.rebuild(peers.into_iter().filter(|(it, _)| it != name));
        }
    }

    fn keep(&mut self, fits: impl Fn(&Known<P>) -> bool) {
        if self.peers.iter().any(|(_, it)| !fits(it)) {
            let peers = std::mem::take(&mut self.peers);
            self.rebuild(peers.into_iter().filter(|(_, it)| fits(it)));
        }
    }

    fn rebuild(&mut self, peers: impl Iterator<Item = (String, Known<P>)>) {
        self.places.clear();
        self.near.clear();
        for (name, known) in peers {
            self.add(&name, known);
        }
    }

    fn add(&mut self, name: &str, known: Known<P>) {
        let at = self.peers.len();
        self.places.insert(name.to_owned(), at);
        self.near.entry(known.near.clone()).or_default().push(at);
        self.peers.push((name.to_owned(), known));
    }

    /// Peers for an agent, each with whether it is near: at most [`SAMPLE`], other ones each time.
    pub fn sample(
        &self,
        name: &str,
        near: &str,
        now: Millis,
        rng: &mut Rng,
    ) -> Vec<(&str, &P, bool)> {
        let mut picked: Vec<usize> = Vec::with_capacity(SAMPLE);
        let close = self.near.get(near).map(Vec::as_slice).unwrap_or_default();
        let gives = |at: usize| {
            self.peers.get(at).is_some_and(|(other, it)| {
                other != name && it.heard.saturating_add(FORGOTTEN) > now
            })
        };
        let mut draw = |of: usize, wanted: usize, place: &dyn Fn(usize) -> Option<usize>| {
            // Few are all looked at: a draw may miss some of them.
            let start = rng.usize(..of.max(1));
            let is_small = of <= wanted * DRAWS;
            let until = (picked.len() + wanted).min(SAMPLE);
            let turns = if is_small { of } else { wanted * DRAWS };
            for turn in 0..turns {
                if picked.len() >= until {
                    break;
                }
                let index = if is_small { (start + turn) % of } else { rng.usize(..of) };
                match place(index) {
                    Some(at) if gives(at) && !picked.contains(&at) => picked.push(at),
                    _ => {}
                }
            }
            picked.len()
        };
        let has = |at: &usize| self.peers.get(*at).is_some_and(|(_, it)| it.has > 0);
        let is_far = |at: &usize| self.peers.get(*at).is_some_and(|(_, it)| it.near != near);
        let all = self.peers.len();
        let found = draw(close.len(), NEAR, &|index| close.get(index).copied().filter(has));
        let found = draw(all, SAMPLE - found, &|at| Some(at).filter(is_far).filter(has));
        let found = draw(all, SAMPLE - found, &|at| Some(at).filter(has));
        // Who has nothing yet may have something soon.
        draw(all, SAMPLE - found, &Some::<usize>);
        let named = picked.iter().filter_map(|at| self.peers.get(*at));
        named.map(|(other, it)| (other.as_str(), &it.peer, it.near == near)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd(count: usize) -> Crowd<usize> {
        let mut crowd = Crowd::default();
        for at in 0..count {
            let near = if at % 4 == 0 { "a" } else { "b" }.to_owned();
            let known = Known { near, has: u32::from(at % 5 != 4), heard: 1, peer: at };
            crowd.hear(&format!("web-{at}"), known, 1);
        }
        crowd
    }

    #[test]
    fn most_are_near_and_some_far_and_none_has_nothing() {
        let (crowd, mut rng) = (crowd(400), Rng::with_seed(1));
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..100 {
            let sample = crowd.sample("web-0", "a", 2, &mut rng);
            assert_eq!(sample.len(), SAMPLE);
            assert!(sample.iter().filter(|(_, _, near)| *near).count() >= NEAR);
            assert!(sample.iter().any(|(_, _, near)| !near));
            assert!(sample.iter().all(|(name, at, _)| *name != "web-0" && **at % 5 != 4));
            seen.extend(sample.into_iter().map(|(_, at, _)| *at));
        }
        assert!(seen.len() > 100, "they are others each time: {}", seen.len());
    }

    #[test]
    fn few_are_all_named_and_those_of_whom_nothing_is_heard_are_not() {
        let (mut crowd, mut rng) = (crowd(4), Rng::with_seed(1));
        let names = |crowd: &Crowd<usize>, now: Millis, rng: &mut Rng| {
            let mut names: Vec<_> =
                crowd.sample("web-1", "b", now, rng).into_iter().map(|(_, at, _)| *at).collect();
            names.sort_unstable();
            names
        };
        for _ in 0..20 {
            assert_eq!(names(&crowd, 2, &mut rng), [0, 2, 3]);
        }
        let known = Known { near: "b".to_owned(), has: 1, heard: FORGOTTEN, peer: 3 };
        crowd.hear("web-3", known, FORGOTTEN);
        assert_eq!(names(&crowd, FORGOTTEN + 1, &mut rng), [3]);
        crowd.remove("web-3");
        assert!(names(&crowd, FORGOTTEN + 1, &mut rng).is_empty() && crowd.len() == 3);
    }
}
