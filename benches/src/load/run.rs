//! Works in order, targets in turn.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::args::Options;
use super::burst::{self, Burst};
use super::error::CallError;
use super::lanes::Lanes;
use super::report::{Cell, Outcome, Report, Row};
use super::samples::Samples;
use super::spawn;
use super::target::Target;
use super::works::{self, Context, Work};

/// Length of the first burst, which is not counted, as a fraction of the length of those that are.
const WARM_UP: f64 = 0.2;
/// The target of this name is the floor, unless told otherwise; others whose name starts so
/// are taken for floors as well.
const FLOOR: &str = "floor";

/// Measures and prints. False: something failed or was answered wrongly.
pub fn run(options: Options) -> Result<bool, CallError> {
    let lanes =
        Lanes::start(options.client_runtime, options.client_threads).map_err(CallError::lost)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(CallError::lost)?;
    let report = runtime.block_on(measure(options.clone(), &lanes))?;
    let json = serde_json::to_string_pretty(&report).map_err(CallError::lost)?;
    if let Some(path) = &options.json_file {
        std::fs::write(path, &json)
            .map_err(|error| CallError::Lost(format!("{}: {error}", path.display())))?;
    }
    if options.json {
        println!("{json}");
    } else {
        print!("{}", report.table());
    }
    Ok(report.is_clean())
}

async fn measure(options: Options, lanes: &Lanes) -> Result<Report, CallError> {
    let works = works_of(&options);
    let floor = floor_of(&options)?;
    let mut targets = connect(&options, floor.as_deref(), lanes).await?;
    if targets.is_empty() && works.iter().any(|work| *work != Work::SandboxFloor) {
        return Err(CallError::Lost("name at least one --target NAME=URL".to_owned()));
    }
    let run = SystemTime::now().duration_since(UNIX_EPOCH).map_err(CallError::lost)?;
    // Never 0, which stands for the blobs that are the same in every run.
    let run = run.as_nanos() as u64 | 1;
    let mut context = Context { options, samples: Arc::new(Samples::new(run)), notes: Vec::new() };
    let mut report = Report::new(floor);
    for work in works {
        eprintln!("kiln-load: {}", work.name());
        match work {
            Work::SandboxFloor => {
                report.spawn_floor = spawn::measure().map_err(|e| context.notes.push(e)).ok();
            }
            Work::Idle => report.rows.push(idle(&targets, &context).await),
            _ => report.rows.push(row(work, &mut targets, &mut context).await),
        }
    }
    report.notes = context.notes;
    Ok(report)
}

fn works_of(options: &Options) -> Vec<Work> {
    let mut works: Vec<Work> = Vec::new();
    for work in options.works.iter().copied().flat_map(Work::of) {
        if !works.contains(&work) {
            works.push(work);
        }
    }
    works
}

/// The name of the target that ratios refer to.
fn floor_of(options: &Options) -> Result<Option<String>, CallError> {
    let names: Vec<_> = options.targets.iter().map(|target| target.name.as_str()).collect();
    match options.floor.as_deref() {
        Some(floor) if !names.contains(&floor) => {
            Err(CallError::Lost(format!("--floor {floor}: no target has that name")))
        }
        Some(floor) => Ok(Some(floor.to_owned())),
        None if names.contains(&FLOOR) => Ok(Some(FLOOR.to_owned())),
        None => Ok(names.first().map(|&name| name.to_owned())),
    }
}

async fn connect(
    options: &Options,
    floor: Option<&str>,
    lanes: &Lanes,
) -> Result<Vec<Target>, CallError> {
    let constant = |name: &str| name.starts_with(FLOOR) || options.floor.as_deref() == Some(name);
    let mut targets: Vec<Target> = Vec::new();
    for named in &options.targets {
        let target =
            Target::connect(&named.name, &named.value, constant(&named.name), options, lanes)
                .await
                .map_err(|error| CallError::Lost(format!("{}: {error}", named.name)))?;
        targets.push(target);
    }
    // The floor comes first in the table.
    targets.sort_by_key(|target| floor != Some(target.name.as_str()));
    Ok(targets)
}

async fn row(work: Work, targets: &mut [Target], context: &mut Context) -> Row {
    let mut outcomes: Vec<Outcome> = Vec::new();
    for target in targets.iter_mut() {
        let ready = match works::prepare(work, target, context).await {
            Ok(()) => warm_up(work, target, context).await,
            Err(error) => Err(error),
        };
        outcomes.push(ready.map_or_else(Outcome::from, |()| Outcome::Measured(Vec::new())));
    }
    for turn in 0..context.options.repeat.get() {
        for place in 0..targets.len() {
            // Every other turn backwards, so that no target is always the one after another.
            let place = if turn % 2 == 0 { place } else { targets.len() - 1 - place };
            if let Outcome::Measured(bursts) = &mut outcomes[place] {
                match one(work, &mut targets[place], context).await {
                    Ok(burst) => bursts.push(burst),
                    Err(error) => outcomes[place] = error.into(),
                }
            }
        }
    }
    Row::new(work, targets.iter().map(|target| target.name.clone()).zip(outcomes))
}

async fn one(work: Work, target: &mut Target, context: &mut Context) -> Result<Burst, CallError> {
    let duration = context.options.burst();
    works::run(work, target, context, duration).await
}

async fn warm_up(work: Work, target: &mut Target, context: &mut Context) -> Result<(), CallError> {
    let duration = context.options.burst().mul_f64(WARM_UP);
    works::run(work, target, context, duration).await.map(drop)
}

async fn idle(targets: &[Target], context: &Context) -> Row {
    let duration = context.options.burst().max(Duration::from_secs(2));
    let mut cells = Vec::new();
    for target in targets {
        let outcome = match burst::watch_idle(target, duration).await {
            Ok(idle) => Outcome::Idle(idle),
            Err(error) => error.into(),
        };
        cells.push((target.name.clone(), outcome));
    }
    Row::new(Work::Idle, cells.into_iter())
}

impl From<CallError> for Outcome {
    fn from(error: CallError) -> Self {
        if error.is_unsupported() {
            Self::Unsupported(error.to_string())
        } else {
            Self::Failed(error.to_string())
        }
    }
}

impl Row {
    fn new(work: Work, cells: impl Iterator<Item = (String, Outcome)>) -> Self {
        let cells = cells.map(|(target, outcome)| Cell { target, outcome }).collect();
        Self { work: work.name(), measure: work.measure(), cells }
    }
}
