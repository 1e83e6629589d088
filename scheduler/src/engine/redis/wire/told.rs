//! What the script says, as a frontend understands it.

use std::sync::Arc;

use bytes::Bytes;

use crate::engine::redis::lease_blobs;
use crate::engine::redis::payload::{decode_answer, decode_job, decode_request, decode_worker};
use crate::frontend::told::{
    Assigned, Attempt, RequestStatus, Step, TaskRecord, TaskStatus, Told, WorkerStatus,
};
use crate::job::{Finished, Job, Request, UnixNanos};
use crate::queue::paused_in_words;
use crate::queue::platform::{Offer, Requirement, explain};
use crate::queue::{
    CancelReason, CloseReason, Counters, Ending, LeaseId, Limits, OperationId, Scope, TaskId,
    WorkerId,
};

use super::fields::{Garbled, decode, parse, parse_pairs, text};

const NANOS_PER_MILLI: i64 = 1_000_000;

/// Reads what the script says.
pub struct Parser<'a> {
    pub limits: &'a Limits,
    /// Redis's clock, in ms since the Unix epoch.
    pub now: i64,
}

/// All that one call, or one message, brought.
#[derive(Debug, Default)]
pub struct Said {
    pub told: Vec<Told>,
    /// This frontend is new to the queue, or was taken for lost: it is not known what it waits
    /// for.
    pub lapsed: bool,
    /// The secret with which all frontends of the queue make the names of leases; `None`: it was
    /// not sent.
    pub secret: Option<[u8; 32]>,
}

enum Item {
    Told(Told),
    Lapsed,
    Secret([u8; 32]),
}

impl Parser<'_> {
    /// Everything in `input`. What is not understood of it is of another version, and left out.
    pub fn all(&self, mut input: Bytes) -> Result<Said, Garbled> {
        let mut said = Said::default();
        while !input.is_empty() {
            let fields = decode(&mut input)?.into_iter();
            match (Fields { fields, parser: self }).item() {
                Ok(Item::Told(told)) => said.told.push(told),
                Ok(Item::Lapsed) => said.lapsed = true,
                Ok(Item::Secret(secret)) => said.secret = Some(secret),
                Err(error) => tracing::error!(%error, "something that the queue says is lost"),
            }
        }
        Ok(said)
    }

    fn since(&self, at: i64) -> u64 {
        u64::try_from(self.now - at).unwrap_or(0)
    }
}

struct Fields<'a> {
    fields: std::vec::IntoIter<Bytes>,
    parser: &'a Parser<'a>,
}

