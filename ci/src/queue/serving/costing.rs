//! What the checks of changes that wait are expected to cost. The command is shown the tree of each change alone, on top of
//! the target, beside the checks and in a tree that no check has at the time. It is asked once of each head; where it
//! does not say, the cost stays unknown.

use std::collections::{BTreeMap, BTreeSet};

use kiln_net::causes::chain;
use tokio::sync::mpsc::UnboundedSender;
use tokio_util::task::AbortOnDropHandle;

use super::work::Tools;
use crate::model::Time;
use crate::queue::git::{Check, GitError, Piece};
use crate::queue::{Change, ChangeId, Commit, Event, Lane, Mode, Standing};

/// Commands that run at the same time.
const AT_ONCE: usize = 2;

/// Asks beside the lane; what it asks ends with it.
pub struct Costing {
    /// Says what the check of a change alone is expected to cost; `None`: nobody does.
    command: Option<Check>,
    tell: UnboundedSender<Event>,
    /// Heads that were asked about, of changes that are in the lane.
    asked: BTreeMap<ChangeId, Commit>,
    running: Vec<(ChangeId, AbortOnDropHandle<()>)>,
}

impl Costing {
    pub fn new(command: Option<Check>, tell: UnboundedSender<Event>) -> Self {
        Self { command, tell, asked: BTreeMap::new(), running: Vec::new() }
    }

    /// Begins to ask about changes that wait, in the order in which they are tested, and ends what is asked about heads that
    /// are no more. Only where costs count.
    pub fn ask(&mut self, lane: &Lane, tools: &Tools, now: Time) {
        let counts = lane.options.mode == Mode::Throughput && !lane.options.independent;
        let Some(command) = self.command.clone().filter(|_| counts) else { return };
        let Some(base) = lane.base.as_ref().map(|it| &it.commit) else { return };
        self.asked.retain(|id, head| lane.changes.get(id).is_some_and(|it| it.head == *head));
        let asked = &self.asked;
        self.running.retain(|(id, work)| asked.contains_key(id) && !work.is_finished());
        if self.running.len() >= AT_ONCE {
            return;
        }
        let members = lane.runs.values().flat_map(|it| &it.members);
        let tested: BTreeSet<ChangeId> = members.map(|it| it.id).collect();
        for it in lane.order(now).iter().filter_map(|id| lane.changes.get(id)) {
            let is_open = it.cost.is_none() && it.standing == Standing::Waiting;
            let is_new = !tested.contains(&it.id) && !self.asked.contains_key(&it.id);
            if is_open && is_new {
                self.begin(it, base.clone(), command.clone(), tools.clone());
            }
            if self.running.len() >= AT_ONCE {
                return;
            }
        }
    }

    fn begin(&mut self, change: &Change, base: Commit, command: Check, tools: Tools) {
        let (id, head) = (change.id, change.head.clone());
        self.asked.insert(id, head.clone());
        let piece = Piece { branch: change.branch.clone(), head: head.clone() };
        let tell = self.tell.clone();
        let work = async move {
            match tools.cost(&command, &base, piece).await {
                // Nobody listens where the lane has ended.
                Ok(Some(cost)) => drop(tell.send(Event::Cost { id, head, cost })),
                Ok(None) => {}
                Err(error) => tracing::warn!(
                    error = chain(&error),
                    head = head.short(),
                    "it is not known what the check of a change costs"
                ),
            }
        };
        self.running.push((id, AbortOnDropHandle::new(tokio::spawn(work))));
    }
}

impl Tools {
    /// What the check of a change alone is expected to cost, on top of `base`. Nothing where nobody knows, or it does not
    /// merge: whoever tests it says so.
    async fn cost(
        &self,
        command: &Check,
        base: &Commit,
        piece: Piece,
    ) -> Result<Option<u64>, GitError> {
        let built = self.repository.build(base, &[piece], self.method).await?;
        if !built.left_out.is_empty() {
            return Ok(None);
        }
        let slot = self.slots.take()?;
        self.repository.check_out(&slot, &built.commit).await?;
        command.cost(&slot, base, &built.commit).await
    }
}
