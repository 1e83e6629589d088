//! The queue in Redis, held against the state machine in memory: the same events must have the
//! same effects, in the same order, whatever happens.

use std::collections::HashMap;

use bytes::Bytes;
use kiln_protos::{events, queue};
use kiln_scheduler::engine::redis::script::{
    Arguments, DEFINITIONS, FUNCTION, beat, event, preamble, published_encoded, submit_encoded,
    tasks, waits,
};
use kiln_scheduler::engine::redis::wire::Parser;
use kiln_scheduler::frontend::told::Told;
use kiln_scheduler::queue::{Counters, Effect, Event, LeaseId, Limits, Machine, Millis, TaskId};
use kiln_test_servers::redis::RedisServer;
use prost::Message;

use crate::coverage::Marked;
use crate::subject::Subject;

const PREFIX: &str = "{queue}";

fn a_job() -> Vec<u8> {
    let digest = || Some(events::Digest { hash: "00".repeat(32), size_bytes: 1 });
    let (action, command, input_root) = (digest(), digest(), digest());
    queue::Job { action, digest_function: 1, command, input_root, ..Default::default() }
        .encode_to_vec()
}

/// The same news as an effect of the state machine in memory; `None`: that one need not say it.
fn effect(told: Told) -> Option<Effect> {
    Some(match told {
        Told::Accepted { id, joined, .. } => Effect::Accepted { id, merged: joined.is_some() },
        Told::Refused(refusal) => Effect::Refused(refusal),
        Told::Assign { worker, lease, task, attempt, .. } => {
            Effect::Assign { worker, lease, task, attempt: attempt.number }
        }
        Told::Adopted { worker, lease, task, attempt } => {
            let task = task.map(|(task, _)| task);
            Effect::Adopted { worker, lease, task, attempt: attempt.number }
        }
        Told::CancelLease { worker, lease, reason } => {
            Effect::CancelLease { worker, lease, reason }
        }
        Told::CloseWorker { worker, reason } => Effect::CloseWorker { worker, reason },
        Told::Requeued { task, at_once } => Effect::Requeued { task, at_once },
        Told::Publish { task, lease, worker, attempt } => {
            Effect::Publish { task, lease, worker, attempt }
        }
        Told::Stale { lease } => Effect::Stale { lease },
        Told::RequestCancelled { id, .. } => Effect::RequestCancelled { id },
        Told::Finished { task, ending, .. } => Effect::Finished { task, ending },
        Told::Forgotten { task } => Effect::Forgotten { task },
        _ => return None,
    })
}

/// How the script is called: as a function where the server has these, else as a script.
struct Called {
    command: &'static str,
    name: String,
}

/// The variable that, when set, has the script called as one whatever the server has.
const AS_SCRIPT: &str = "KILN_SIM_SCRIPT";

impl Called {
    fn load(connection: &mut redis::Connection) -> Self {
        const NAME: &str = "simulated";
        let code = format!(
            "#!lua name={NAME}\n{DEFINITIONS}redis.register_function('{NAME}', {FUNCTION})\n"
        );
        let loaded = redis::cmd("FUNCTION").arg("LOAD").arg(code).query::<String>(connection);
        match loaded {
            _ if std::env::var_os(AS_SCRIPT).is_some() => {}
            Ok(name) => return Self { command: "FCALL", name },
            Err(error) if error.code() == Some("ERR") => println!("as a script: {error}"),
            Err(error) => panic!("{error}"),
        }
        Self::script(connection, &format!("{DEFINITIONS}return {FUNCTION}(KEYS, ARGV)\n"))
    }

    fn script(connection: &mut redis::Connection, source: &str) -> Self {
        let name = redis::cmd("SCRIPT").arg("LOAD").arg(source).query(connection).unwrap();
        Self { command: "EVALSHA", name }
    }
}

/// The script in a real Redis, with time given.
pub struct Shared {
    connection: redis::Connection,
    called: Called,
    /// The marks by which the script tells which functions and branches it came to; `None`: it has
    /// none.
    marked: Option<Marked>,
    caller: String,
    limits: Limits,
    next_timer: Option<Millis>,
    /// The encoded job of every task: the queue does not look at it.
    job: Vec<u8>,
    /// The lease under which each task is being published.
    publishing: HashMap<TaskId, LeaseId>,
    _server: RedisServer,
}

