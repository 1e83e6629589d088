//! `kiln agent` as the process that runs releases.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kiln_deploy::agent::{
    Agent, AgentError, Claim, HttpProbe, Probe, Pull, Running, Service, Speaker, Supervisor, Told,
    Trust, identity,
};
use kiln_deploy::fleet::{HEARTBEAT, check_name};
use kiln_deploy::rollouts::parts::Place;
use kiln_net::tls::TlsFiles;
use kiln_net::{causes, urls};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::options::{Options, shell};
use super::remote::{Remote, http};
use super::sharing::Shares;
use crate::cli::error::{CliError, Exit};
use crate::cli::process::settings;
use crate::cli::release::{keys, now};
use crate::cli::say::say;
use crate::cli::signals::Signals;
use crate::cli::target::Target;
use crate::cli::text;
use crate::config::log_options;
use crate::telemetry;

/// The largest release that is taken, in bytes.
const MAX_RELEASE: u64 = 64 << 30;

pub fn run(options: &Options, target: &Target) -> Result<Exit, CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| CliError::machine(format!("cannot start threads: {error}")))?;
    runtime.block_on(work(options, target))
}

async fn work(options: &Options, target: &Target) -> Result<Exit, CliError> {
    let place = Place { service: options.service()?, environment: options.environment.clone() };
    for name in [&place.service, &place.environment] {
        check_name(name).map_err(|error| CliError::usage(error.to_string()))?;
    }
    let (name, dir, key) = (options.name()?, options.dir()?, options.key()?);
    // That nothing can be trusted is said now, and not when the first order comes.
    keys::ring(&key)?;
    telemetry::start(log_options(&settings(None, Vec::new())?)?);
    target.warn_of_a_bare_token();
    let probe = options.health.as_ref().map(|it| probe(it, options)).transpose()?;
    let mut signals = Signals::listen()?;
    let stop = CancellationToken::new();
    let remote = Arc::new(Remote::new(target, stop.clone())?);
    // Before anything that runs is touched: an agent that works here already keeps its program.
    let claim = Claim::take(dir.clone()).map_err(|error| unusable(&dir, &error))?;
    let identity = identity(&dir).map_err(|error| unusable(&dir, &error))?;
    let speaker = Speaker { place: place.clone(), name: name.clone(), identity };
    let process = options.program().map(|it| Supervisor::open(&dir, it)).transpose();
    let service = Service {
        hooks: options.hooks(),
        process: process.map_err(|error| unusable(&dir, &error))?,
        probe,
        ready: options.ready_within,
    };
    let shares = Shares::start(options, &speaker, &dir, &stop).await?;
    let pull = Pull::new(remote.clone(), speaker.clone(), &dir, trust(options, key));
    let pull = pull.sharing(shares.sharing.clone());
    let seeding = shares.seed(&remote, &speaker);
    let running = Running::new(remote, Agent::new(claim, pull, service), told(options, speaker));
    let running = Arc::new(running);
    let runs = running.clone();
    let mut works = tokio::task::spawn_blocking(move || runs.run());
    text::print(&format!("kiln agent {name} for {place}, in {}\n", dir.display()))?;
    let ended = tokio::select! {
        () = signals.next() => {
            say("ending: what is being done is finished first");
            stop.cancel();
            running.stop();
            works.await
        }
        // Nobody asked for it: a part of it has failed, and whoever keeps the agent running starts it anew.
        ended = &mut works => ended,
    };
    stop.cancel();
    if let Some(seeding) = seeding {
        seeding.end().await;
    }
    ended.map_err(|error| CliError::machine(format!("the agent failed: {error}")))?;
    // The program of the version ends with it.
    let ends = tokio::task::spawn_blocking(move || drop(running));
    ends.await.map_err(|error| CliError::machine(error.to_string()))?;
    Ok(Exit::Done)
}

fn told(options: &Options, speaker: Speaker) -> Told {
    Told {
        speaker,
        address: options.address.clone(),
        labels: options.labels(),
        software: env!("CARGO_PKG_VERSION").to_owned(),
        heartbeat: HEARTBEAT,
        probe_every: options.health_every.max(MIN_EVERY),
    }
}

/// The shortest time between two probes.
const MIN_EVERY: Duration = Duration::from_millis(100);

fn trust(options: &Options, key: PathBuf) -> Trust {
    Trust {
        keys: Box::new(move || keys::ring(&key).map_err(|error| error.message)),
        repository: options.repository.clone(),
        expected: options.expected(),
        now: Box::new(now),
        max_bytes: MAX_RELEASE,
    }
}

fn probe(text: &str, options: &Options) -> Result<Arc<dyn Probe>, CliError> {
    let timeout = options.health_timeout;
    if !text.starts_with("http://") && !text.starts_with("https://") {
        return Ok(Arc::new(shell(text, timeout)));
    }
    let url = urls::parse(text).map_err(|error| CliError::usage(format!("--health: {error}")))?;
    let client = http(&TlsFiles::default(), url.scheme() == "https", timeout)?;
    Ok(Arc::new(HttpProbe { client, url, timeout, runtime: Handle::current() }))
}

fn unusable(dir: &Path, error: &(dyn std::error::Error + 'static)) -> CliError {
    let message = format!("{} cannot be used: {}", dir.display(), causes::chain(error));
    let is_busy =
        error.downcast_ref::<AgentError>().is_some_and(|it| matches!(it, AgentError::Busy(_)));
    CliError::machine(message).hint(match is_busy {
        true => "one agent works in a directory: name another one with --dir",
        false => "name a directory that this user may write to with --dir",
    })
}
