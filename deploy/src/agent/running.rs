//! The agent as it runs: one thread asks for orders, one carries them out, one probes, one reports. They meet in what is
//! known, and wake each other when it changes.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kiln_net::{Backoff, causes};

use super::disk;
use super::link::{Health, Link, LinkError, Report, Speaker, Status, short};
use super::service::Service;
use super::source::Source;
use super::state::{AgentState, Order};
use super::work::{Agent, AgentError};
use crate::oci::ContentDigest;

/// How long a server may keep a question for orders open.
const ORDER_WAIT: Duration = Duration::from_secs(20);
/// The pause after an answer that says nothing new.
const ORDER_PAUSE: Duration = Duration::from_secs(1);
/// Pauses after a server that did not answer, and after a version that could not be had.
const ASK_AGAIN: Backoff = Backoff::new(Duration::from_millis(250), Duration::from_secs(30));
const PULL_AGAIN: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(60));

/// What an agent is started with.
#[derive(Debug, Clone)]
pub struct Told {
    pub speaker: Speaker,
    pub address: Option<String>,
    pub labels: BTreeMap<String, String>,
    pub software: String,
    /// The time between two reports when nothing changes.
    pub heartbeat: Duration,
    /// The time between two probes.
    pub probe_every: Duration,
}

#[derive(Default)]
struct Known {
    /// The newest that was heard.
    order: Option<Order>,
    health: Health,
    /// An order is being carried out: what runs is looked at when that is over.
    is_busy: bool,
    /// The server knows of this agent.
    is_registered: bool,
    /// Why the order does not come to an end, for now.
    hindered: Option<String>,
    /// Grows with everything that is to be reported.
    news: u64,
    stopped: bool,
}

/// Everything that the threads share.
pub struct Running<L, S> {
    link: Arc<L>,
    agent: Agent<S, Service>,
    told: Told,
    known: Mutex<Known>,
    changed: Condvar,
}

impl<L: Link, S: Source> Running<L, S> {
    pub fn new(link: Arc<L>, agent: Agent<S, Service>, told: Told) -> Self {
        Self { link, agent, told, known: Mutex::default(), changed: Condvar::new() }
    }

    /// Works until [`Self::stop`]. The agent's process has ended when this returns and it is dropped. Where one of its
    /// threads panics the others stop as well, and then this panics.
    pub fn run(&self) {
        let works: [fn(&Self); 4] = [Self::listen, Self::probe, Self::tell, Self::install];
        std::thread::scope(|scope| {
            for work in works {
                scope.spawn(move || {
                    let _stops = Stops(self);
                    work(self);
                });
            }
        });
    }

