//! What goes into the script and what comes out: fields with their lengths.

use std::sync::Arc;

use bytes::Bytes;

use crate::queue::paused_in_words;
use crate::queue::platform::{Offer, Requirement, explain};
use crate::queue::{
    CancelReason, CloseReason, Effect, Ending, LeaseId, Limits, OperationId, Scope, TaskId,
    WorkerId,
};

/// `N;` and, for each of the N fields, its length, `:` and its bytes.
pub fn encode<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let fields: Vec<&[u8]> = fields.into_iter().collect();
    let mut out = format!("{};", fields.len()).into_bytes();
    for field in fields {
        out.extend_from_slice(format!("{}:", field.len()).as_bytes());
        out.extend_from_slice(field);
    }
    out
}

/// What a script or a channel said cannot be understood: it is of another version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the queue's script said what this version does not understand: {0}")]
pub struct Garbled(pub String);

/// Takes one group of fields from the front of `input`.
pub fn decode(input: &mut Bytes) -> Result<Vec<Bytes>, Garbled> {
    let count = number_until(input, b';')?;
    (0..count)
        .map(|_| {
            let length = number_until(input, b':')?;
            if length > input.len() {
                return Err(Garbled(format!("a field of {length} bytes is cut off")));
            }
            Ok(input.split_to(length))
        })
        .collect()
}

fn number_until(input: &mut Bytes, end: u8) -> Result<usize, Garbled> {
    let at = input.iter().take(20).position(|byte| *byte == end);
    let at = at.ok_or_else(|| Garbled("a length is missing".to_owned()))?;
    let digits = input.split_to(at + 1);
    parse(&digits[..at])
}

fn parse<T: std::str::FromStr>(field: &[u8]) -> Result<T, Garbled> {
    let text = std::str::from_utf8(field).ok().and_then(|text| text.parse().ok());
    text.ok_or_else(|| Garbled(format!("{:?} is not a number", String::from_utf8_lossy(field))))
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).into_owned()
}

/// How the script writes ids.
pub fn id(number: u64) -> String {
    format!("{number:016}")
}

pub fn pairs(pairs: &[(String, String)]) -> Vec<u8> {
    encode(pairs.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]))
}

pub fn parse_pairs(encoded: &Bytes) -> Result<Vec<(String, String)>, Garbled> {
    let fields = decode(&mut encoded.clone())?;
    Ok(fields.chunks_exact(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect())
}

/// How far a task is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Queued,
    Leased,
    /// The worker has given its answer.
    Publishing,
    Finished,
}

/// Times are in ms since the Unix epoch, by the clock of Redis; 0: not yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Times {
    pub queued: i64,
    pub leased: i64,
    /// Name of the latest worker.
    pub worker: Arc<str>,
    pub attempts: u32,
}

/// All that a record of a run needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunData {
    pub job: Bytes,
    pub times: Times,
    /// For each request whether it was cancelled.
    pub cancelled: Vec<bool>,
    /// All but the first, which is in the job.
    pub requests: Vec<Bytes>,
}

/// A task as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskState {
    pub task: TaskId,
    pub step: Step,
    pub job: Bytes,
    pub times: Times,
    pub cancelled: Vec<bool>,
    /// For each request whether its client said that it is not interested any more.
    pub forgotten: Vec<bool>,
    pub ending: Option<Ending>,
    pub answer: Bytes,
}

/// What the script says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    Accepted {
        id: OperationId,
        merged: bool,
        step: Step,
        times: Times,
    },
    /// Of whom too many actions wait; `None`: of all together.
    Refused(Option<Scope>),
    Joined {
        worker: WorkerId,
    },
    Assign {
        worker: WorkerId,
        lease: LeaseId,
        task: TaskId,
        job: Bytes,
        times: Times,
        /// Encoded `kiln.queue.v1.Carried`.
        carried: Bytes,
    },
    /// The same, for who only waits.
    Leased {
        task: TaskId,
        times: Times,
    },
    Adopted {
        worker: WorkerId,
        lease: LeaseId,
        task: Option<TaskId>,
        job: Bytes,
        times: Times,
    },
    CancelLease {
        worker: WorkerId,
        lease: LeaseId,
        reason: CancelReason,
    },
    CloseWorker {
        worker: WorkerId,
        reason: CloseReason,
    },
    Requeued {
        task: TaskId,
        at_once: bool,
    },
    Publish {
        task: TaskId,
        lease: LeaseId,
        worker: WorkerId,
        attempt: u32,
    },
    Stale {
        lease: LeaseId,
    },
    RequestCancelled {
        id: OperationId,
        run: RunData,
    },
    /// To the one whose call ended the task.
    Finished {
        task: TaskId,
        ending: Ending,
        run: RunData,
    },
    /// To the others who wait for it.
    Ended {
        task: TaskId,
        ending: Ending,
        times: Times,
        answer: Bytes,
    },
    Forgotten {
        task: TaskId,
    },
    State(Box<TaskState>),
    Unknown {
        task: TaskId,
    },
    /// An operator drains this worker.
    Drain {
        worker: WorkerId,
    },
    /// This frontend is new to the queue, or was taken for lost: it is not known what it waits
    /// for.
    Lapsed,
    /// What all frontends make names of leases with.
    Secret([u8; 32]),
    Totals {
        queued: usize,
        running: usize,
        oldest: Option<i64>,
    },
    Counters(Vec<(String, u64)>),
    Worker(Box<WorkerRow>),
    Lane {
        properties: Vec<(String, String)>,
        queued: usize,
        running: usize,
        served: bool,
    },
}

