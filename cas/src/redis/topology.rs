//! Which server is asked for which key.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};

use ::redis::{ProtocolVersion, TlsCertificates};
use futures_util::future::select_ok;
use kiln_net::causes::chain;

use super::address::Address;
use super::config::RedisConfig;
use super::error::RedisError;
use super::node::Node;
use super::observe::Counts;
use super::slots::SlotMap;

/// Nodes that are asked for the slots; the first answer counts.
const ASKED_AT_ONCE: usize = 4;

pub(super) struct Topology {
    config: RedisConfig,
    certificates: Option<TlsCertificates>,
    counts: Arc<Counts>,
    view: RwLock<View>,
    /// Held while the cluster is asked for its slots, so that one task at a time asks.
    refreshing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct View {
    nodes: HashMap<Address, Arc<Node>>,
    /// `None`: a single server.
    slots: Option<Arc<SlotMap>>,
    /// How often the slots were learned.
    age: u64,
}

impl View {
    /// Whether a node is a master by these slots that was spoken to before, and was none: a replica that
    /// takes over may lack the last writes of its master, and no new connection tells of that.
    fn is_overtaken(&self, slots: &SlotMap) -> bool {
        let Some(before) = &self.slots else { return false };
        let before: HashSet<&Address> = before.masters().collect();
        let mut new = slots.masters().filter(|master| !before.contains(master));
        new.any(|master| self.nodes.get(master).is_some_and(|node| node.was_linked()))
    }
}

impl Topology {
    /// Reads the TLS files: blocks.
    pub(super) fn new(config: RedisConfig, counts: Arc<Counts>) -> Result<Self, RedisError> {
        let certificates = config.tls.as_ref().map(|files| files.read()).transpose()?;
        let view = RwLock::default();
        Ok(Self { config, certificates, counts, view, refreshing: Default::default() })
    }

    fn view(&self) -> std::sync::RwLockReadGuard<'_, View> {
        self.view.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node at this address, which need not be known yet.
    pub(super) fn node(&self, address: &Address) -> Result<Arc<Node>, RedisError> {
        if let Some(node) = self.view().nodes.get(address) {
            return Ok(node.clone());
        }
        let client = |protocol| self.config.client(address, protocol, self.certificates.as_ref());
        let node = Arc::new(Node::new(
            address.clone(),
            client(ProtocolVersion::RESP3)?,
            client(ProtocolVersion::RESP2)?,
            self.counts.clone(),
        ));
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        Ok(view.nodes.entry(address.clone()).or_insert(node).clone())
    }

    /// The master of a slot; `None` for a call without keys, which any node takes.
    pub(super) fn master(&self, slot: Option<u16>) -> Result<Arc<Node>, RedisError> {
        let slots = self.view().slots.clone();
        let first = || self.config.addresses.first().cloned();
        let address = match (&slots, slot) {
            (None, _) => first(),
            (Some(slots), Some(slot)) => slots.master(slot).cloned(),
            (Some(slots), None) => slots.masters().next().cloned().or_else(first),
        };
        let address = address.ok_or_else(|| RedisError::FailingOver {
            address: self.names(),
            reason: "no node of the cluster serves the key at the moment".into(),
        })?;
        self.node(&address)
    }

    /// The configured addresses, for messages.
    pub(super) fn names(&self) -> String {
        let names: Vec<_> = self.config.addresses.iter().map(Address::to_string).collect();
        names.join(",")
    }

    /// Changes whenever the slots were learned again.
    pub(super) fn age(&self) -> u64 {
        self.view().age
    }

    /// Every node that may know something: the masters, then the configured ones.
    pub(super) fn known(&self) -> Vec<Address> {
        let mut known: Vec<_> = match &self.view().slots {
            Some(slots) => slots.masters().cloned().collect(),
            None => Vec::new(),
        };
        known.extend(self.config.addresses.iter().cloned());
        let mut seen = HashSet::new();
        known.retain(|address| seen.insert(address.clone()));
        known
    }

    /// Connects to the first configured node that answers, and learns whether this is a
    /// cluster. Returns what the server should be warned of.
    pub(super) async fn discover(&self) -> Result<Vec<String>, RedisError> {
        let mut failure = RedisError::Config("no Redis address is configured".to_owned());
        for address in &self.config.addresses {
            match self.discover_at(address).await {
                Ok(warnings) => return Ok(warnings),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }

    async fn discover_at(&self, address: &Address) -> Result<Vec<String>, RedisError> {
        let node = self.node(address)?;
        let link = node.link().await?;
        let wrong = |reason: &'static str| {
            let address = address.to_string();
            Err(RedisError::WrongServer { address, reason: reason.into() })
        };
        if link.server.cluster {
            if self.config.database != 0 {
                return wrong("it is a cluster, which has database 0 alone");
            }
            self.learn(&node).await?;
        } else if self.config.cluster {
            return wrong("it is not a cluster; write redis:// instead of redis+cluster://");
        }
        Ok(link.server.warnings.clone())
    }

    async fn learn(&self, node: &Arc<Node>) -> Result<(), RedisError> {
        let answer = node.slots().await?;
        let slots = SlotMap::parse(&answer, &node.address);
        let slots = slots.ok_or(RedisError::Script {
            name: "CLUSTER SLOTS",
            reason: "the answer is not understood".into(),
        })?;
        if slots.masters().next().is_none() {
            let (address, reason) = (node.address.to_string(), "it serves no slots".into());
            return Err(RedisError::FailingOver { address, reason });
        }
        let mut view = self.view.write().unwrap_or_else(PoisonError::into_inner);
        if view.is_overtaken(&slots) {
            // Before anybody is sent there.
            self.counts.changes.fetch_add(1, Ordering::AcqRel);
        }
        let configured = &self.config.addresses;
        view.nodes.retain(|address, _| {
            configured.contains(address) || slots.masters().any(|master| master == address)
        });
        view.slots = Some(Arc::new(slots));
        view.age += 1;
        Ok(())
    }

    /// Learns the slots of a cluster again, unless somebody did since `age`. A single server
    /// has none.
    pub(super) async fn refresh(&self, age: u64) {
        if self.view().slots.is_none() {
            return;
        }
        let _held = self.refreshing.lock().await;
        if self.age() != age {
            return;
        }
        let known = self.known();
        let mut nodes: Vec<_> = known.iter().filter_map(|at| self.node(at).ok()).collect();
        nodes.sort_by_key(|node| !node.is_linked());
        nodes.truncate(ASKED_AT_ONCE);
        let asked = nodes.iter().map(|node| Box::pin(self.learn(node)));
        if nodes.is_empty() {
            return;
        }
        if let Err(error) = select_ok(asked).await {
            tracing::debug!(error = %chain(&error), "the slots of the cluster are not learned");
        }
    }
}
