//! Counts what became of tools, and of actions that asked for one.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

use super::Unfit;

#[derive(Debug, Default)]
pub struct ToolStats {
    started: AtomicU64,
    requests: AtomicU64,
    reused: AtomicU64,
    /// How many tools ended for each reason, by its place in [`End::ALL`].
    ended: [AtomicU64; End::ALL.len()],
    /// How many actions ran by themselves for each reason, by its place in [`Unfit::ALL`].
    unfit: [AtomicU64; Unfit::ALL.len()],
    running: AtomicI64,
}

/// Why a tool has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The tool ended by itself, or met a limit.
    Died,
    /// The tool printed something that was no response.
    Malformed,
    /// The tool still had files of its request open for writing when it had answered.
    StillWriting,
    /// The tool answered a request before it had read it to its end.
    HalfRead,
    /// An action's timeout or cancellation ended the tool that it used.
    Killed,
    /// Another tool needed its place.
    Evicted,
    Idle,
    /// The tool had answered as many requests as one may, or what it had left behind was in its
    /// way.
    WornOut,
    Shutdown,
}

impl End {
    pub const ALL: [Self; 9] = [
        Self::Died,
        Self::Malformed,
        Self::StillWriting,
        Self::HalfRead,
        Self::Killed,
        Self::Evicted,
        Self::Idle,
        Self::WornOut,
        Self::Shutdown,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Died => "died",
            Self::Malformed => "malformed",
            Self::StillWriting => "still_writing",
            Self::HalfRead => "half_read",
            Self::Killed => "killed",
            Self::Evicted => "evicted",
            Self::Idle => "idle",
            Self::WornOut => "worn_out",
            Self::Shutdown => "shutdown",
        }
    }
}

/// The figures of the tools at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolFigures {
    pub started: u64,
    /// Requests that were answered.
    pub requests: u64,
    /// How many of `requests` went to a tool that had answered one before.
    pub reused: u64,
    pub ended: [(&'static str, u64); End::ALL.len()],
    /// How many actions asked for a tool and ran by themselves, by the name of the reason.
    pub unfit: [(&'static str, u64); Unfit::ALL.len()],
    pub running: i64,
}

impl ToolStats {
    pub fn figures(&self) -> ToolFigures {
        ToolFigures {
            started: self.started.load(Relaxed),
            requests: self.requests.load(Relaxed),
            reused: self.reused.load(Relaxed),
            ended: End::ALL.map(|end| (end.name(), self.ended[end as usize].load(Relaxed))),
            unfit: Unfit::ALL.map(|why| (why.name(), self.unfit[why as usize].load(Relaxed))),
            running: self.running.load(Relaxed),
        }
    }

    pub(super) fn started(&self) {
        self.started.fetch_add(1, Relaxed);
        self.running.fetch_add(1, Relaxed);
    }

    pub(super) fn answered(&self, reused: bool) {
        self.requests.fetch_add(1, Relaxed);
        self.reused.fetch_add(u64::from(reused), Relaxed);
    }

    pub(super) fn ended(&self, end: End) {
        self.ended[end as usize].fetch_add(1, Relaxed);
        self.running.fetch_sub(1, Relaxed);
    }

    pub(super) fn unfit(&self, why: Unfit) {
        self.unfit[why as usize].fetch_add(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_place_and_name() {
        let stats = ToolStats::default();
        stats.started();
        End::ALL.into_iter().for_each(|end| stats.ended(end));
        Unfit::ALL.into_iter().for_each(|why| stats.unfit(why));
        let figures = stats.figures();
        assert!(figures.ended.iter().chain(&figures.unfit).all(|(_, count)| *count == 1));
        let names: std::collections::BTreeSet<_> =
            figures.ended.iter().chain(&figures.unfit).map(|(name, _)| name).collect();
        assert_eq!(
            names.len(),
            End::ALL.len() + Unfit::ALL.len() - 2,
            "died and worn_out are ends and reasons"
        );
        assert_eq!(figures.running, 1 - End::ALL.len() as i64);
    }
}
