//! Carries out orders, until the version that is wanted runs.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::activation::{Activation, Hooks};
use super::disk::{
    link_whole, read_if_there, remove_if_there, sync_parent, sync_tree, write_whole,
};
use super::hook::HookError;
use super::link::short;
use super::source::{GoesOn, Source, SourceError};
use super::state::{AgentState, Order};
use crate::json::{self, JsonError};
use crate::oci::ContentDigest;
use crate::rollouts::machine::Generation;

const STATE: &str = "state.json";
/// Bytes that the file of the agent's state may have.
const MAX_STATE: usize = 64 << 10;

/// The points at which an agent can be stopped, between its steps. Whoever begins again finds it in a state that is
/// whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Point {
    Accepted,
    /// The point in the middle of a step that takes long.
    Working,
    Unpacked,
    Named,
    Switched,
    Checked,
    Kept,
}

/// What became of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Installed {
    Now,
    /// The order was carried out before.
    Already,
}

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("another agent works in {}", .0.display())]
    Busy(PathBuf),
    #[error("generation {told} is older than {newest}, which was accepted before")]
    Stale { told: Generation, newest: Generation },
    #[error("generation {0} was another version before: one generation means one")]
    Ambiguous(Generation),
    #[error("{what}")]
    Disk {
        what: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("the version cannot be had")]
    Source(#[source] SourceError),
    #[error("state.json is damaged")]
    State(#[source] JsonError),
    #[error("the new version is not installed: its program before the switch failed")]
    Before(#[source] HookError),
    #[error("the new version is not well, and the one before it runs again")]
    After(#[source] HookError),
    #[error("the new version is not well, and there is none before it")]
    Alone(#[source] HookError),
    #[error("stopped")]
    Stopped,
}

fn disk(what: &'static str) -> impl FnOnce(io::Error) -> AgentError {
    move |source| AgentError::Disk { what, source }
}

impl AgentError {
    /// Whether the order is given up: trying again cannot help.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Stale { .. } | Self::Ambiguous(_) => true,
            Self::Before(_) | Self::After(_) | Self::Alone(_) => true,
            Self::Source(source) => source.is_final(),
            Self::Busy(_) | Self::Disk { .. } | Self::State(_) | Self::Stopped => false,
        }
    }
}

fn folder(version: &ContentDigest) -> String {
    format!("{}-{}", version.algorithm().name(), version.hex())
}

/// The version whose folder a path ends in.
pub fn version_of(path: &Path) -> Option<ContentDigest> {
    path.file_name()?.to_str()?.replacen('-', ":", 1).parse().ok()
}

/// A directory in which nobody else works as long as this is there.
pub struct Claim {
    root: PathBuf,
    lock: File,
}

impl Claim {
    /// Makes the directory where it is not there.
    pub fn take(root: PathBuf) -> Result<Self, AgentError> {
        fs::create_dir_all(root.join("versions"))
            .map_err(disk("the agent's directory cannot be made"))?;
        let lock =
            File::create(root.join("lock")).map_err(disk("the agent's lock cannot be made"))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { root, lock }),
            Err(TryLockError::WouldBlock) => Err(AgentError::Busy(root)),
            Err(TryLockError::Error(error)) => Err(disk("the agent's lock cannot be had")(error)),
        }
    }
}

pub struct Agent<S, A = Hooks> {
    root: PathBuf,
    source: S,
    activation: A,
    /// Held as long as this is there.
    _lock: File,
}

impl<S: Source, A: Activation> Agent<S, A> {
    /// Works below `root`, which is made if it is not there; nobody else does at the same time.
    pub fn open(root: PathBuf, source: S, activation: A) -> Result<Self, AgentError> {
        Ok(Self::new(Claim::take(root)?, source, activation))
    }

    pub fn new(claim: Claim, source: S, activation: A) -> Self {
        let Claim { root, lock } = claim;
        Self { root, source, activation, _lock: lock }
    }

    pub fn state(&self) -> Result<AgentState, AgentError> {
        let read = read_if_there(&self.root.join(STATE), MAX_STATE);
        match read.map_err(disk("state.json cannot be read"))? {
            None => Ok(AgentState::default()),
            Some(data) => json::read(&data, MAX_STATE).map_err(AgentError::State),
        }
    }

    fn save(&self, state: &AgentState) -> Result<(), AgentError> {
        let data = json::write(state).map_err(AgentError::State)?;
        write_whole(&self.root.join(STATE), &data).map_err(disk("state.json cannot be written"))
    }

    /// The version that `current` leads to: what is, whatever was said.
    pub fn running(&self) -> Option<ContentDigest> {
        let link = fs::read_link(self.root.join("current")).ok()?;
        let place = self.root.join(&link);
        place.is_dir().then(|| version_of(&link)).flatten()
    }

    /// The directory of the version that `current` leads to; `None`: nothing was installed yet.
    pub fn place_of_running(&self) -> Option<PathBuf> {
        self.running().map(|version| self.place(&version))
    }

