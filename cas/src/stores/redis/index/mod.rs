//! The blob index: 256 buckets by the first byte of the hash, each in a slot of its own, so
//! that a cluster spreads them and one script call does all digests of a bucket.
//!
//! A bucket is, under one hash tag:
//! - `e`: a hash of the entries. Field: function, hash and size of the digest. Value: the second
//!   in which the lease ends, by the server's clock (4 bytes), then the generation (8 bytes) of
//!   a blob that has a place; without it the blob is pending.
//! - `p`, `q`: bytes of the pending blobs, and a sorted set of when they were last handed out
//!   (milliseconds). They do not expire.
//! - `b`: the sum of the sizes.
//! - `s` and the field: bytes of a small blob that has a place; they expire when not used.
//! - `r`: drawn at random when the bucket is first used.
//!
//! A blob costs 60 to 110 bytes of the server's memory without its bytes: less while the server
//! packs the entries of a bucket (`hash-max-listpack-entries`, by default up to 512).

mod layout;
mod scan;
mod scripts;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use self::layout::{BUCKETS, Bucket, Field, Stored, field, lease_seconds, parse_field};
use self::scripts::Scripts;
use super::seconds;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::promises::Run;
use crate::redis::{Call, Redis};
use crate::stores::indexed::{
    BlobIndex, Candidate, Generation, IndexEntry, IndexUsage, Place, Runs,
};

#[derive(Debug, Clone)]
pub struct RedisBlobIndexOptions {
    /// Bytes of a small blob that has a place in the object store are kept here for so long
    /// after their last use.
    pub keep_small: Duration,
    /// How much longer than asked for a promise is made when it is renewed, so that most calls write
    /// nothing; at most a quarter of what was asked for.
    pub ahead: Duration,
}

impl Default for RedisBlobIndexOptions {
    fn default() -> Self {
        Self { keep_small: Duration::from_secs(7 * 24 * 3600), ahead: Duration::MAX }
    }
}

/// A blob index in Redis, exact in its figures, shared by any number of processes.
pub struct RedisBlobIndex {
    redis: Redis,
    buckets: Vec<Bucket>,
    scripts: Scripts,
    keep_small: u64,
    ahead: u64,
}

/// What belongs to one bucket, and where each stood among all.
type Group<'a, T> = (&'a Bucket, Vec<(usize, T)>);

impl RedisBlobIndex {
    pub fn new(redis: Redis, options: RedisBlobIndexOptions) -> Self {
        let buckets = (0..BUCKETS).map(|number| Bucket::new(&redis, number)).collect();
        let keep_small = seconds(options.keep_small).max(1);
        let ahead = seconds(options.ahead);
        Self { redis, buckets, scripts: Scripts::default(), keep_small, ahead }
    }

    /// The lease as the scripts read it: what is asked for, and how much longer it is made.
    fn lease(&self, lease: Duration) -> String {
        let lease = lease_seconds(lease);
        format!("{lease}+{}", self.ahead.min(lease / 4))
    }

    fn bucket(&self, digest: &Digest) -> &Bucket {
        &self.buckets[usize::from(digest.hash[0])]
    }

