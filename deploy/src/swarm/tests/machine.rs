//! The downloader by single events.

use super::super::Bits;
use super::super::downloader::{Downloader, Effect, Event, Failure, Limits, Source, Why};

fn downloader(pieces: usize) -> Downloader {
    limited(pieces, Limits::default())
}

/// A downloader of so many pieces of a MiB each, with these limits.
fn limited(pieces: usize, limits: Limits) -> Downloader {
    Downloader::new(limits, Bits::none(pieces), vec![1 << 20; pieces].into(), 7, 0)
}

fn bits(len: usize, set: &[usize]) -> Bits {
    let mut bits = Bits::none(len);
    for index in set {
        bits.set(*index);
    }
    bits
}

fn told(peers: &[u32], grants: &[u32]) -> Event {
    let peers = peers.iter().map(|it| (*it, false)).collect();
    Event::Told { peers, grants: grants.to_vec(), again: 2_000 }
}

fn fetched(effects: &[Effect]) -> Vec<(Source, u32)> {
    let fetch = |it: &Effect| match it {
        Effect::Fetch(from, piece) => Some((*from, *piece)),
        _ => None,
    };
    effects.iter().filter_map(fetch).collect()
}

#[test]
fn it_asks_the_tracker_first_and_fetches_the_rarest_piece_first() {
    let limits = Limits { downloads: 1, ..Limits::default() };
    let mut machine = limited(4, limits);
    let effects = machine.handle(0, Event::Tick);
    assert_eq!(effects, [Effect::Announce { seeded: Vec::new(), starving: Vec::new() }]);
    assert_eq!(
        machine.handle(1, told(&[1, 2, 3], &[])),
        [Effect::AskHas(1), Effect::AskHas(2), Effect::AskHas(3)]
    );
    let effects = machine.handle(2, Event::Has(1, bits(4, &[2])));
    assert_eq!(fetched(&effects), [(Source::Peer(1), 2)]);
    for (peer, pieces) in [(2, [0, 3].as_slice()), (3, [0].as_slice())] {
        assert!(fetched(&machine.handle(3, Event::Has(peer, bits(4, pieces)))).is_empty());
    }
    let effects = machine.handle(4, Event::Came(Source::Peer(1), 2));
    assert_eq!(fetched(&effects), [(Source::Peer(2), 3)], "two have the other one");
}

#[test]
fn the_origin_is_asked_for_what_was_granted_and_the_tracker_hears_of_it() {
    let mut machine = downloader(3);
    machine.handle(0, Event::Tick);
    let effects = machine.handle(1, told(&[], &[2, 9]));
    assert_eq!(fetched(&effects), [(Source::Origin, 2)], "there is no piece 9");
    let effects = machine.handle(60, Event::Came(Source::Origin, 2));
    assert_eq!(effects, [Effect::Announce { seeded: vec![2], starving: Vec::new() }]);
    assert_eq!(machine.have(), &bits(3, &[2]));
}

#[test]
fn what_others_have_is_not_fetched_from_the_origin_whoever_grants_it() {
    let mut machine = downloader(5);
    machine.handle(0, Event::Tick);
    machine.handle(1, told(&[1, 2], &[]));
    let mut flights = Vec::new();
    for peer in [1, 2] {
        let has = bits(5, &[0, 1, 2, 3]);
        flights.extend(fetched(&machine.handle(2, Event::Has(peer, has))));
    }
    assert_eq!(flights.len(), 3);
    let left = (0..4).find(|it| flights.iter().all(|(_, piece)| piece != it)).unwrap();
    machine.handle(10, told(&[1, 2], &[left, 4]));
    let effects = machine.handle(60, Event::Came(flights[0].0, flights[0].1));
    assert_eq!(fetched(&effects), [(Source::Origin, 4)]);
    let told = Effect::Announce { seeded: vec![left], starving: Vec::new() };
    assert!(effects.contains(&told), "{effects:?}");
}

#[test]
fn who_sends_other_bytes_is_dropped_and_never_asked_again() {
    let mut machine = downloader(3);
    machine.handle(0, Event::Tick);
    machine.handle(1, told(&[1, 2], &[]));
    let effects = machine.handle(2, Event::Has(1, Bits::all(3)));
    assert_eq!(fetched(&effects).len(), 2, "so many of one peer at once");
    let (from, piece) = fetched(&effects)[0];
    let effects = machine.handle(3, Event::Failed(from, piece, Failure::Corrupt));
    assert!(effects.contains(&Effect::Drop(1, Why::Lied)), "{effects:?}");
    assert!(effects.iter().any(|it| matches!(it, Effect::Cancel(Source::Peer(1), _))));
    machine.handle(10_000_000, Event::Tick);
    let effects = machine.handle(10_000_001, told(&[1], &[]));
    assert!(!effects.contains(&Effect::AskHas(1)), "{effects:?}");
}