    pub fn activation(&self) -> &A {
        &self.activation
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Carries out an order. `goes_on` is asked between steps, and stops it there by saying no.
    pub fn obey(
        &self,
        order: &Order,
        goes_on: &dyn Fn(Point) -> bool,
    ) -> Result<Installed, AgentError> {
        let mut state = self.state()?;
        let (told, newest) = (order.generation, state.generation);
        let version = order.version.clone();
        if told < newest {
            return Err(AgentError::Stale { told, newest });
        }
        if told == newest && state.version.as_ref().is_some_and(|known| *known != version) {
            return Err(AgentError::Ambiguous(told));
        }
        let runs = self.running().as_ref() == Some(&version);
        if told == newest && runs && !state.open && state.failed.is_none() {
            return Ok(Installed::Already);
        }
        (state.generation, state.version) = (told, Some(version));
        (state.open, state.failed) = (true, None);
        self.save(&state)?;
        self.carry_out(state, goes_on)
    }

    /// Goes on with what was accepted before a crash.
    pub fn resume(&self, goes_on: &dyn Fn(Point) -> bool) -> Result<Installed, AgentError> {
        let state = self.state()?;
        if state.open { self.carry_out(state, goes_on) } else { Ok(Installed::Already) }
    }

    fn carry_out(
        &self,
        mut state: AgentState,
        goes_on: &dyn Fn(Point) -> bool,
    ) -> Result<Installed, AgentError> {
        let stop = |point| if goes_on(point) { Ok(()) } else { Err(AgentError::Stopped) };
        let Some(version) = state.version.clone() else { return Ok(Installed::Already) };
        stop(Point::Accepted)?;
        if let Err(error) = self.unpack(&version, &stop) {
            if error.is_final() {
                self.give_up(&mut state, &error)?;
            }
            return Err(error);
        }
        let place = self.place(&version);
        if let Err(error) = self.activation.before(&place) {
            self.give_up(&mut state, &error)?;
            return Err(AgentError::Before(error));
        }
        self.switch(&version)?;
        stop(Point::Switched)?;
        match self.activation.after(&place, &|| goes_on(Point::Working)) {
            Ok(()) => {}
            Err(HookError::Stopped) => return Err(AgentError::Stopped),
            Err(error) => {
                return Err(self.go_back(state, error, &|| goes_on(Point::Working))?);
            }
        }
        stop(Point::Checked)?;
        if state.current.as_ref() != Some(&version) {
            state.previous = state.current.replace(version);
        }
        (state.open, state.settled) = (false, state.generation);
        self.save(&state)?;
        stop(Point::Kept)?;
        self.prune(&state)?;
        Ok(Installed::Now)
    }

    fn place(&self, version: &ContentDigest) -> PathBuf {
        self.root.join("versions").join(folder(version))
    }

    /// Unpacks beside, and gives it its name when all of it is on disk.
    fn unpack(
        &self,
        version: &ContentDigest,
        stop: &dyn Fn(Point) -> Result<(), AgentError>,
    ) -> Result<(), AgentError> {
        let place = self.place(version);
        if place.is_dir() {
            return Ok(());
        }
        let beside = self.root.join("versions").join(".unpacking");
        remove_if_there(&beside).map_err(disk("what was half unpacked cannot be removed"))?;
        if let Err(error) = self.fill(version, &beside, stop) {
            // A disk that is full has to have room again. What stays is removed by the next try.
            let _ = remove_if_there(&beside);
            return Err(match error {
                SourceError::Stopped => AgentError::Stopped,
                SourceError::Disk(error) => disk("the version cannot be unpacked")(error),
                error => AgentError::Source(error),
            });
        }
        stop(Point::Unpacked)?;
        fs::rename(&beside, &place)
            .and_then(|()| sync_parent(&place))
            .map_err(disk("the version cannot be given its name"))?;
        stop(Point::Named)
    }

    fn fill(
        &self,
        version: &ContentDigest,
        beside: &Path,
        stop: &dyn Fn(Point) -> Result<(), AgentError>,
    ) -> Result<(), SourceError> {
        fs::create_dir(beside)?;
        self.source.unpack(version, beside, &|| stop(Point::Working).is_ok())?;
        Ok(sync_tree(beside)?)
    }

    fn switch(&self, version: &ContentDigest) -> Result<(), AgentError> {
        let place = self.place(version);
        let name = place.file_name().unwrap_or_default();
        link_whole(&self.root.join("current"), &Path::new("versions").join(name))
            .map_err(disk("the link to the version cannot be switched"))
    }

    fn give_up(
        &self,
        state: &mut AgentState,
        error: &(dyn std::error::Error + 'static),
    ) -> Result<(), AgentError> {
        (state.open, state.settled) = (false, state.generation);
        state.failed = Some(short(&kiln_net::causes::chain(error)));
        self.save(state)
    }

    /// Goes back after a version that is not well: the one before it runs again, which is then told to the program as
    /// well.
    fn go_back(
        &self,
        mut state: AgentState,
        error: HookError,
        goes_on: GoesOn<'_>,
    ) -> Result<AgentError, AgentError> {
        let Some(before) = state.current.clone() else {
            self.give_up(&mut state, &error)?;
            return Ok(AgentError::Alone(error));
        };
        self.switch(&before)?;
        // Whether it is well is what the next probe finds out. Nobody who ends or has something newer to do waits for it.
        let _ = self.activation.after(&self.place(&before), goes_on);
        self.give_up(&mut state, &error)?;
        Ok(AgentError::After(error))
    }

    /// Keeps the version that runs and the one before it.
    fn prune(&self, state: &AgentState) -> Result<(), AgentError> {
        let kept: Vec<_> = [&state.current, &state.previous]
            .into_iter()
            .flatten()
            .map(|version| self.place(version))
            .collect();
        let entries = fs::read_dir(self.root.join("versions"));
        let entries = entries.map_err(disk("the versions cannot be listed"))?;
        for path in entries.flatten().map(|entry| entry.path()).filter(|path| !kept.contains(path))
        {
            remove_if_there(&path).map_err(disk("an old version cannot be removed"))?;
        }
        Ok(())
    }
}