/// A worker as the queue knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerRow {
    pub name: String,
    pub slots: u32,
    pub occupied: u32,
    pub draining: bool,
    pub seen: i64,
    pub properties: Vec<(String, String)>,
    /// Encoded `kiln.queue.v1.Worker`.
    pub info: Bytes,
    /// Why it takes nothing for now; empty: it does.
    pub paused: String,
}

/// Everything in `input`.
pub fn parse_all(mut input: Bytes) -> Result<Vec<Told>, Garbled> {
    let mut all = Vec::new();
    while !input.is_empty() {
        all.push(Fields { fields: decode(&mut input)?.into_iter() }.told()?);
    }
    Ok(all)
}

struct Fields {
    fields: std::vec::IntoIter<Bytes>,
}

impl Fields {
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

    /// Queued, leased, worker, attempts.
    fn times(&mut self) -> Result<Times, Garbled> {
        Ok(Times {
            queued: self.number()?,
            leased: self.number()?,
            worker: self.text()?.into(),
            attempts: self.number()?,
        })
    }

    fn flags(&mut self) -> Result<Vec<bool>, Garbled> {
        Ok(self.bytes()?.iter().map(|flag| *flag == b'1').collect())
    }

    fn run(&mut self) -> Result<RunData, Garbled> {
        let fields = decode(&mut self.bytes()?)?;
        let mut fields = Fields { fields: fields.into_iter() };
        Ok(RunData {
            job: fields.bytes()?,
            times: fields.times()?,
            cancelled: fields.flags()?,
            requests: fields.fields.collect(),
        })
    }

