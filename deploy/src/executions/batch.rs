//! What is written of a number of results that somebody was given.

use std::collections::BTreeMap;

use bytes::Bytes;
use kiln_cas::records::{Expect, MAX_BATCH, Write};
use kiln_protos::executions::{Aging, Kept, TargetUses, Uses};
use prost::Message;

use super::kept::{How, hashes};
use super::keys::{self, RecordId};
use super::store::Encoder;

/// Bytes of one batch, about: keys and values.
const MAX_BATCH_BYTES: usize = 8 << 20;

/// Collects writes. Nothing that is written stays for ever: what names it for its removal comes first.
#[derive(Default)]
pub struct Batch {
    encoder: Encoder,
    aging: Aging,
    writes: Vec<Write>,
    uses: BTreeMap<(String, String), BTreeMap<String, TargetUses>>,
}

pub fn put(key: String, value: impl Into<Bytes>) -> Write {
    Write { key, expect: Expect::Anything, value: Some(value.into()) }
}

pub fn delete(key: String) -> Write {
    Write { key, expect: Expect::Anything, value: None }
}

impl Batch {
    /// A record with all that leads to it. It comes first: what is used today is taken for written.
    pub fn record(&mut self, id: RecordId, kept: &Kept, today: u32) {
        let value = self.encoder.encode(kept);
        self.writes.push(put(keys::record(id), value));
        self.lead_to(id, kept, today);
    }

    /// What leads to a record that is there.
    pub fn lead_to(&mut self, id: RecordId, kept: &Kept, today: u32) {
        let instance = kept.execution.as_ref().map_or("", |it| it.instance_name.as_str());
        let made =
            hashes(kept).into_iter().map(|it| put(keys::made(instance, &it, id), Bytes::new()));
        self.writes.extend(made);
        self.touch(id, today);
    }

    /// A record is used today.
    pub fn touch(&mut self, id: RecordId, today: u32) {
        self.aging.ids.push(Bytes::copy_from_slice(id.bytes()));
        self.writes.push(put(keys::touched(id), today.to_string().into_bytes()));
    }

    /// An invocation was given the result of a record. Clients that name none have none that could be asked for.
    pub fn used(&mut self, id: RecordId, how: How, kept: &Kept) {
        let Some(it) = kept.execution.as_ref().filter(|it| !it.invocation_id.is_empty()) else {
            return;
        };
        let invocation = (it.instance_name.clone(), it.invocation_id.clone());
        let uses = self.uses.entry(invocation).or_default();
        let uses = uses.entry(it.target_id.clone()).or_default();
        let list = match how {
            How::Ran => &mut uses.ran,
            How::Hit => &mut uses.hit,
            How::Merged => &mut uses.merged,
        };
        list.push(Bytes::copy_from_slice(id.bytes()));
    }

    /// All writes, in batches that records take, to be made in this order. `part`: a name that nobody else uses.
    pub fn finish(mut self, today: u32, part: &str) -> Vec<Vec<Write>> {
        let mut used = Vec::new();
        for ((instance, invocation), targets) in self.uses {
            let key = format!("{}{part}", keys::parts(&instance, &invocation));
            let targets = targets.into_iter().map(|(target, it)| TargetUses { target, ..it });
            let uses = Uses { targets: targets.collect() };
            self.aging.uses.push(key.clone());
            used.push(put(key, uses.encode_to_vec()));
        }
        if self.aging == Aging::default() {
            return Vec::new();
        }
        let aging = put(keys::age(today, part), self.aging.encode_to_vec());
        split([aging].into_iter().chain(self.writes).chain(used))
    }
}

/// Keeps the order. A key stands once in a batch: of two writes of it the later one counts.
pub fn split(writes: impl Iterator<Item = Write>) -> Vec<Vec<Write>> {
    let mut batches: Vec<Vec<Write>> = Vec::new();
    let (mut bytes, mut seen) = (0, std::collections::HashSet::new());
    for write in writes {
        let size = write.key.len() + write.value.as_ref().map_or(0, Bytes::len);
        let is_full = |it: &Vec<Write>| it.len() >= MAX_BATCH || bytes + size > MAX_BATCH_BYTES;
        if batches.last().is_none_or(is_full) || seen.contains(&write.key) {
            batches.push(Vec::new());
            (bytes, seen) = (0, std::collections::HashSet::new());
        }
        bytes += size;
        seen.insert(write.key.clone());
        if let Some(batch) = batches.last_mut() {
            batch.push(write);
        }
    }
    batches
}