    /// Groups items by the bucket of their digest; buckets without any are left out.
    fn group<T>(&self, items: impl Iterator<Item = (Digest, T)>) -> Vec<Group<'_, T>> {
        let mut groups: Vec<Vec<(usize, T)>> = (0..BUCKETS).map(|_| Vec::new()).collect();
        for (index, (digest, item)) in items.enumerate() {
            groups[usize::from(digest.hash[0])].push((index, item));
        }
        let groups = self.buckets.iter().zip(groups);
        groups.filter(|(_, items)| !items.is_empty()).collect()
    }

    fn group_fields(&self, digests: &[Digest]) -> Vec<Group<'_, Field>> {
        self.group(digests.iter().map(|digest| (*digest, field(digest))))
    }

    fn place_call(&self, digest: &Digest, generation: Generation, lease: Duration) -> Call {
        let (bucket, field) = (self.bucket(digest), field(digest));
        let keys = [&bucket.entries, &bucket.pending, &bucket.queue, &bucket.bytes];
        let small = bucket.small(&field);
        let keys: Vec<_> = keys.into_iter().chain([&small]).collect();
        let call = self.scripts.place.call(&keys).arg(self.lease(lease)).arg(self.keep_small);
        call.arg(&field[..]).arg(&generation.0.to_be_bytes()[..])
    }

    /// How many pending blobs of each bucket were not handed out for longer than `age`.
    async fn due(&self, age: u128) -> Result<Vec<usize>, StoreError> {
        let due = |bucket: &Bucket| self.scripts.due.call(&[&bucket.queue]).arg(age.to_string());
        Ok(self.redis.query_many(self.buckets.iter().map(due).collect()).await?)
    }

    /// Draws the value of each bucket that has none.
    async fn draw(&self, drawn: &[Option<u64>]) -> Result<Vec<u64>, StoreError> {
        let fresh = RandomState::new();
        let draw = |(number, bucket): (usize, &Bucket)| match drawn[number] {
            None => self.scripts.draw.call(&[&bucket.random]).arg(fresh.hash_one(number)),
            Some(value) => self.scripts.draw.call(&[&bucket.random]).arg(value),
        };
        Ok(self.redis.query_many(self.buckets.iter().enumerate().map(draw).collect()).await?)
    }
}