    fn ending(&mut self) -> Result<Option<Ending>, Garbled> {
        let (name, detail) = (self.bytes()?, self.bytes()?);
        let mut detail = detail;
        let mut details =
            || decode(&mut detail).map(|fields| Fields { fields: fields.into_iter() });
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

    fn assignment(&mut self, attempt: u32) -> Result<(Bytes, Times), Garbled> {
        let job = self.bytes()?;
        let (queued, leased, worker) = (self.number()?, self.number()?, self.text()?.into());
        Ok((job, Times { queued, leased, worker, attempts: attempt }))
    }

    fn counters(&mut self) -> Result<Vec<(String, u64)>, Garbled> {
        let rest: Vec<Bytes> = self.fields.by_ref().collect();
        rest.chunks_exact(2).map(|pair| Ok((text(&pair[0]), parse(&pair[1])?))).collect()
    }

    fn told(&mut self) -> Result<Told, Garbled> {
        let name = self.bytes()?;
        Ok(match &*name {
            b"Accepted" => Told::Accepted {
                id: self.operation()?,
                merged: self.flag()?,
                step: self.step()?,
                times: self.times()?,
            },
            b"Refused" => Told::Refused(match &*self.bytes()? {
                b"Instance" => Some(Scope::Instance),
                b"Caller" => Some(Scope::Caller),
                _ => None,
            }),
            b"Joined" => Told::Joined { worker: self.worker()? },
            b"Assign" => {
                let (worker, lease, task) = (self.worker()?, self.lease()?, self.task()?);
                let attempt = self.number()?;
                let (job, times) = self.assignment(attempt)?;
                Told::Assign { worker, lease, task, job, times, carried: self.bytes()? }
            }
            b"Leased" => {
                let (task, attempts) = (self.task()?, self.number()?);
                let (leased, worker) = (self.number()?, self.text()?.into());
                Told::Leased { task, times: Times { queued: 0, leased, worker, attempts } }
            }
            b"Adopted" => {
                let (worker, lease, task) = (self.worker()?, self.lease()?, self.bytes()?);
                let task = if task.is_empty() { None } else { Some(TaskId(parse(&task)?)) };
                let attempt = self.number()?;
                let (job, times) = self.assignment(attempt)?;
                Told::Adopted { worker, lease, task, job, times }
            }
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
                Told::RequestCancelled { id: self.operation()?, run: self.run()? }
            }
            b"Finished" => {
                Told::Finished { task: self.task()?, ending: self.ended()?, run: self.run()? }
            }
            b"Ended" => {
                let (task, ending) = (self.task()?, self.ended()?);
                let (leased, worker, attempts) =
                    (self.number()?, self.text()?.into(), self.number()?);
                let times = Times { queued: 0, leased, worker, attempts };
                Told::Ended { task, ending, times, answer: self.bytes()? }
            }
            b"Forgotten" => Told::Forgotten { task: self.task()? },
            b"State" => Told::State(Box::new(TaskState {
                task: self.task()?,
                step: self.step()?,
                job: self.bytes()?,
                times: self.times()?,
                cancelled: self.flags()?,
                forgotten: self.flags()?,
                ending: self.ending()?,
                answer: self.bytes()?,
            })),
            b"Unknown" => Told::Unknown { task: self.task()? },
            b"Drain" => Told::Drain { worker: self.worker()? },
            b"Lapsed" => Told::Lapsed,
            b"Secret" => {
                let secret = <[u8; 32]>::try_from(&*self.bytes()?);
                Told::Secret(secret.map_err(|_| Garbled("a secret of another size".to_owned()))?)
            }
            b"Totals" => Told::Totals {
                queued: self.number()?,
                running: self.number()?,
                oldest: self.number().ok(),
            },
            b"Counters" => Told::Counters(self.counters()?),
            b"Worker" => Told::Worker(Box::new(WorkerRow {
                name: self.text()?,
                slots: self.number()?,
                occupied: self.number()?,
                draining: self.flag()?,
                seen: self.number()?,
                properties: parse_pairs(&self.bytes()?)?,
                info: self.bytes()?,
                paused: self.text()?,
            })),
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

fn unsatisfiable(mut fields: Fields) -> Result<String, Garbled> {
    let requirement = Requirement::new(parse_pairs(&fields.bytes()?)?);
    let offers: Result<Vec<_>, _> =
        fields.fields.map(|offer| parse_pairs(&offer).map(Offer::new)).collect();
    let offers = offers?;
    Ok(explain(&requirement, &offers.iter().collect::<Vec<_>>()))
}

impl Told {
    /// The same as an effect of the state machine in memory; `None` for what that need not say.
    pub fn effect(self, limits: &Limits) -> Option<Effect> {
        Some(match self {
            Self::Accepted { id, merged, .. } => Effect::Accepted { id, merged },
            Self::Refused(of) => Effect::Refused(limits.refusal(of)),
            Self::Assign { worker, lease, task, times, .. } => {
                Effect::Assign { worker, lease, task, attempt: times.attempts }
            }
            Self::Adopted { worker, lease, task, times, .. } => {
                Effect::Adopted { worker, lease, task, attempt: times.attempts }
            }
            Self::CancelLease { worker, lease, reason } => {
                Effect::CancelLease { worker, lease, reason }
            }
            Self::CloseWorker { worker, reason } => Effect::CloseWorker { worker, reason },
            Self::Requeued { task, at_once } => Effect::Requeued { task, at_once },
            Self::Publish { task, lease, worker, attempt } => {
                Effect::Publish { task, lease, worker, attempt }
            }
            Self::Stale { lease } => Effect::Stale { lease },
            Self::RequestCancelled { id, .. } => Effect::RequestCancelled { id },
            Self::Finished { task, ending, .. } => Effect::Finished { task, ending },
            Self::Forgotten { task } => Effect::Forgotten { task },
            Self::Joined { .. }
            | Self::Leased { .. }
            | Self::Ended { .. }
            | Self::State(_)
            | Self::Unknown { .. }
            | Self::Drain { .. }
            | Self::Lapsed
            | Self::Secret(_)
            | Self::Totals { .. }
            | Self::Counters(_)
            | Self::Worker(_)
            | Self::Lane { .. } => return None,
        })
    }
}
