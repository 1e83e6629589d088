//! The core that the services and the hermeticity check share.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use kiln_cas::services::Guard;
use tokio::sync::Semaphore;

use crate::api::Queue;
use crate::completion::Completion;
use crate::config::{Parts, SchedulerConfig};
use crate::fanout::{FanOuts, WithFanOuts};
use crate::job::LeaseMessages;
use crate::presence::Presence;

/// Bytes of messages of all actions in the queue.
const MESSAGE_ROOM: usize = 64 << 20;

pub(crate) struct Core {
    pub config: SchedulerConfig,
    pub parts: Parts,
    /// The queue, together with the operations of fan-outs.
    pub queue: Arc<dyn Queue>,
    pub fan_outs: Arc<FanOuts>,
    pub completion: Arc<Completion>,
    pub presence: Arc<Presence>,
    pub cache_hits: AtomicU64,
    /// Bytes that messages of actions in the queue may still take ([`LeaseMessages`]).
    message_room: Arc<Semaphore>,
    unqueued: AtomicU64,
    epoch: u64,
}

impl Core {
    pub fn new(
        config: SchedulerConfig,
        parts: Parts,
        queue: Arc<dyn Queue>,
        completion: Arc<Completion>,
    ) -> Self {
        let epoch = RandomState::new().hash_one(std::process::id());
        let (cache_hits, unqueued) = Default::default();
        let presence = Arc::new(Presence::start());
        let message_room = Arc::new(Semaphore::new(MESSAGE_ROOM));
        let room = message_room.clone();
        let fan_outs = FanOuts::new(queue.clone(), completion.clone(), &parts, &config, room);
        let queue = Arc::new(WithFanOuts { queue, fan_outs: fan_outs.clone() });
        Self {
            config,
            parts,
            queue,
            fan_outs,
            completion,
            presence,
            cache_hits,
            message_room,
            unqueued,
            epoch,
        }
    }

    /// The messages of an action that go with its leases, as far as there is room for them.
    pub fn lease_messages(&self, messages: &[Bytes]) -> LeaseMessages {
        LeaseMessages::keep(&self.message_room, messages)
    }

    pub fn guard(&self) -> Guard {
        Guard(self.parts.access.clone())
    }

    /// Names an operation that the queue never sees.
    pub fn unqueued_name(&self, instance: &str) -> String {
        let number = self.unqueued.fetch_add(1, Ordering::Relaxed);
        let slash = if instance.is_empty() { "" } else { "/" };
        format!("{instance}{slash}operations/direct-{:016x}-{number:x}", self.epoch)
    }
}