impl Shared {
    /// `None`: there is no Redis here, and tests may be skipped.
    pub fn start(limits: Limits) -> Option<Self> {
        let server = RedisServer::start()?;
        let client = redis::Client::open(server.url()).unwrap();
        let mut connection = client.get_connection().unwrap();
        let called = Called::load(&mut connection);
        Some(Self {
            connection,
            called,
            marked: None,
            caller: "simulation".to_owned(),
            limits,
            next_timer: None,
            job: a_job(),
            publishing: HashMap::new(),
            _server: server,
        })
    }

    /// Starts a queue whose script is marked, so that it tells where it came by.
    fn marked(limits: Limits, marked: Marked) -> Option<Self> {
        let mut shared = Self::start(limits)?;
        shared.called = Called::script(&mut shared.connection, &marked.source);
        shared.marked = Some(marked);
        Some(shared)
    }

    fn arguments(&self, happened: &Event) -> Vec<Vec<u8>> {
        match happened {
            Event::Submit(what) => {
                let key = what.key.action.hash;
                submit_encoded(what, &key, (self.job.clone(), Vec::new()), Vec::new())
            }
            Event::Published { task, bytes } => {
                let lease = self.publishing.get(task).copied().unwrap_or(LeaseId(0));
                published_encoded(*task, lease, *bytes, Vec::new())
            }
            other => event(other).expect("nothing else is simulated"),
        }
    }

    /// Returns whether the caller was taken for lost, or is new.
    fn call(&mut self, now: Millis, arguments: Arguments, effects: &mut Vec<Effect>) -> bool {
        let mut call = redis::cmd(self.called.command);
        call.arg(&self.called.name).arg(1).arg(PREFIX);
        for argument in preamble(Some(now), &self.caller, &self.limits) {
            call.arg(argument);
        }
        for argument in arguments {
            call.arg(argument);
        }
        let (timer, said): (String, Vec<u8>) = match &mut self.marked {
            None => {
                let (_, timer, said): (String, _, _) = call.query(&mut self.connection).unwrap();
                (timer, said)
            }
            Some(marked) => {
                let (_, timer, said, reached): (String, _, _, _) =
                    call.query(&mut self.connection).unwrap();
                marked.reached(reached);
                (timer, said)
            }
        };
        self.next_timer = timer.parse().ok();
        let parser = Parser { limits: &self.limits, now: now as i64 };
        let said = parser.all(Bytes::from(said)).unwrap();
        for effect in said.told.into_iter().filter_map(effect) {
            if let Effect::Publish { task, lease, .. } = &effect {
                self.publishing.insert(*task, *lease);
            }
            effects.push(effect);
        }
        said.lapsed
    }

    fn counter(&mut self, name: &str) -> u64 {
        let key = format!("{PREFIX}:m");
        let found: Option<u64> =
            redis::cmd("HGET").arg(key).arg(name).query(&mut self.connection).unwrap();
        found.unwrap_or(0)
    }
}

impl Shared {
    /// A call whose answer is lost, and which is made once more. Returns what the second answer says.
    pub fn told_twice(&mut self, now: Millis, arguments: Arguments) -> Vec<Effect> {
        self.call(now, arguments.clone(), &mut Vec::new());
        let mut effects = Vec::new();
        self.call(now, arguments, &mut effects);
        effects
    }

    /// Empties the server, as if it had lost everything.
    pub fn forget_all(&mut self) {
        let _: () = redis::cmd("FLUSHALL").query(&mut self.connection).unwrap();
        self.next_timer = None;
        self.publishing.clear();
    }
}

impl Subject for Shared {
    fn handle(&mut self, now: Millis, event: Event, effects: &mut Vec<Effect>) {
        let arguments = self.arguments(&event);
        self.call(now, arguments, effects);
    }

    fn next_timer(&mut self) -> Option<Millis> {
        self.next_timer
    }

    fn check(&mut self) {}

    fn counters(&mut self) -> Counters {
        Counters {
            submitted: self.counter("c.submitted"),
            merged: self.counter("c.merged"),
            refused: self.counter("c.refused"),
            dispatched: self.counter("c.dispatched"),
            published: self.counter("c.published"),
            cancelled: self.counter("c.cancelled"),
            abandoned: self.counter("c.abandoned"),
            unsatisfiable: self.counter("c.unsatisfiable"),
            retries_exhausted: self.counter("c.retries_exhausted"),
            poisoned: self.counter("c.poisoned"),
            retries: self.counter("c.retries"),
            workers_joined: self.counter("c.workers_joined"),
            workers_lost: self.counter("c.workers_lost"),
            leases_expired: self.counter("c.leases_expired"),
            stale_results: self.counter("c.stale_results"),
            returned: self.counter("c.returned"),
            leases_refused: self.counter("c.leases_refused"),
        }
    }

