//! What a host does with a version: programs around the switch, its process, and whether it is well.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::activation::{Activation, Hooks};
use super::hook::HookError;
use super::link::Health;
use super::probe::Probe;
use super::process::Supervisor;
use super::source::GoesOn;
use super::work::version_of;

/// The time between two looks whether a version is well that was just started.
const FIRST_LOOK: Duration = Duration::from_millis(50);
const LAST_LOOK: Duration = Duration::from_millis(250);
/// A program has to live so long, whatever a probe says: not every probe asks the program itself.
const UP_FOR: Duration = Duration::from_millis(300);
/// A new version that ends by itself so often is not waited for any longer.
const CRASHES: u64 = 3;

/// Everything around a version on one host.
pub struct Service {
    pub hooks: Hooks,
    /// `None`: whoever keeps it running is told by the hooks.
    pub process: Option<Supervisor>,
    pub probe: Option<Arc<dyn Probe>>,
    /// The time within which a version has to be well that was switched to.
    pub ready: Duration,
}

impl Service {
    /// Runs a version that ran well before.
    pub fn start(&self, version: &Path) -> Result<(), HookError> {
        let Some(process) = &self.process else { return Ok(()) };
        let name = version_of(version).map(|it| it.to_string()).unwrap_or_default();
        process.run(&name, version)
    }

    /// How the version that runs is, now.
    pub fn health(&self, version: &Path) -> Health {
        if let Some(process) = &self.process
            && process.up().is_none()
        {
            let (_, last) = process.crashes();
            return Health::Unwell(last.unwrap_or_else(|| "it does not run".to_owned()));
        }
        match (&self.probe, &self.process) {
            (Some(probe), _) => probe.probe(version),
            (None, Some(_)) => Health::Well,
            (None, None) => Health::Unknown,
        }
    }

    fn become_well(&self, version: &Path, goes_on: GoesOn<'_>) -> Result<(), HookError> {
        let (begun, mut look) = (Instant::now(), FIRST_LOOK);
        loop {
            if !goes_on() {
                return Err(HookError::Stopped);
            }
            let why = match self.health(version) {
                Health::Well | Health::Unknown if self.is_up_long_enough() => return Ok(()),
                Health::Well | Health::Unknown => "it has just been started".to_owned(),
                Health::Unwell(why) => why,
            };
            let (crashes, last) = self.process.as_ref().map_or((0, None), |it| it.crashes());
            if begun.elapsed() >= self.ready || crashes >= CRASHES {
                // It may have been started once more since the last time, and look well for a moment.
                let why = last.filter(|_| crashes >= CRASHES).unwrap_or(why);
                return Err(HookError::NotReady { within: self.ready, why });
            }
            let wait = look.min(self.ready);
            match &self.process {
                // What ends meanwhile is seen at once.
                Some(process) => process.wait(wait),
                None => std::thread::park_timeout(wait),
            }
            look = (look * 2).min(LAST_LOOK);
        }
    }

    fn is_up_long_enough(&self) -> bool {
        let process = self.process.as_ref();
        process.is_none_or(|it| it.up().is_some_and(|up| up >= UP_FOR))
    }
}

impl Activation for Service {
    fn before(&self, version: &Path) -> Result<(), HookError> {
        self.hooks.before(version)
    }

    fn after(&self, version: &Path, goes_on: GoesOn<'_>) -> Result<(), HookError> {
        self.start(version)?;
        self.hooks.after(version, goes_on)?;
        self.become_well(version, goes_on)
    }
}