    pub fn stop(&self) {
        self.lock().stopped = true;
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopped(&self) -> bool {
        self.lock().stopped
    }

    /// Waits until something is different, or for so long; `false`: the agent ends.
    fn pause(&self, time: Duration, is_over: impl Fn(&Known) -> bool) -> bool {
        let until = Instant::now() + time;
        let mut known = self.lock();
        while !known.stopped && !is_over(&known) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            known =
                self.changed.wait_timeout(known, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        !known.stopped
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        let mut known = self.lock();
        change(&mut known);
        known.news += 1;
        drop(known);
        self.changed.notify_all();
    }

    // Orders.

    fn listen(&self) {
        let (mut failures, mut complaint) = (0, Complaint::default());
        // Who is not known yet is told nothing.
        self.pause(ORDER_WAIT, |known| known.is_registered);
        while !self.is_stopped() {
            let known = self.lock().order.as_ref().map(|it| it.generation).unwrap_or_default();
            match self.link.order(&self.told.speaker, known, ORDER_WAIT) {
                Ok(order) => {
                    failures = 0;
                    complaint.is_over();
                    // A server that knows less than this agent answers at once, each time.
                    if !self.hear(order) {
                        self.pause(ORDER_PAUSE, |_| false);
                    }
                }
                Err(error) => {
                    failures += 1;
                    if !self.is_stopped() {
                        complaint.say("no orders are heard, asking again", error);
                    }
                    self.pause(ASK_AGAIN.pause(failures), |_| false);
                }
            }
        }
    }

    /// `false`: there was one, and it is not newer than what is known.
    fn hear(&self, order: Option<Order>) -> bool {
        let Some(order) = order else { return true };
        let newest = self.lock().order.as_ref().map(|it| it.generation);
        let is_newer = newest.is_none_or(|newest| order.generation > newest);
        if is_newer {
            tracing::info!(version = %order.version, generation = ?order.generation, "an order");
            self.change(|known| known.order = Some(order));
        }
        is_newer
    }

    // What is carried out.

    fn install(&self) {
        self.begin();
        let mut failures = 0;
        while !self.is_stopped() {
            let heard = self.lock().order.clone();
            match self.due(heard.as_ref()) {
                None => {
                    failures = 0;
                    self.pause(self.told.heartbeat, |known| known.order != heard);
                }
                Some(order) => failures = self.carry_out(&order, failures),
            }
        }
    }

    /// Goes on where an earlier agent was stopped.
    fn begin(&self) {
        if let Some(place) = self.agent.place_of_running()
            && let Err(error) = self.agent.activation().start(&place)
        {
            tracing::warn!(error = %causes::chain(&error), "what ran before does not start");
        }
        let state = match self.agent.state() {
            Ok(state) => state,
            Err(error) => return self.hindered(&error),
        };
        if let Some(version) = state.version.filter(|_| state.open) {
            self.change(|known| {
                known.order = Some(Order { version, generation: state.generation });
            });
        }
    }

    /// The order that is not carried out yet. What was given up stays so until there is a newer one.
    fn due(&self, heard: Option<&Order>) -> Option<Order> {
        let order = heard?.clone();
        let state = self.agent.state().ok()?;
        let is_settled = state.settled >= order.generation;
        // Somebody else has pointed the link elsewhere.
        let drifted = is_settled
            && state.failed.is_none()
            && state.generation == order.generation
            // Another version of the same generation is refused, however often it is said.
            && state.version.as_ref() == Some(&order.version)
            && self.agent.running().as_ref() != Some(&order.version);
        (!is_settled || drifted).then_some(order)
    }

    fn carry_out(&self, order: &Order, failures: u32) -> u32 {
        self.change(|known| (known.hindered, known.is_busy) = (None, true));
        let goes_on = |_| {
            let known = self.lock();
            !known.stopped
                && known.order.as_ref().is_none_or(|it| it.generation <= order.generation)
        };
        let begun = Instant::now();
        let done = self.agent.obey(order, &goes_on);
        // Whoever has something newer to do does not wait for a probe.
        let health = (!matches!(done, Err(AgentError::Stopped))).then(|| self.look());
        self.change(|known| {
            known.is_busy = false;
            known.health = health.unwrap_or_default();
        });
        match done {
            Ok(_) => {
                tracing::info!(version = %order.version, took = ?begun.elapsed(), "the version runs");
                0
            }
            Err(AgentError::Stopped) => 0,
            Err(error) if error.is_final() => {
                tracing::error!(error = %causes::chain(&error), version = %order.version, "the order is given up");
                0
            }
            Err(error) => {
                self.hindered(&error);
                let generation = order.generation;
                self.pause(PULL_AGAIN.pause(failures + 1), |known| {
                    known.order.as_ref().is_some_and(|it| it.generation > generation)
                });
                failures + 1
            }
        }
    }

    fn hindered(&self, error: &AgentError) {
        let why = short(&causes::chain(error));
        tracing::warn!(why, "the order is not carried out yet");
        self.change(|known| known.hindered = Some(why));
    }

    // How it is.

    fn look(&self) -> Health {
        let place = self.agent.place_of_running();
        place.map_or(Health::Unknown, |it| self.agent.activation().health(&it))
    }

    fn probe(&self) {
        while !self.is_stopped() {
            let before = self.lock().news;
            let health = self.look();
            let known = self.lock();
            let (news, differs) = (known.news, !known.is_busy && known.health != health);
            drop(known);
            // What was looked at while it was switched is neither the one nor the other.
            if differs && news == before {
                self.change(|known| known.health = health);
            }
            let news = self.lock().news;
            let wait = self.told.probe_every;
            if !self.pause(wait, |known| known.news != news) {
                break;
            }
            // What changes is looked at soon, and never without a pause.
            self.pause(wait.min(Duration::from_millis(100)), |_| false);
        }
    }

    fn tell(&self) {
        let (mut failures, mut complaint) = (0, Complaint::default());
        while !self.is_stopped() {
            let news = self.lock().news;
            let wait = match self.link.report(&self.report()) {
                Ok(()) => {
                    failures = 0;
                    complaint.is_over();
                    self.lock().is_registered = true;
                    self.changed.notify_all();
                    self.told.heartbeat
                }
                Err(error) => {
                    failures += 1;
                    if !self.is_stopped() {
                        complaint.say("the report is not taken, telling it again", error);
                    }
                    ASK_AGAIN.pause(failures).min(self.told.heartbeat)
                }
            };
            self.pause(wait, |known| failures == 0 && known.news != news);
        }
    }

    /// What is found, not what was meant.
    pub fn status(&self) -> Status {
        // Without it no order is carried out: whoever waits for that has to hear why.
        let (state, unread) = match self.agent.state() {
            Ok(state) => (state, None),
            Err(error) => (AgentState::default(), Some(short(&causes::chain(&error)))),
        };
        let (health, hindered) = {
            let known = self.lock();
            (known.health.clone(), known.hindered.clone())
        };
        let process = self.agent.activation().process.as_ref();
        let running = match process {
            None => self.agent.running(),
            Some(process) => process.running().and_then(|it| it.parse::<ContentDigest>().ok()),
        };
        Status {
            running,
            previous: state.previous,
            accepted: state.generation,
            settled: state.settled,
            failed: unread.or(state.failed).or(hindered.filter(|_| state.open)),
            health,
            crashes: process.map_or(0, |it| it.crashes().0),
            free: disk::free(self.agent.root()).unwrap_or(0),
        }
    }

    fn report(&self) -> Report {
        let Told { speaker, address, labels, software, .. } = self.told.clone();
        Report { from: speaker, address, labels, software, status: self.status() }
    }
}

/// Stops the agent when one of its threads ends, however it does: one that does only a part of its work seems to be well.
struct Stops<'a, L: Link, S: Source>(&'a Running<L, S>);

impl<L: Link, S: Source> Drop for Stops<'_, L, S> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Says why the server does not answer, once for each reason.
#[derive(Default)]
struct Complaint(Option<LinkError>);

impl Complaint {
    fn say(&mut self, what: &str, error: LinkError) {
        if self.0.as_ref() != Some(&error) {
            tracing::warn!(%error, "{what}");
            self.0 = Some(error);
        }
    }

    fn is_over(&mut self) {
        if self.0.take().is_some() {
            tracing::info!("the server answers again");
        }
    }
}