    /// Tasks that are neither finished nor forgotten.
    fn unfinished(&mut self) -> usize {
        let key = format!("{PREFIX}:tasks");
        let tasks: Vec<String> =
            redis::cmd("ZRANGE").arg(key).arg(0).arg(-1).query(&mut self.connection).unwrap();
        let open = tasks.iter().filter(|task| {
            let state: String = redis::cmd("HGET")
                .arg(format!("{PREFIX}:t:{task}"))
                .arg("st")
                .query(&mut self.connection)
                .unwrap();
            state != "F"
        });
        open.count()
    }
}

/// The script as several frontends drive it, each of which may be lost.
pub struct Frontends {
    shared: Shared,
    count: usize,
}

impl Frontends {
    pub fn start(limits: Limits, count: usize) -> Option<Self> {
        Some(Self { shared: Shared::start(limits)?, count })
    }
}

impl Subject for Frontends {
    fn handle(&mut self, now: Millis, event: Event, effects: &mut Vec<Effect>) {
        // Nothing is due: the call would do nothing.
        if matches!(event, Event::Tick) && self.shared.next_timer.is_none_or(|due| due > now) {
            return;
        }
        Subject::handle(&mut self.shared, now, event, effects);
    }

    fn next_timer(&mut self) -> Option<Millis> {
        self.shared.next_timer
    }

    fn check(&mut self) {}

    fn counters(&mut self) -> Counters {
        self.shared.counters()
    }

    fn unfinished(&mut self) -> usize {
        self.shared.unfinished()
    }

    fn frontends(&self) -> usize {
        self.count
    }

    fn told_by(&mut self, name: &str) {
        name.clone_into(&mut self.shared.caller);
    }

    fn published_under(&mut self, task: TaskId, lease: LeaseId) {
        self.shared.publishing.insert(task, lease);
    }

    fn beat(&mut self, now: Millis, effects: &mut Vec<Effect>) -> bool {
        self.shared.call(now, beat(&[7; 32], &[]), effects)
    }

    fn compare(
        &mut self,
        now: Millis,
        waiting: &[(TaskId, usize)],
        publishing: &[TaskId],
        effects: &mut Vec<Effect>,
    ) {
        self.shared.call(now, waits(waiting, true), effects);
        self.shared.call(now, tasks("publishes", publishing), effects);
    }
}

/// The state machine and the script together: what one does the other must do.
pub struct Both {
    machine: Machine,
    shared: Shared,
}

impl Both {
    pub fn start(limits: Limits) -> Option<Self> {
        Some(Self { machine: Machine::new(limits.clone()), shared: Shared::start(limits)? })
    }

    /// Starts both, with a script that is marked and tells where it came by.
    pub fn marked(limits: Limits, marked: Marked) -> Option<Self> {
        let shared = Shared::marked(limits.clone(), marked)?;
        Some(Self { machine: Machine::new(limits), shared })
    }

    pub fn into_coverage(self) -> Marked {
        self.shared.marked.expect("it was started with marks")
    }

    /// Keys that are left, by kind: nothing may stay behind.
    pub fn left_behind(&mut self) -> Vec<String> {
        redis::cmd("KEYS").arg("*").query(&mut self.shared.connection).unwrap()
    }
}

impl Subject for Both {
    fn handle(&mut self, now: Millis, event: Event, effects: &mut Vec<Effect>) {
        let mut expected = Vec::new();
        self.machine.handle(now, event.clone(), &mut expected);
        let mut found = Vec::new();
        Subject::handle(&mut self.shared, now, event.clone(), &mut found);
        assert_eq!(found, expected, "at {now} after {event:?}");
        assert_eq!(self.shared.next_timer, Machine::next_timer(&self.machine), "{event:?}");
        effects.append(&mut found);
    }

    fn next_timer(&mut self) -> Option<Millis> {
        self.shared.next_timer
    }

    fn check(&mut self) {
        self.machine.check();
    }

    fn counters(&mut self) -> Counters {
        let counters = self.shared.counters();
        assert_eq!(counters, Machine::counters(&self.machine));
        counters
    }

    fn unfinished(&mut self) -> usize {
        self.shared.unfinished() + Subject::unfinished(&mut self.machine)
    }
}
