//! What follows from an event: requests to queues, or nothing, and why.

use super::command::Command;
use super::event::{Change, Event, Happened, Person, Said};
use super::forge::Rules;
use super::heard::Turned;
use crate::queue::serving::{LaneName, Request};
use crate::queue::{Branch, Commit, NameError};

/// A request to a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    pub queue: LaneName,
    pub request: Request,
    /// Who asks, as the forge calls them.
    pub by: String,
    /// The number of the change at the forge, its repository there, and its head.
    pub number: u64,
    pub repository: String,
    pub commit: Option<Commit>,
}

impl Order {
    /// Whether the order has the change queued.
    pub fn adds(&self) -> bool {
        matches!(self.request, Request::Add { .. })
    }
}

/// What a delivery comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    Pong,
    /// Queues are asked; the list has one order at least.
    Ask(Vec<Order>),
    /// The forge has to be asked first whether the person may push. If not, what is in `anyway` stands alone.
    Check {
        by: Person,
        orders: Vec<Order>,
        anyway: Vec<Order>,
    },
    /// The forge has to be asked for the change first; [`decide_found`] says what follows then.
    LookUp(Said),
    Ignored(Ignored),
    /// Nothing follows of what somebody asked for who may: they are told.
    Turned(Turned),
}

/// Why nothing follows from a delivery.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    #[error("queues do nothing about such events")]
    Event,
    #[error("queues look by themselves where branches are")]
    Pushed,
    #[error("no branch was pushed to, or one that is called as git takes no name")]
    NoBranch,
    #[error("no pipeline waits for a push to {1} of {0}")]
    NoPipeline(String, String),
    #[error("no queue lands on branches of {0}")]
    Repository(String),
    #[error("no queue lands on {1} of {0}")]
    Base(String, String),
    #[error("it neither has the label that queues it, nor lost it")]
    Label,
    #[error("the comment is no command")]
    NoCommand,
    #[error(transparent)]
    Command(#[from] super::command::NoCommand),
    #[error("{0} may not ask for that here")]
    Person(String),
    #[error("it is a draft")]
    Draft,
    #[error("it is closed")]
    Closed,
    #[error("its branch is in another repository: push it to the repository itself")]
    Foreign,
    #[error(
        "it is in no queue: its branch is in another repository, or is called as git takes no name"
    )]
    NotQueued,
    #[error(transparent)]
    Name(#[from] NameError),
}

impl Ignored {
    /// Whether somebody who may asked for it, and has to know.
    fn is_told(&self) -> bool {
        matches!(self, Self::Draft | Self::Foreign | Self::Name(_))
    }
}

/// What follows from an event. It must have been proven before.
pub fn decide(rules: &Rules, event: Event) -> Decision {
    match event {
        Event::Ping => Decision::Pong,
        Event::Pushed => Decision::Ignored(Ignored::Pushed),
        Event::Other => Decision::Ignored(Ignored::Event),
        Event::Changed { change, happened, by, .. } => {
            let decided = decision(changed(rules, &change, &happened, &by.name), &change, true);
            checked(rules, decided, &by, false)
        }
        Event::Said { said, .. } => match said.change.clone() {
            Some(change) => decide_found(rules, &said, &change),
            None => match command(rules, &said) {
                Ok(_) => Decision::LookUp(said),
                Err(why) => Decision::Ignored(why),
            },
        },
    }
}

/// What follows from a comment once the change is known that it is about.
pub fn decide_found(rules: &Rules, said: &Said, change: &Change) -> Decision {
    let same =
        change.number == said.number && change.repository.eq_ignore_ascii_case(&said.repository);
    if !same {
        return Decision::Ignored(Ignored::Event);
    }
    let found = command(rules, said).and_then(|it| found(rules, said, it, change));
    let belongs = said.belongs == Some(true);
    // No stranger has anything said beside a commit.
    let decided = decision(found, change, belongs || !rules.people.is_empty());
    checked(rules, decided, &said.by, !belongs && !said.by_author)
}

/// `tells`: whoever asks may have something told at the forge.
fn decision(decided: Result<Vec<Order>, Ignored>, change: &Change, tells: bool) -> Decision {
    match (decided, change.head.as_ref().filter(|_| tells)) {
        (Ok(orders), _) if orders.is_empty() => Decision::Ignored(Ignored::Event),
        (Ok(orders), _) => Decision::Ask(orders),
        (Err(why), Some(head)) if why.is_told() => Decision::Turned(Turned {
            repository: change.repository.clone(),
            commit: head.clone(),
            why: why.to_string(),
            waits: why == Ignored::Draft,
        }),
        (Err(why), _) => Decision::Ignored(why),
    }
}

/// Whoever has a change queued has to be able to push, where the forge can be asked for that. `all`: and whoever has one
/// removed.
fn checked(rules: &Rules, decided: Decision, by: &Person, all: bool) -> Decision {
    let Decision::Ask(orders) = decided else { return decided };
    if !rules.roles || !rules.people.is_empty() {
        return Decision::Ask(orders);
    }
    let is_checked = |it: &Order| all || it.adds();
    let (orders, anyway): (Vec<_>, Vec<_>) = orders.into_iter().partition(is_checked);
    match orders.is_empty() {
        true => Decision::Ask(anyway),
        false => Decision::Check { by: by.clone(), orders, anyway },
    }
}