#[async_trait]
impl BlobIndex for RedisBlobIndex {
    async fn find(
        &self,
        digests: &[Digest],
        lease: Duration,
    ) -> Result<Vec<Option<IndexEntry>>, StoreError> {
        let groups = self.group_fields(digests);
        let lease = self.lease(lease);
        let find = |(bucket, fields): &Group<'_, Field>| {
            let call = self.scripts.find.call(&[&bucket.entries]).arg(lease.as_str());
            fields.iter().fold(call, |call, (_, field)| call.arg(&field[..]))
        };
        let answers: Vec<(u32, Vec<Option<Vec<u8>>>)> =
            self.redis.query_many(groups.iter().map(find).collect()).await?;
        let mut found = vec![None; digests.len()];
        for ((_, fields), (now, entries)) in groups.iter().zip(answers) {
            for ((index, _), entry) in fields.iter().zip(entries) {
                found[*index] = match entry {
                    Some(entry) => Some(Stored::parse(&entry)?.entry(now)),
                    None => None,
                };
            }
        }
        Ok(found)
    }

    async fn absent(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        let groups = self.group_fields(digests);
        let calls = groups.iter().map(|(bucket, fields)| {
            let entries = Call::command("HMGET", &bucket.entries).idempotent();
            fields.iter().fold(entries, |call, (_, field)| call.arg(&field[..]))
        });
        let answers = self.redis.run_many(calls.collect()).await;
        let mut absent = Vec::new();
        for ((_, fields), answer) in groups.iter().zip(answers) {
            let entries: Vec<Option<Vec<u8>>> = scripts::decode(answer?)?;
            let gone = fields.iter().zip(entries).filter(|(_, entry)| entry.is_none());
            absent.extend(gone.map(|((index, _), _)| digests[*index]));
        }
        Ok(absent)
    }

    async fn shorten(&self, digests: &[Digest], lease: Duration) -> Result<(), StoreError> {
        let groups = self.group_fields(digests);
        let shorten = |(bucket, fields): &Group<'_, Field>| {
            let call = self.scripts.shorten.call(&[&bucket.entries]).arg(lease_seconds(lease));
            fields.iter().fold(call, |call, (_, field)| call.arg(&field[..]))
        };
        self.redis.query_many::<()>(groups.iter().map(shorten).collect()).await?;
        Ok(())
    }

    async fn small(&self, digests: &[Digest]) -> Result<Vec<Option<Bytes>>, StoreError> {
        let groups = self.group_fields(digests);
        let mut calls = Vec::with_capacity(groups.len() + digests.len());
        // The pending ones first: what gets its place in between is then found by its own key.
        for (bucket, fields) in &groups {
            let pending = Call::command("HMGET", &bucket.pending).idempotent();
            calls.push(fields.iter().fold(pending, |call, (_, field)| call.arg(&field[..])));
        }
        for (bucket, fields) in &groups {
            for (_, field) in fields {
                let get = Call::command("GETEX", bucket.small(field)).arg("EX");
                calls.push(get.arg(self.keep_small).idempotent());
            }
        }
        let mut answers = self.redis.run_many(calls).await.into_iter();
        let mut found = vec![None; digests.len()];
        for ((_, fields), answer) in groups.iter().zip(answers.by_ref()) {
            let pending: Vec<Option<Vec<u8>>> = scripts::decode(answer?)?;
            for ((index, _), bytes) in fields.iter().zip(pending) {
                found[*index] = bytes.map(Bytes::from);
            }
        }
        let fields = groups.iter().flat_map(|(_, fields)| fields);
        for ((index, _), answer) in fields.zip(answers) {
            let bytes: Option<Vec<u8>> = scripts::decode(answer?)?;
            found[*index] = found[*index].take().or(bytes.map(Bytes::from));
        }
        Ok(found)
    }

    async fn put_small(
        &self,
        blobs: &[(Digest, Bytes)],
        lease: Duration,
    ) -> Result<(), StoreError> {
        for (digest, bytes) in blobs {
            if bytes.len() as u64 != digest.size {
                return Err(StoreError::SizeMismatch {
                    expected: *digest,
                    actual: bytes.len() as u64,
                });
            }
        }
        let lease = self.lease(lease);
        let groups = self.group(blobs.iter().map(|(digest, bytes)| (*digest, (digest, bytes))));
        let put = |(bucket, blobs): &Group<'_, (&Digest, &Bytes)>| {
            let mut keys = vec![&bucket.entries, &bucket.pending, &bucket.queue, &bucket.bytes];
            let fields: Vec<_> = blobs.iter().map(|(_, (digest, _))| field(digest)).collect();
            let small: Vec<_> = fields.iter().map(|field| bucket.small(field)).collect();
            keys.extend(&small);
            let call = self.scripts.put_small.call(&keys);
            let call = call.arg(lease.as_str()).arg(self.keep_small);
            let blobs = fields.iter().zip(blobs);
            blobs.fold(call, |call, (field, (_, (_, bytes)))| call.arg(&field[..]).arg(&bytes[..]))
        };
        self.redis.query_many::<()>(groups.iter().map(put).collect()).await?;
        Ok(())
    }

    async fn place(
        &self,
        digest: &Digest,
        generation: Generation,
        lease: Duration,
    ) -> Result<Generation, StoreError> {
        let counts: Vec<u8> = self.redis.query(self.place_call(digest, generation, lease)).await?;
        Ok(layout::parse_generation(&counts)?)
    }

    async fn place_all(
        &self,
        blobs: &[(Digest, Generation)],
        lease: Duration,
    ) -> Result<Vec<Generation>, StoreError> {
        let place = |(digest, generation): &(Digest, Generation)| {
            self.place_call(digest, *generation, lease)
        };
        let counts: Vec<Vec<u8>> = self.redis.query_many(blobs.iter().map(place).collect()).await?;
        counts.iter().map(|counts| layout::parse_generation(counts)).collect()
    }

    async fn forget(&self, digest: &Digest, place: Place) -> Result<bool, StoreError> {
        let (bucket, field) = (self.bucket(digest), field(digest));
        let small = bucket.small(&field);
        let keys = [&bucket.entries, &bucket.pending, &bucket.queue, &bucket.bytes, &small];
        let call = self.scripts.forget.call(&keys).arg(&field[..]);
        let call = match place {
            Place::Index => call.arg(""),
            Place::Object(generation) => call.arg(&generation.0.to_be_bytes()[..]),
        };
        Ok(self.redis.query(call).await?)
    }

    async fn take_pending(
        &self,
        age: Duration,
        limit: usize,
    ) -> Result<Vec<(Digest, Bytes)>, StoreError> {
        let age = age.as_millis();
        let mut left = limit;
        let mut calls = Vec::new();
        for (bucket, due) in self.buckets.iter().zip(self.due(age).await?) {
            let share = due.min(left);
            left -= share;
            if share > 0 {
                let call = self.scripts.take.call(&[&bucket.pending, &bucket.queue]);
                calls.push(call.arg(age.to_string()).arg(share));
            }
        }
        let taken: Vec<Vec<(Vec<u8>, Vec<u8>)>> = self.redis.query_many(calls).await?;
        let blobs = taken.into_iter().flatten();
        blobs.map(|(field, bytes)| Ok((parse_field(&field)?, bytes.into()))).collect()
    }

    async fn usage(&self) -> Result<IndexUsage, StoreError> {
        let mut calls = Vec::with_capacity(3 * BUCKETS);
        for bucket in &self.buckets {
            calls.push(Call::command("HLEN", &bucket.entries).idempotent());
            calls.push(Call::command("GET", &bucket.bytes).idempotent());
            calls.push(Call::command("HLEN", &bucket.pending).idempotent());
        }
        let figures: Vec<Option<u64>> = self.redis.query_many(calls).await?;
        let sum = |which: usize| figures.iter().skip(which).step_by(3).flatten().sum();
        Ok(IndexUsage { blobs: sum(0), bytes: sum(1), pending: sum(2) })
    }

    async fn scan(&self, from: Option<u64>) -> Result<(Vec<Candidate>, Option<u64>), StoreError> {
        self.scan_from(from).await
    }

    async fn evict_until(
        &self,
        blobs: &[(Digest, Generation)],
        ends: u32,
    ) -> Result<Vec<bool>, StoreError> {
        let groups = self.group(blobs.iter().copied().map(|blob| (blob.0, blob)));
        let evict = |(bucket, blobs): &Group<'_, (Digest, Generation)>| {
            let fields: Vec<_> = blobs.iter().map(|(_, (digest, _))| field(digest)).collect();
            let small: Vec<_> = fields.iter().map(|field| bucket.small(field)).collect();
            let keys: Vec<_> = [&bucket.entries, &bucket.bytes].into_iter().chain(&small).collect();
            let call = self.scripts.evict.call(&keys).arg(ends);
            fields.iter().zip(blobs).fold(call, |call, (field, (_, (_, generation)))| {
                call.arg(&field[..]).arg(&generation.0.to_be_bytes()[..])
            })
        };
        let answers: Vec<Vec<bool>> =
            self.redis.query_many(groups.iter().map(evict).collect()).await?;
        let mut evicted = vec![false; blobs.len()];
        for ((_, blobs), answers) in groups.iter().zip(answers) {
            for ((index, _), answer) in blobs.iter().zip(answers) {
                evicted[*index] = answer;
            }
        }
        Ok(evicted)
    }

    async fn report_runs(&self, runs: &[Run]) -> Result<Runs, StoreError> {
        let call = self.scripts.runs.call(&[&self.redis.lone_key("runs")]);
        let call =
            runs.iter().fold(call, |call, run| call.arg(&run.id[..]).arg(run.age).arg(run.left));
        let (now, oldest) = self.redis.query(call).await?;
        Ok(Runs { now, oldest })
    }

    /// Over all buckets: it changes also when one node of a cluster lost its data.
    fn failures(&self) -> u64 {
        self.redis.stats().changes
    }

    async fn epoch(&self) -> Result<u64, StoreError> {
        let get = |bucket: &Bucket| Call::command("GET", &bucket.random).idempotent();
        let gets = self.buckets.iter().map(get).collect();
        let mut drawn: Vec<Option<u64>> = self.redis.query_many(gets).await?;
        if drawn.iter().any(Option::is_none) {
            drawn = self.draw(&drawn).await?.into_iter().map(Some).collect();
        }
        let mut hasher = blake3::Hasher::new();
        for value in drawn.into_iter().flatten() {
            hasher.update(&value.to_be_bytes());
        }
        let mut epoch = [0; 8];
        epoch.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
        Ok(u64::from_be_bytes(epoch))
    }

    async fn claim_collection(&self, owner: &str, hold: Duration) -> Result<bool, StoreError> {
        let key = self.redis.lone_key("collector");
        let hold = hold.as_millis().max(1).to_string();
        Ok(self.redis.query(self.scripts.claim.call(&[&key]).arg(owner).arg(hold)).await?)
    }
}
