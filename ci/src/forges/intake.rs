//! Takes deliveries in: proven, understood, and acted on once.

mod pushing;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kiln_net::causes::chain;

use super::decide::{Decision, Ignored, Order, decide, decide_found};
use super::desks::{AskError, Desks};
use super::event::{Change, Event, Malformed, Person, Said};
use super::figures::{ForgeFigures, count};
use super::forge::{Forge, ForgeName};
use super::heard::{Heard, Left, Turned};
use super::known::{Known, Names, WINDOW};
use super::pace::{MAX_IN_A_MINUTE, Pace};
use super::payload::payload;
use super::proof::{Head, Invalid, verify};
use super::secrets::Secrets;
use crate::model::Time;
use crate::pipelines::control::Registry;
use crate::queue::serving::Request;
use crate::services::Clock;
use crate::storage::{Records, StorageError};

/// Bytes of a delivery. GitHub sends up to 25 MB, of which pushes and their commits are the large ones; what is said of
/// a change is some tens of kilobytes.
pub const MAX_DELIVERY: usize = 2 << 20;

/// Asks a forge. Errors are words.
#[async_trait]
pub trait LookUp: Send + Sync + 'static {
    /// The change that a comment is about.
    async fn change(&self, forge: &Forge, said: &Said) -> Result<Change, String>;

    /// Whether a change is open now.
    async fn is_open(&self, forge: &Forge, repository: &str, number: u64) -> Result<bool, String>;

    /// Whether somebody may push to a repository.
    async fn writes(&self, forge: &Forge, repository: &str, by: &Person) -> Result<bool, String>;
}

/// What a delivery came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    Pong,
    /// Queues were asked, for people.
    Asked(String),
    /// The delivery was acted on before.
    Known,
    /// Nothing follows from the delivery, and why.
    Ignored(String),
}

/// Why a delivery is not taken. Nothing of the secret can be learned from it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    #[error("there is no forge {0:?}")]
    NoForge(String),
    #[error("a delivery is JSON: choose application/json as the content type of the webhook")]
    NotJson,
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("the delivery is of an event longer than {0:?} ago")]
    Late(Duration),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("more than {0} deliveries in a minute")]
    Many(u32),
    #[error("{0}")]
    Unavailable(String),
}

impl From<StorageError> for Rejected {
    fn from(error: StorageError) -> Self {
        Self::Unavailable(chain(&error))
    }
}

/// A delivery whose headers could belong to one.
#[derive(Debug)]
pub struct Admitted {
    forge: ForgeName,
    head: Head,
}

/// A forge, and what it has sent.
struct Door {
    forge: Forge,
    known: Known,
    pace: Pace,
    left: Left,
}

/// The way in of all forges.
pub struct Intake {
    doors: BTreeMap<ForgeName, Door>,
    records: Arc<dyn Records>,
    secrets: Arc<Secrets>,
    desks: Arc<dyn Desks>,
    look_up: Arc<dyn LookUp>,
    pipelines: Arc<dyn Registry>,
    clock: Arc<dyn Clock>,
}

/// What forges meet here.
pub struct IntakeParts {
    pub records: Arc<dyn Records>,
    pub secrets: Arc<Secrets>,
    pub desks: Arc<dyn Desks>,
    pub look_up: Arc<dyn LookUp>,
    /// The pipelines that may wait for a push.
    pub pipelines: Arc<dyn Registry>,
    pub clock: Arc<dyn Clock>,
}

impl Intake {
    pub fn new(forges: Vec<Forge>, parts: IntakeParts) -> Self {
        let IntakeParts { records, secrets, desks, look_up, pipelines, clock } = parts;
        let door = |forge: Forge| {
            let known = Known::new(records.clone(), forge.name.clone());
            let (pace, left) = (Pace::default(), Left::default());
            (forge.name.clone(), Door { forge, known, pace, left })
        };
        let doors = forges.into_iter().map(door).collect();
        Self { doors, records, secrets, desks, look_up, pipelines, clock }
    }

    /// What is left for whoever tells a forge.
    pub fn listen(&mut self, name: &ForgeName) -> Option<Heard> {
        self.doors.get_mut(name).map(|it| it.left.listen())
    }

    pub fn figures(&self) -> Vec<ForgeFigures> {
        self.doors.iter().map(|(name, door)| door.left.counts.figures(name.as_str())).collect()
    }

