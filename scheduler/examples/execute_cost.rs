//! What an Execute costs the scheduler itself: services, queue and session, with memory
//! stores and a local worker that answers at once; no network, no sandbox.
//!
//! `cargo run --release -p kiln-scheduler --example execute_cost`
//! `cargo run --release -p kiln-scheduler --example execute_cost redis://127.0.0.1:6379 4`:
//! the same through so many frontends that share a queue in Redis, and what it costs Redis.

use std::error::Error;
use std::sync::Arc;
use std::time::Instant;

use futures_util::StreamExt;
use kiln_cas::redis::{Call, Redis, RedisConfig};
use kiln_cas::{BlobStore, Digest, DigestFunction};
use kiln_protos::reapi::execution_client::ExecutionClient;
use kiln_protos::reapi::{
    Action, ActionResult, Command, Directory, ExecuteRequest, ExecuteResponse,
};
use kiln_protos::worker::{
    Completed, Hello, WorkerMessage, completed, scheduler_message, worker_message,
};
use kiln_scheduler::{Parts, Scheduler, SchedulerConfig};
use prost::Message;

const ACTIONS: u64 = 20_000;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let parts = Parts::in_memory();
    let blobs = parts.blobs.clone();
    let mut arguments = std::env::args().skip(1);
    let redis = match arguments.next() {
        Some(url) => Some(Redis::connect(RedisConfig::from_url(&url)?).await?),
        None => None,
    };
    let count = arguments.next().map_or(Ok(1), |count| count.parse())?;
    let mut frontends = Vec::new();
    for number in 0..count {
        let config = SchedulerConfig::default();
        let scheduler = match &redis {
            Some(redis) => Scheduler::join(config, parts.clone(), redis.clone()).await?,
            None => Scheduler::start(config, parts.clone()),
        };
        tokio::spawn(work(scheduler.clone(), format!("local-{number}")));
        frontends.push(scheduler);
    }
    let mut next = 0;
    for in_flight in [1, 4, 32, 128] {
        let mut actions = Vec::new();
        for _ in 0..ACTIONS {
            next += 1;
            actions.push(action(&blobs, next).await?);
        }
        let before = cpu(redis.as_ref()).await?;
        let begun = Instant::now();
        let frontends = frontends.iter().cycle();
        let runs = actions.into_iter().zip(frontends);
        let runs = runs.map(|(action, frontend)| execute(frontend.clone(), action));
        let mut runs = futures_util::stream::iter(runs).buffer_unordered(in_flight);
        while let Some(run) = runs.next().await {
            run?;
        }
        let elapsed = begun.elapsed().as_secs_f64();
        let busy = (cpu(redis.as_ref()).await? - before) / elapsed * 100.0;
        let each = elapsed * 1e6 / ACTIONS as f64;
        print!("{in_flight:>3} in flight: {each:.1} us an action, {:.0}/s", 1e6 / each);
        println!(
            "{}",
            if redis.is_some() { format!(", Redis {busy:.0} %") } else { String::new() }
        );
    }
    Ok(())
}

async fn action(blobs: &Arc<dyn BlobStore>, number: u64) -> Result<Digest, Failure> {
    let function = DigestFunction::Sha256;
    let mut stored = Vec::new();
    let command = Command { arguments: vec![number.to_string()], ..Default::default() };
    for data in [command.encode_to_vec(), Directory::default().encode_to_vec()] {
        let digest = function.digest(&data);
        blobs.write(&digest, data.into()).await?;
        stored.push(digest.to_wire());
    }
    let action = Action {
        input_root_digest: stored.pop(),
        command_digest: stored.pop(),
        ..Default::default()
    };
    let data = action.encode_to_vec();
    let digest = function.digest(&data);
    blobs.write(&digest, data.into()).await?;
    Ok(digest)
}

async fn execute(scheduler: Scheduler, action: Digest) -> Result<(), Failure> {
    // The generated client over the generated server, without a connection in between.
    let mut client = ExecutionClient::new(scheduler.execution_service());
    let request = ExecuteRequest { action_digest: Some(action.to_wire()), ..Default::default() };
    let mut updates = client.execute(request).await?.into_inner();
    while let Some(operation) = updates.message().await? {
        if operation.done {
            return Ok(());
        }
    }
    Err("the stream ended early".into())
}

/// Seconds of processor time that Redis has used.
async fn cpu(redis: Option<&Redis>) -> Result<f64, Failure> {
    let Some(redis) = redis else { return Ok(0.0) };
    let info: String = redis.query(Call::anywhere("INFO").arg("cpu")).await?;
    let figure = |name: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.parse::<f64>().ok()).unwrap_or(0.0)
    };
    Ok(figure("used_cpu_sys:") + figure("used_cpu_user:"))
}

async fn work(scheduler: Scheduler, id: String) -> Option<()> {
    let (to_scheduler, mut from_scheduler) = scheduler.open_session();
    let hello = Hello { worker_id: id, slots: 64, ..Default::default() };
    let say = |kind| to_scheduler.send(WorkerMessage { kind: Some(kind) });
    say(worker_message::Kind::Hello(hello)).await.ok()?;
    let response = ExecuteResponse { result: Some(ActionResult::default()), ..Default::default() };
    while let Some(message) = from_scheduler.recv().await {
        if let Some(scheduler_message::Kind::Lease(lease)) = message.kind {
            let outcome = completed::Outcome::ExecuteResponse(response.encode_to_vec().into());
            let completed = Completed { lease_id: lease.lease_id, outcome: Some(outcome) };
            say(worker_message::Kind::Completed(completed)).await.ok()?;
        }
    }
    None
}