impl Fields<'_> {
    fn within(&self, mut bytes: Bytes) -> Result<Self, Garbled> {
        Ok(Self { fields: decode(&mut bytes)?.into_iter(), parser: self.parser })
    }

    fn bytes(&mut self) -> Result<Bytes, Garbled> {
        self.fields.next().ok_or_else(|| Garbled("a field is missing".to_owned()))
    }

    fn number<T: std::str::FromStr>(&mut self) -> Result<T, Garbled> {
        parse(&self.bytes()?)
    }

    fn task(&mut self) -> Result<TaskId, Garbled> {
        self.number().map(TaskId)
    }

    fn lease(&mut self) -> Result<LeaseId, Garbled> {
        self.number().map(LeaseId)
    }

    fn worker(&mut self) -> Result<WorkerId, Garbled> {
        self.number().map(WorkerId)
    }

    fn flag(&mut self) -> Result<bool, Garbled> {
        Ok(self.bytes()? == "1")
    }

    fn text(&mut self) -> Result<String, Garbled> {
        Ok(text(&self.bytes()?))
    }

    fn operation(&mut self) -> Result<OperationId, Garbled> {
        Ok(OperationId { task: self.task()?, request: self.number()? })
    }

    /// A time, which Redis counts in milliseconds since the Unix epoch; 0: it has not come yet.
    fn time(&mut self) -> Result<UnixNanos, Garbled> {
        Ok(self.number::<i64>()?.saturating_mul(NANOS_PER_MILLI))
    }

    fn step(&mut self) -> Result<Step, Garbled> {
        let step = self.bytes()?;
        Ok(match &*step {
            b"W" | b"D" => Step::Queued,
            b"L" => Step::Leased,
            b"P" => Step::Publishing,
            b"F" => Step::Finished,
            other => return Err(Garbled(format!("state {:?}", text(other)))),
        })
    }

    /// A job; `None`: the field is empty.
    fn job(&mut self) -> Result<Option<Arc<Job>>, Garbled> {
        let bytes = self.bytes()?;
        if bytes.is_empty() { Ok(None) } else { decode_job(&bytes).map(Arc::new).map(Some) }
    }

    fn a_job(&mut self) -> Result<Arc<Job>, Garbled> {
        self.job()?.ok_or_else(|| Garbled("a task without a job".to_owned()))
    }

    fn requests(&mut self) -> Result<Vec<Arc<Request>>, Garbled> {
        self.fields.by_ref().map(|bytes| decode_request(&bytes).map(Arc::new)).collect()
    }

    fn answer(&mut self) -> Result<Option<Arc<Finished>>, Garbled> {
        let bytes = self.bytes()?;
        if bytes.is_empty() { Ok(None) } else { decode_answer(&bytes).map(Arc::new).map(Some) }
    }

    /// An attempt, in four fields: when it was queued and leased, its worker, and its number.
    fn attempt(&mut self) -> Result<Attempt, Garbled> {
        Ok(Attempt {
            queued_at: self.time()?,
            leased_at: self.time()?,
            worker: self.text()?.into(),
            number: self.number()?,
        })
    }

    fn flags(&mut self) -> Result<Vec<bool>, Garbled> {
        Ok(self.bytes()?.iter().map(|flag| *flag == b'1').collect())
    }

    fn record(&mut self) -> Result<TaskRecord, Garbled> {
        let bytes = self.bytes()?;
        let mut fields = self.within(bytes)?;
        Ok(TaskRecord {
            job: fields.a_job()?,
            attempt: fields.attempt()?,
            cancelled: fields.flags()?,
            requests: fields.requests()?,
        })
    }

    fn ending(&mut self) -> Result<Option<Ending>, Garbled> {
        let (name, detail) = (self.bytes()?, self.bytes()?);
        let details = || self.within(detail);
        Ok(Some(match &*name {
            b"" => return Ok(None),
            b"Published" => Ending::Published,
            b"Cancelled" => Ending::Cancelled,
            b"NobodyWaits" => Ending::NobodyWaits,
            b"Unsatisfiable" => Ending::Unsatisfiable(unsatisfiable(details()?)?),
            b"WorkersPaused" => {
                let all: Vec<String> = details()?.fields.map(|field| text(&field)).collect();
                let pairs = all.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone()));
                Ending::WorkersPaused(paused_in_words(&pairs.collect::<Vec<_>>()))
            }
            b"RetriesExhausted" => {
                let mut details = details()?;
                Ending::RetriesExhausted { attempts: details.number()?, last: details.text()? }
            }
            b"Poison" => {
                let workers = details()?.fields.map(|name| text(&name).into()).collect();
                Ending::Poison { workers }
            }
            other => return Err(Garbled(format!("ending {:?}", text(other)))),
        }))
    }

    fn ended(&mut self) -> Result<Ending, Garbled> {
        self.ending()?.ok_or_else(|| Garbled("a task ended without an ending".to_owned()))
    }

    /// Worker, lease, task, number, job, queued, leased, worker's name, what goes with it.
    fn assign(&mut self) -> Result<Told, Garbled> {
        let (worker, lease, task) = (self.worker()?, self.lease()?, self.task()?);
        let (job, attempt) = self.assignment()?;
        let blobs = lease_blobs::decode(&self.bytes()?);
        let assigned = job.map(|job| Assigned { job, blobs });
        Ok(Told::Assign { worker, lease, task, attempt, assigned })
    }

    fn adopted(&mut self) -> Result<Told, Garbled> {
        let (worker, lease, task) = (self.worker()?, self.lease()?, self.bytes()?);
        let (job, attempt) = self.assignment()?;
        let task = if task.is_empty() { None } else { Some(TaskId(parse(&task)?)) };
        Ok(Told::Adopted { worker, lease, task: task.zip(job), attempt })
    }

    fn assignment(&mut self) -> Result<(Option<Arc<Job>>, Attempt), Garbled> {
        let (number, job) = (self.number()?, self.job()?);
        let (queued_at, leased_at) = (self.time()?, self.time()?);
        Ok((job, Attempt { queued_at, leased_at, worker: self.text()?.into(), number }))
    }

    /// The attempt that the next fields tell of: when it was leased, by which worker, and its
    /// number.
    fn later_attempt(&mut self) -> Result<Attempt, Garbled> {
        let (leased_at, worker) = (self.time()?, self.text()?.into());
        Ok(Attempt { queued_at: 0, leased_at, worker, number: self.number()? })
    }

    fn state(&mut self) -> Result<TaskStatus, Garbled> {
        let (task, step, job) = (self.task()?, self.step()?, self.a_job()?);
        let (attempt, cancelled, forgotten) = (self.attempt()?, self.flags()?, self.flags()?);
        let (ending, answer) = (self.ending()?, self.answer()?);
        let others = self.requests()?;
        let asked = std::iter::once(&job.request).chain(&others);
        let owners = asked.map(|request| request.owner.clone()).chain(std::iter::repeat(None));
        let requests = cancelled.into_iter().zip(forgotten).zip(owners);
        let requests = requests.map(|((cancelled, forgotten), owner)| RequestStatus {
            owner,
            cancelled,
            forgotten,
        });
        let requests = requests.collect();
        Ok(TaskStatus { task, step, job, attempt, requests, ending, answer })
    }

    fn worker_state(&mut self) -> Result<WorkerStatus, Garbled> {
        Ok(WorkerStatus {
            name: self.text()?,
            slots: self.number()?,
            occupied: self.number()?,
            draining: self.flag()?,
            last_seen_ms: self.parser.since(self.number()?),
            properties: parse_pairs(&self.bytes()?)?,
            info: decode_worker(&self.bytes()?),
            paused: Some(self.text()?).filter(|reason| !reason.is_empty()),
        })
    }

    fn totals(&mut self) -> Result<Told, Garbled> {
        Ok(Told::Totals {
            now: self.parser.now.saturating_mul(NANOS_PER_MILLI),
            queued: self.number()?,
            running: self.number()?,
            oldest_queued_ms: self.number().ok().map(|at| self.parser.since(at)),
        })
    }

    fn counters(&mut self) -> Result<Counters, Garbled> {
        let rest: Vec<Bytes> = self.fields.by_ref().collect();
        let mut counters = Counters::default();
        for pair in rest.chunks_exact(2) {
            if let Some(counter) = counters.by_name(&text(&pair[0])) {
                *counter = parse(&pair[1])?;
            }
        }
        Ok(counters)
    }

    fn item(&mut self) -> Result<Item, Garbled> {
        let name = self.bytes()?;
        Ok(match &*name {
            b"Lapsed" => Item::Lapsed,
            b"Secret" => {
                let secret = <[u8; 32]>::try_from(&*self.bytes()?);
                Item::Secret(secret.map_err(|_| Garbled("a secret of another size".to_owned()))?)
            }
            name => Item::Told(self.told(name)?),
        })
    }

    fn told(&mut self, name: &[u8]) -> Result<Told, Garbled> {
        Ok(match name {
            b"Accepted" => {
                let (id, merged) = (self.operation()?, self.flag()?);
                let (step, attempt) = (self.step()?, self.attempt()?);
                let joined = if merged { self.job()? } else { None };
                Told::Accepted { id, joined, step, attempt }
            }
            b"Refused" => Told::Refused(self.parser.limits.refusal(match &*self.bytes()? {
                b"Instance" => Some(Scope::Instance),
                b"Caller" => Some(Scope::Caller),
                _ => None,
            })),
            b"Joined" => Told::Joined { worker: self.worker()? },
            b"Assign" => self.assign()?,
            b"Leased" => {
                let (task, number) = (self.task()?, self.number()?);
                let (leased_at, worker) = (self.time()?, self.text()?.into());
                Told::Leased { task, attempt: Attempt { queued_at: 0, leased_at, worker, number } }
            }
            b"Adopted" => self.adopted()?,
            b"CancelLease" => Told::CancelLease {
                worker: self.worker()?,
                lease: self.lease()?,
                reason: match &*self.bytes()? {
                    b"Cancelled" => CancelReason::Cancelled,
                    b"NobodyWaits" => CancelReason::NobodyWaits,
                    b"Unknown" => CancelReason::Unknown,
                    _ => CancelReason::LeaseExpired,
                },
            },
            b"CloseWorker" => Told::CloseWorker {
                worker: self.worker()?,
                reason: match &*self.bytes()? {
                    b"Silent" => CloseReason::Silent,
                    b"Replaced" => CloseReason::Replaced,
                    _ => CloseReason::DidNotCancel,
                },
            },
            b"Requeued" => {
                Told::Requeued { task: self.task()?, at_once: self.flag().unwrap_or(false) }
            }
            b"Publish" => Told::Publish {
                task: self.task()?,
                lease: self.lease()?,
                worker: self.worker()?,
                attempt: self.number()?,
            },
            b"Stale" => Told::Stale { lease: self.lease()? },
            b"RequestCancelled" => {
                Told::RequestCancelled { id: self.operation()?, record: self.record()? }
            }
            b"Finished" => {
                let (task, ending) = (self.task()?, self.ended()?);
                Told::Finished { task, ending, record: self.record()? }
            }
            b"Ended" => {
                let (task, ending) = (self.task()?, self.ended()?);
                let attempt = self.later_attempt()?;
                Told::Ended { task, ending, attempt, answer: self.answer()? }
            }
            b"Forgotten" => Told::Forgotten { task: self.task()? },
            b"State" => Told::Task(Box::new(self.state()?)),
            b"Unknown" => Told::Unknown { task: self.task()? },
            b"Drain" => Told::Drain { worker: self.worker()? },
            b"Totals" => self.totals()?,
            b"Counters" => Told::Counters(self.counters()?),
            b"Worker" => Told::Worker(Box::new(self.worker_state()?)),
            b"Lane" => Told::Lane {
                properties: parse_pairs(&self.bytes()?)?,
                queued: self.number()?,
                running: self.number()?,
                served: self.flag()?,
            },
            other => return Err(Garbled(format!("effect {:?}", text(other)))),
        })
    }
}

fn unsatisfiable(mut fields: Fields<'_>) -> Result<String, Garbled> {
    let requirement = Requirement::new(parse_pairs(&fields.bytes()?)?);
    let offers: Result<Vec<_>, _> =
        fields.fields.map(|offer| parse_pairs(&offer).map(Offer::new)).collect();
    let offers = offers?;
    Ok(explain(&requirement, &offers.iter().collect::<Vec<_>>()))
}