    /// Looks at the headers of a delivery, before anything of its body is read. `header` gives the text of a header by
    /// its name in lower case.
    pub fn admit(
        &self,
        name: &str,
        header: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Admitted, Rejected> {
        let missing = || Rejected::NoForge(name.chars().take(60).collect());
        let name = ForgeName::new(name).map_err(|_| missing())?;
        let door = self.doors.get(&name).ok_or_else(missing)?;
        let content = header("content-type").unwrap_or_default().to_ascii_lowercase();
        if content.split(';').next().map(str::trim) != Some("application/json") {
            return Err(Rejected::NotJson);
        }
        match Head::read(door.forge.kind, header) {
            Ok(head) => Ok(Admitted { forge: name, head }),
            Err(invalid) => {
                count(&door.left.counts.refused);
                Err(self.refused(door, invalid))
            }
        }
    }

    /// Takes a delivery in.
    pub async fn take(&self, admitted: Admitted, body: &[u8]) -> Result<Accepted, Rejected> {
        let Admitted { forge, head } = admitted;
        let missing = || Rejected::NoForge(forge.as_str().to_owned());
        let door = self.doors.get(&forge).ok_or_else(missing)?;
        let taken = self.taken(door, &head, body).await;
        let counts = &door.left.counts;
        count(match &taken {
            Ok(Accepted::Asked(_)) => &counts.asked,
            Ok(Accepted::Known) => &counts.known,
            Ok(Accepted::Ignored(_) | Accepted::Pong) => &counts.ignored,
            Err(Rejected::Invalid(_) | Rejected::Late(_)) => &counts.refused,
            Err(_) => &counts.failed,
        });
        taken
    }

    async fn taken(&self, door: &Door, head: &Head, body: &[u8]) -> Result<Accepted, Rejected> {
        let forge = &door.forge.name;
        let now = self.clock.now();
        let secrets = self.secrets.secrets(forge);
        if let Err(invalid) = verify(&head.proof, &secrets, body, now) {
            return Err(self.refused(door, invalid));
        }
        if !door.pace.takes(now) {
            return Err(Rejected::Many(MAX_IN_A_MINUTE));
        }
        let kind = door.forge.kind;
        let event = payload(kind, &head.event, body)?;
        let names = Names::of(kind, head, body);
        if event == Event::Pushed && door.forge.pushes {
            return self.pushed(door, &names, body).await;
        }
        timely(&head.event, &event, now)?;
        match decide(&door.forge.rules, event) {
            Decision::Pong => Ok(Accepted::Pong),
            Decision::Ignored(why) => Ok(ignored(door, &why)),
            Decision::Turned(turned) => Ok(turned_down(door, turned)),
            Decision::Ask(orders) => {
                let open = self.open(door, orders);
                let act = async { self.ask(door, &names, &open.await?).await };
                self.once(door, &names, act).await
            }
            Decision::Check { by, orders, anyway } => {
                let open = self.open(door, orders);
                let act = async { self.checked((door, &names), &by, open.await?, anyway).await };
                self.once(door, &names, act).await
            }
            Decision::LookUp(said) => {
                self.once(door, &names, self.looked_up(door, &names, &said)).await
            }
        }
    }

    /// Acts on a delivery, unless that was done before. Several may do so at once: each thing that it asks for is left once.
    async fn once(
        &self,
        door: &Door,
        names: &Names,
        act: impl Future<Output = Result<Accepted, Rejected>> + Send,
    ) -> Result<Accepted, Rejected> {
        let now = self.clock.now();
        if door.known.knows(names, now).await? {
            return Ok(Accepted::Known);
        }
        let accepted = act.await?;
        // Where that cannot be noted, what was left is known all the same.
        if let Err(error) = door.known.done(names, now).await {
            let forge = &door.forge.name;
            tracing::warn!(%forge, error = chain(&error), "a delivery cannot be noted");
        }
        Ok(accepted)
    }

    async fn looked_up(
        &self,
        door: &Door,
        names: &Names,
        said: &Said,
    ) -> Result<Accepted, Rejected> {
        let found = self.look_up.change(&door.forge, said).await;
        let change =
            found.map_err(|why| unanswered(door, "for the change of the comment", &why))?;
        match decide_found(&door.forge.rules, said, &change) {
            Decision::Ask(orders) => self.ask(door, names, &orders).await,
            Decision::Check { by, orders, anyway } => {
                self.checked((door, names), &by, orders, anyway).await
            }
            Decision::Ignored(why) => Ok(ignored(door, &why)),
            Decision::Turned(turned) => Ok(turned_down(door, turned)),
            Decision::LookUp(_) | Decision::Pong => Ok(ignored(door, &Ignored::Event)),
        }
    }

    /// Leaves out orders that queue what is closed by now, where the forge can be asked: a delivery comes late, or
    /// again.
    async fn open(&self, door: &Door, mut orders: Vec<Order>) -> Result<Vec<Order>, Rejected> {
        let add = orders.iter().find(|it| it.adds()).filter(|_| door.forge.rules.roles);
        let Some(add) = add else { return Ok(orders) };
        let open = self.look_up.is_open(&door.forge, &add.repository, add.number).await;
        if !open.map_err(|why| unanswered(door, "whether the change is open", &why))? {
            orders.retain(|it| !it.adds());
        }
        Ok(orders)
    }

    /// Asks for these if the person may push, and for the others in any case.
    async fn checked(
        &self,
        (door, names): (&Door, &Names),
        by: &Person,
        mut orders: Vec<Order>,
        mut anyway: Vec<Order>,
    ) -> Result<Accepted, Rejected> {
        let Some(first) = orders.first() else { return self.ask(door, names, &anyway).await };
        let writes = self.look_up.writes(&door.forge, &first.repository, by).await;
        if writes.map_err(|why| unanswered(door, "who may push", &why))? {
            anyway.append(&mut orders);
        }
        match anyway.is_empty() {
            true => Ok(ignored(door, &Ignored::Person(by.name.clone()))),
            false => self.ask(door, names, &anyway).await,
        }
    }

    async fn ask(
        &self,
        door: &Door,
        names: &Names,
        orders: &[Order],
    ) -> Result<Accepted, Rejected> {
        if orders.is_empty() {
            return Ok(ignored(door, &Ignored::Closed));
        }
        let forge = &door.forge.name;
        let mut words = Vec::new();
        for order in orders {
            let by = format!("{forge}: {}", order.by);
            let queue = order.queue.as_str();
            let once = door.known.once(&names.of_part(&part(order)), self.clock.now());
            match self.desks.ask(order, &by, once).await {
                Ok(false) => {}
                Ok(true) => {
                    tracing::info!(%forge, queue, number = order.number, request = ?order.request, "asked");
                    words.push(format!("queue {queue} was asked"));
                }
                Err(AskError::Refused(why)) => {
                    words.push(format!("queue {queue} refused: {why}"));
                    refused_by_queue(door, order, why);
                }
                Err(AskError::Unavailable(why)) => return Err(Rejected::Unavailable(why)),
            }
        }
        match words.is_empty() {
            true => Ok(Accepted::Known),
            false => Ok(Accepted::Asked(words.join("; "))),
        }
    }

    fn refused(&self, door: &Door, invalid: Invalid) -> Rejected {
        if let Some(refused) = door.pace.refuses(self.clock.now()) {
            let forge = &door.forge.name;
            tracing::warn!(%forge, refused, %invalid, "deliveries are refused");
        }
        Rejected::Invalid(invalid)
    }
}

/// What is forgotten by now may be a copy; so may be what does not say when it happened.
fn timely(name: &str, event: &Event, now: Time) -> Result<(), Rejected> {
    match (event.at(), event) {
        (Some(at), _) if now.since(at) > WINDOW => Err(Rejected::Late(WINDOW)),
        (None, Event::Changed { .. } | Event::Said { .. }) => {
            let why = "it does not say when it happened".to_owned();
            Err(Malformed { event: name.to_owned(), why }.into())
        }
        _ => Ok(()),
    }
}

fn unanswered(door: &Door, what: &str, why: &str) -> Rejected {
    let forge = &door.forge.name;
    tracing::warn!(%forge, why, "the forge cannot be asked {what}");
    Rejected::Unavailable(format!("the forge cannot be asked {what}: {why}"))
}

fn ignored(door: &Door, why: &Ignored) -> Accepted {
    let forge = &door.forge.name;
    tracing::debug!(%forge, %why, "a delivery asks for nothing");
    Accepted::Ignored(why.to_string())
}

/// What an order is among those of its delivery.
fn part(order: &Order) -> String {
    let what = if order.adds() { "add" } else { "remove" };
    format!("{what} {}", order.queue.as_str())
}

fn turned_down(door: &Door, turned: Turned) -> Accepted {
    let why = turned.why.clone();
    door.left.turn(turned);
    Accepted::Ignored(why)
}

/// Whoever wanted a change to be queued is told; that it was not there to be removed, nobody needs to hear.
fn refused_by_queue(door: &Door, order: &Order, why: String) {
    if let (Request::Add { .. }, Some(commit)) = (&order.request, &order.commit) {
        let (repository, commit) = (order.repository.clone(), commit.clone());
        door.left.turn(Turned { repository, commit, why, waits: false });
    }
}