/// The command of a comment, if whoever says it may.
fn command(rules: &Rules, said: &Said) -> Result<Command, Ignored> {
    let command = Command::read(&said.text).ok_or(Ignored::NoCommand)??;
    if !rules.knows(&said.repository) {
        return Err(Ignored::Repository(said.repository.clone()));
    }
    let named = match rules.people.is_empty() {
        true => rules.roles || said.belongs == Some(true),
        false => rules.names(&said.by.name),
    };
    // Whoever offers a change may take it back.
    match named || (command == Command::Remove && said.by_author) {
        true => Ok(command),
        false => Err(Ignored::Person(said.by.name.clone())),
    }
}

fn found(
    rules: &Rules,
    said: &Said,
    command: Command,
    change: &Change,
) -> Result<Vec<Order>, Ignored> {
    let order = match command {
        Command::Queue(priority) => queued(rules, change, &said.by.name, priority)?,
        Command::Remove => removed(rules, change, &change.base, &said.by.name)?,
    };
    Ok(vec![order])
}

fn changed(
    rules: &Rules,
    change: &Change,
    happened: &[Happened],
    by: &str,
) -> Result<Vec<Order>, Ignored> {
    if !rules.knows(&change.repository) {
        return Err(Ignored::Repository(change.repository.clone()));
    }
    let mut orders = Vec::new();
    let mut why = Ignored::Event;
    for it in happened {
        match happening(rules, change, it, by) {
            Ok(order) if orders.contains(&order) => {}
            Ok(order) => orders.push(order),
            Err(ignored) => why = ignored,
        }
        if let (Happened::Retargeted(_), true) = (it, labeled(rules, change)) {
            match labels(rules, change, by) {
                Ok(order) => orders.push(order),
                Err(ignored) => why = ignored,
            }
        }
    }
    if orders.is_empty() { Err(why) } else { Ok(orders) }
}

fn happening(rules: &Rules, change: &Change, it: &Happened, by: &str) -> Result<Order, Ignored> {
    let is_ours = |label: &String| rules.label.as_ref() == Some(label);
    match it {
        Happened::Labeled(label) if is_ours(label) => labels(rules, change, by),
        Happened::Unlabeled(label) if is_ours(label) => removed(rules, change, &change.base, by),
        Happened::Labeled(_) | Happened::Unlabeled(_) => Err(Ignored::Label),
        Happened::Relabeled if rules.label.is_none() => Err(Ignored::Label),
        Happened::Relabeled if !labeled(rules, change) => removed(rules, change, &change.base, by),
        Happened::Relabeled => labels(rules, change, by),
        Happened::Offered if labeled(rules, change) => labels(rules, change, by),
        Happened::Offered => Err(Ignored::Label),
        Happened::Drafted | Happened::Closed => removed(rules, change, &change.base, by),
        Happened::Retargeted(before) => removed(rules, change, before, by),
        Happened::Pushed => Err(Ignored::Pushed),
    }
}

fn labeled(rules: &Rules, change: &Change) -> bool {
    rules.label.as_ref().is_some_and(|it| change.has(it))
}

/// Whoever may label may have queued, unless people are named.
fn labels(rules: &Rules, change: &Change, by: &str) -> Result<Order, Ignored> {
    match rules.people.is_empty() || rules.names(by) {
        true => queued(rules, change, by, None),
        false => Err(Ignored::Person(by.to_owned())),
    }
}

fn queued(
    rules: &Rules,
    change: &Change,
    by: &str,
    priority: Option<u8>,
) -> Result<Order, Ignored> {
    if !change.open {
        return Err(Ignored::Closed);
    }
    if change.draft {
        return Err(Ignored::Draft);
    }
    let priority = priority.unwrap_or(rules.priority);
    order(rules, change, &change.base, by, |branch| Request::Add { branch, priority })
}

fn removed(rules: &Rules, change: &Change, base: &str, by: &str) -> Result<Order, Ignored> {
    let removed = order(rules, change, base, by, |branch| Request::Remove { branch });
    // Nobody asked for more than that it is not there.
    removed.map_err(|why| if why.is_told() { Ignored::NotQueued } else { why })
}

fn order(
    rules: &Rules,
    change: &Change,
    base: &str,
    by: &str,
    request: impl FnOnce(Branch) -> Request,
) -> Result<Order, Ignored> {
    let binding = rules.binding(&change.repository, base);
    let missing = || Ignored::Base(change.repository.clone(), base.to_owned());
    let queue = binding.ok_or_else(missing)?.queue.clone();
    // Branches of a fork may be called like ones of the repository.
    if change.foreign {
        return Err(Ignored::Foreign);
    }
    let request = request(Branch::new(&change.branch)?);
    Ok(Order {
        queue,
        request,
        by: by.to_owned(),
        number: change.number,
        repository: change.repository.clone(),
        commit: change.head.clone(),
    })
}