#[test]
fn who_takes_too_long_is_dropped_for_a_while_and_others_are_asked() {
    let mut machine = downloader(2);
    machine.handle(0, Event::Tick);
    machine.handle(1, told(&[1, 2], &[]));
    let first = fetched(&machine.handle(2, Event::Has(1, Bits::all(2))));
    let [(one, piece), (_, last)] = first[..] else { panic!("{first:?}") };
    assert_eq!(one, Source::Peer(1));
    assert!(fetched(&machine.handle(3, Event::Has(2, Bits::all(2)))).is_empty());
    machine.handle(1_002, Event::Came(one, piece));
    // The other is late: somebody else is asked as well, and the first who brings it ends it.
    let effects = machine.handle(2_100, Event::Tick);
    assert_eq!(fetched(&effects), [(Source::Peer(2), last)]);
    let effects = machine.handle(7_000, Event::Tick);
    assert!(effects.contains(&Effect::Drop(1, Why::Slow)), "{effects:?}");
    assert_eq!(machine.handle(7_001, Event::Came(Source::Peer(2), last)), [Effect::Done]);
    assert!(machine.handle(7_002, Event::Tick).is_empty(), "it is over");
}

#[test]
fn what_is_late_is_asked_of_another_one_although_who_is_late_is_near() {
    let mut machine = downloader(1);
    machine.handle(0, Event::Tick);
    let peers = vec![(1, true), (2, false)];
    machine.handle(1, Event::Told { peers, grants: Vec::new(), again: 60_000 });
    let first = fetched(&machine.handle(2, Event::Has(1, Bits::all(1))));
    assert_eq!(first, [(Source::Peer(1), 0)]);
    assert!(fetched(&machine.handle(3, Event::Has(2, Bits::all(1)))).is_empty());
    assert_eq!(fetched(&machine.handle(2_100, Event::Tick)), [(Source::Peer(2), 0)]);
}

#[test]
fn who_is_busy_is_asked_again_a_moment_later() {
    let mut machine = downloader(1);
    machine.handle(0, Event::Tick);
    machine.handle(1, told(&[1], &[]));
    machine.handle(2, Event::Has(1, Bits::all(1)));
    let effects = machine.handle(3, Event::Failed(Source::Peer(1), 0, Failure::Busy));
    assert!(effects.is_empty(), "{effects:?}");
    let wake = machine.wake_at(3);
    assert!(wake > 3 && wake < 1_000, "{wake}");
    assert_eq!(fetched(&machine.handle(wake, Event::Tick)), [(Source::Peer(1), 0)]);
}

#[test]
fn who_finds_nothing_says_so_and_then_helps_itself() {
    let mut machine = downloader(20);
    machine.handle(0, Event::Tick);
    machine.handle(1, told(&[], &[]));
    let (mut now, mut starved, mut asked) = (1, false, Vec::new());
    while asked.is_empty() && now < 120_000 {
        now = machine.wake_at(now);
        let effects = machine.handle(now, Event::Tick);
        for effect in &effects {
            if let Effect::Announce { starving, .. } = effect {
                starved |= starving.len() == 16;
                machine.handle(now, told(&[], &[]));
            }
        }
        asked.extend(fetched(&effects));
    }
    assert!(starved && !asked.is_empty(), "at {now}");
    assert!(asked.iter().all(|(from, _)| *from == Source::Origin));
}

#[test]
fn who_has_to_help_itself_again_takes_twice_as_much() {
    let mut machine = downloader(40);
    let (mut now, mut rounds) = (0, Vec::new());
    while !machine.have().is_full() && now < 1_000_000 {
        now = machine.wake_at(now);
        let (mut effects, mut count) = (machine.handle(now, Event::Tick), 0);
        while let Some(effect) = effects.pop() {
            match effect {
                Effect::Announce { .. } => effects.extend(machine.handle(now, Event::NotTold)),
                Effect::Fetch(from, piece) => {
                    count += 1;
                    effects.extend(machine.handle(now, Event::Came(from, piece)));
                }
                _ => {}
            }
        }
        rounds.extend((count > 0).then_some(count));
    }
    assert_eq!(rounds, [8, 16, 16]);
}

#[test]
fn an_origin_whose_bytes_are_not_those_of_the_list_is_said() {
    let mut machine = downloader(2);
    machine.handle(0, Event::Tick);
    machine.handle(1, told(&[], &[1]));
    let effects = machine.handle(2, Event::Failed(Source::Origin, 1, Failure::Corrupt));
    assert!(effects.contains(&Effect::Broken(1)), "{effects:?}");
}

#[test]
fn whoever_says_what_cannot_be_is_dropped() {
    let mut machine = downloader(2);
    machine.handle(0, Event::Tick);
    machine.handle(1, told(&[5], &[]));
    let effects = machine.handle(2, Event::Has(5, Bits::all(3)));
    assert!(effects.contains(&Effect::Drop(5, Why::Lied)), "{effects:?}");
}
