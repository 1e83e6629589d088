//! Everything that goes wrong, at random: each change still ends as it should.

use kiln_ci::queue::{ChangeId, Event, Mode, Options, Refusal, Standing};

use crate::world::{MINUTE, Truth, World};

fn some_change(world: &mut World) -> Option<ChangeId> {
    let ids: Vec<_> = world.lane.changes.keys().copied().collect();
    world.rng.choice(ids)
}

fn disturb(world: &mut World) {
    match world.rng.u32(..14) {
        0 => world.crash(),
        1 => {
            if let Some(id) = some_change(world) {
                world.push_again(id);
            }
        }
        2 => {
            if let Some(id) = some_change(world) {
                world.tell(Event::Remove(id));
            }
        }
        3 => {
            if let Some(id) = some_change(world) {
                world.tell(Event::Deleted(id));
            }
        }
        4 => {
            let red = world.rng.f64() < 0.3;
            world.move_target(red);
        }
        5 => world.refuse = Some(Refusal::Refused("no".into())),
        6 => world.refuse = Some(Refusal::Moved),
        7 => world.tell(Event::Pause("by hand".into())),
        8 => world.unable = 0.2,
        9 => {
            let modes = [Mode::Throughput, Mode::Latency];
            let mode = modes[world.rng.usize(..2)];
            world.tell(Event::Mode(mode));
        }
        _ => {
            world.unable = 0.0;
            world.tell(Event::Resume);
        }
    }
}

/// The end of all trouble: what waits is decided, and only what waits for a person is left.
fn come_to_rest(world: &mut World) {
    world.unable = 0.0;
    world.refuse = None;
    if world.lane.base.as_ref().is_some_and(|it| it.red || !it.green) {
        world.move_target(false);
    }
    for round in 0..5_000 {
        world.tell(Event::Resume);
        let until = world.now + MINUTE;
        while world.step(until) {}
        world.tell(Event::Tick);
        let open = world.lane.changes.values().any(|it| !matches!(it.standing, Standing::Held(_)));
        if !open && world.idle() {
            return;
        }
        assert!(round < 4_999, "it does not come to rest: {:#?}", world.lane);
    }
}

fn live(seed: u64, independent: bool) -> (usize, u64) {
    let truth = Truth {
        conflicts: 0.05,
        areas: if seed.is_multiple_of(3) { 50 } else { 0 },
        proven: seed.is_multiple_of(2),
        ..Truth::new(0.1, 0.02, seed)
    };
    let mode = if seed % 4 < 2 { Mode::Throughput } else { Mode::Latency };
    let workers = 1 + usize::try_from(seed % 7).unwrap_or(0);
    let mut world = World::new(truth, Options { mode, workers, independent, ..Options::default() });
    for _ in 0..150 {
        for _ in 0..world.rng.u32(..4) {
            world.arrive();
        }
        let until = world.now + world.rng.u64(..4 * MINUTE);
        while world.step(until) {}
        if world.rng.f64() < 0.3 {
            disturb(&mut world);
        }
    }
    come_to_rest(&mut world);
    let left = world.lane.changes.len() as u64;
    assert_eq!(world.ended.len() as u64 + left, world.branches, "a change is lost");
    (world.ended.len(), left)
}

#[test]
fn nothing_is_lost_landed_untested_or_rejected_without_fault() {
    let (mut ended, mut held) = (0, 0);
    for seed in 0..80 {
        let (here, left) = live(seed, false);
        ended += here;
        held += left;
    }
    println!("{ended} changes ended, {held} are held for a person");
    assert!(ended > 10_000, "{ended}");
    assert!(held < 500, "{held}");
}

#[test]
fn nor_is_it_where_what_passed_counts_on_a_target_that_moved() {
    let lives: Vec<_> = (100..120).map(|seed| live(seed, true)).collect();
    let ended: usize = lives.iter().map(|(ended, _)| ended).sum();
    let held: u64 = lives.iter().map(|(_, held)| held).sum();
    println!("{ended} changes ended, {held} are held for a person");
    assert!(ended > 2_500, "{ended}");
    assert!(held < 125, "{held}");
}
