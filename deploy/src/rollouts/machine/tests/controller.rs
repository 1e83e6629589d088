//! A controller as a driver would be: it leads by a lease, reads the log, decides, appends, and only
//! then acts. It may crash or sleep between any two of these.

use std::collections::HashMap;

use super::world::{CALM, LEASE_TIME, LOCK_TIME, To, World};
use crate::rollouts::machine::{EffectId, Event, Input, Logged, Millis, RolloutState, decide};

/// Milliseconds after which an effect that nobody answered is sent again.
const RESEND: Millis = 20_000;

pub struct Controller {
    pub id: usize,
    state: Option<RolloutState>,
    sent: HashMap<EffectId, Millis>,
    inbox: Vec<Input>,
    asleep_until: Millis,
    /// Until when the lease is this one's, if nobody else took it.
    led_until: Millis,
}

impl Controller {
    pub fn new(id: usize) -> Self {
        Self {
            id,
            state: None,
            sent: HashMap::new(),
            inbox: Vec::new(),
            asleep_until: 0,
            led_until: 0,
        }
    }

    pub fn receive(&mut self, input: Input) {
        self.inbox.push(input);
    }

    pub fn state(&self) -> Option<&RolloutState> {
        self.state.as_ref()
    }

    /// Crashes: everything in memory is gone.
    fn crash(&mut self) {
        *self = Self { asleep_until: self.asleep_until, ..Self::new(self.id) };
    }

    /// Makes trouble one time in `rarely`, before the next line is reached: a crash, or a pause of a minute in which
    /// others go on. Returns whether this round is over.
    fn trouble(&mut self, world: &mut World, rarely: u32) -> bool {
        if world.now >= CALM {
            return false;
        }
        match world.random.u32(0..rarely) {
            0 => self.crash(),
            // The controller sleeps. It keeps what it knows, and wakes with that.
            1 => self.asleep_until = world.now + 60_000,
            _ => return false,
        }
        true
    }

    pub fn run(&mut self, world: &mut World) {
        if world.now < self.asleep_until {
            return;
        }
        if !world.lead(self.id) {
            // Whoever does not lead drives nothing, and reads the log when it leads again.
            self.state = None;
            return;
        }
        // Who has slept through the end of its lease leads again and may not know what others did since: for one round it acts
        // by what it knew.
        let lapsed = world.now >= self.led_until;
        self.led_until = world.now + LEASE_TIME;
        self.round(world);
        if lapsed {
            self.state = None;
        }
    }

    fn round(&mut self, world: &mut World) {
        if self.state.is_none() {
            self.state = Some(RolloutState::replay(world.spec.clone(), &world.log));
            self.sent.clear();
        }
        let mut inputs = std::mem::take(&mut self.inbox);
        inputs.extend([Input::Start, Input::Tick]);
        inputs.extend(self.probes(world));
        inputs.push(Input::Fleet(world.away()));
        inputs.extend(self.renew(world));
        for input in inputs {
            if !self.tell(world, &input) {
                return;
            }
        }
        self.act(world);
    }

    fn probes(&self, world: &mut World) -> Vec<Input> {
        let targets = self.state.iter().flat_map(|state| state.targets.keys());
        targets.map(|id| Input::Observed(*id, world.probe(*id))).collect()
    }

    fn renew(&self, world: &mut World) -> Option<Input> {
        let token = self.state.as_ref()?.lock?;
        world.locks.renew(token, world.now, LOCK_TIME).is_err().then_some(Input::LockLost)
    }

    /// Decides and appends. Returns whether the round goes on.
    fn tell(&mut self, world: &mut World, input: &Input) -> bool {
        let Some(state) = &mut self.state else { return false };
        let events: Vec<Event> = decide(state, input, world.now);
        if events.is_empty() {
            return true;
        }
        if !world.append(state.length, &events, self.id) {
            // Somebody else wrote: what this one knows is old.
            self.state = None;
            return false;
        }
        for event in events {
            state.apply(&Logged { at: world.now, event });
        }
        !self.trouble(world, 300)
    }

    fn act(&mut self, world: &mut World) {
        let pending: Vec<_> = self.state.iter().flat_map(|state| state.pending.clone()).collect();
        for (id, effect) in pending {
            let due = self.sent.get(&id).is_none_or(|sent| world.now >= sent + RESEND);
            if !due {
                continue;
            }
            self.sent.insert(id, world.now);
            world.send(To::Carry { id, effect, sender: self.id });
            if self.trouble(world, 300) {
                return;
            }
        }
    }
}
