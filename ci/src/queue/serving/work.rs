//! What a lane wants done, one thing at a time. All of it may be cut off, and done again.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use kiln_net::Backoff;
use kiln_net::causes::chain;
use tokio::sync::mpsc::UnboundedSender;

use super::passed::Passed;
use crate::queue::git::{Check, Checked, GitError, Method, Piece, Pushed, Repository, Slots};
use crate::queue::{Branch, Commit, Event, LeftOut, Outcome, Refusal, RunId};

/// Pauses between tries of a push of which nothing is known.
const AGAIN: Backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
/// Logs of the last runs that are kept.
const LOGS: usize = 500;

/// Bytes of the end of a log that are kept with its run.
pub const MAX_LOG: usize = 16 << 10;

/// What work is done with.
#[derive(Clone)]
pub struct Tools {
    pub repository: Repository,
    pub slots: Slots,
    pub method: Method,
    pub check: Check,
    /// Says what a change affects; `None`: nobody does.
    pub impact: Option<Check>,
    pub target: Branch,
    pub logs: PathBuf,
    pub passed: Passed,
}

/// A run as it is to be checked.
pub struct Wanted {
    pub run: RunId,
    pub base: Commit,
    /// Each change with its number.
    pub pieces: Vec<(crate::queue::ChangeId, Piece)>,
    /// What failed where it is looked for the culprit: the check may end there.
    pub first: BTreeSet<String>,
}

impl Tools {
    /// Puts a run together, says so, checks it and says what came of it. It never fails: what cannot be done is said
    /// as well.
    pub async fn check(self, wanted: Wanted, tell: UnboundedSender<Event>) {
        let run = wanted.run;
        let outcome = match self.checked(wanted, &tell).await {
            Ok(checked) => {
                self.log(run, &checked.log);
                checked.outcome
            }
            Err(error) => {
                self.log(run, &chain(&error));
                Outcome::Unable(chain(&error))
            }
        };
        // Nobody listens where the lane has ended.
        tell.send(Event::Finished { run, outcome }).ok();
    }

    async fn checked(
        &self,
        wanted: Wanted,
        tell: &UnboundedSender<Event>,
    ) -> Result<Checked, GitError> {
        let Wanted { run, base, pieces, first } = wanted;
        let parts: Vec<_> = pieces.iter().map(|(_, piece)| piece.clone()).collect();
        let built = self.repository.build(&base, &parts, self.method).await?;
        let left_out = built.left_out.iter().filter_map(|(at, with_base)| {
            Some(LeftOut { id: pieces.get(*at)?.0, with_base: *with_base })
        });
        let event =
            Event::Built { run, commit: built.commit.clone(), left_out: left_out.collect() };
        tell.send(event).ok();
        if !pieces.is_empty() && built.left_out.len() == pieces.len() {
            // Nothing is left to check; the lane has dropped the run.
            return Ok(Checked {
                outcome: Outcome::Unable("nothing merges".into()),
                log: String::new(),
            });
        }
        let slot = self.slots.take()?;
        self.repository.check_out(&slot, &built.commit).await?;
        let is_out = |at: usize| built.left_out.iter().any(|(out, _)| *out == at);
        let kept = parts.iter().enumerate().filter(|(at, _)| !is_out(*at));
        let names: Vec<_> = kept.map(|(_, it)| it.branch.as_str()).collect();
        let names = names.join(" ");
        let mut checked = self.check.run(&slot, &base, &built.commit, &names, &first).await?;
        if checked.outcome == Outcome::Passed {
            self.note(&built.commit).await?;
        }
        if let Outcome::Failed { targets, affecting, .. } = &mut checked.outcome {
            let step = |(at, commit): &(usize, Commit)| Some((pieces.get(*at)?.0, commit.clone()));
            let steps: Vec<_> = built.steps.iter().filter_map(step).collect();
            *affecting = match self.affecting(&slot, &base, &steps, targets).await {
                Ok(affecting) => affecting,
                Err(error) => {
                    tracing::warn!(
                        error = chain(&error),
                        "it is not known who affects what failed"
                    );
                    None
                }
            };
        }
        Ok(checked)
    }

    /// Notes that a commit passed, so that it may be pushed from now on.
    pub(super) async fn note(&self, commit: &Commit) -> Result<(), GitError> {
        let tree = self.repository.tree(commit).await?;
        let tree = tree.ok_or_else(|| GitError::Odd(commit.to_string()))?;
        self.passed.note(commit, &tree)
    }

    /// Whether the commit passed here, or was proven here to be equal to what did.
    pub(super) async fn has_passed(&self, commit: &Commit) -> Result<bool, GitError> {
        let tree = self.repository.tree(commit).await?;
        Ok(tree.is_some_and(|tree| self.passed.knows(commit, &tree)))
    }

    /// Pushes what passed here, or is proven equal to it, and nothing else: all other is tested again, as if the target had moved.
    async fn push(&self, base: &Commit, commit: &Commit) -> Result<Pushed, GitError> {
        if self.has_passed(commit).await? {
            return self.repository.push(&self.target, base, commit).await;
        }
        // Another runner may have pushed it, and died before it said so.
        if let Some(known) = self.repository.stands(&self.target, base, commit).await? {
            return Ok(known);
        }
        tracing::warn!(commit = commit.short(), "it did not pass here: it is tested again");
        Ok(Pushed::Moved)
    }

    /// Moves the target; tries until it is known what became of it.
    pub async fn land(
        self,
        run: RunId,
        base: Commit,
        commit: Commit,
        tell: UnboundedSender<Event>,
    ) {
        let mut failures = 0;
        let pushed = loop {
            match self.push(&base, &commit).await {
                Ok(pushed) => break pushed,
                Err(error) => {
                    failures += 1;
                    tracing::warn!(
                        error = chain(&error),
                        "what was tested cannot be pushed for now"
                    );
                    tokio::time::sleep(AGAIN.pause(failures)).await;
                }
            }
        };
        let event = match pushed {
            Pushed::Done => Event::Landed(run),
            Pushed::Moved => Event::NotLanded { run, why: Refusal::Moved },
            Pushed::Refused(words) => Event::NotLanded { run, why: Refusal::Refused(words) },
        };
        tell.send(event).ok();
    }

    /// The end of what a check printed.
    pub fn log_end(&self, run: RunId) -> String {
        let text = std::fs::read(self.logs.join(format!("{}.log", run.0))).unwrap_or_default();
        let end = text.get(text.len().saturating_sub(MAX_LOG)..).unwrap_or_default();
        String::from_utf8_lossy(end).into_owned()
    }

    /// A log that cannot be kept is no reason to do nothing.
    fn log(&self, run: RunId, text: &str) {
        let path = |run: u64| self.logs.join(format!("{run}.log"));
        std::fs::write(path(run.0), text).ok();
        // Changes and batches are numbered as well: which runs there were is known by their logs only.
        let Ok(found) = std::fs::read_dir(&self.logs) else { return };
        let number = |it: std::io::Result<std::fs::DirEntry>| {
            it.ok()?.file_name().to_str()?.strip_suffix(".log")?.parse::<u64>().ok()
        };
        let mut runs: Vec<_> = found.filter_map(number).collect();
        runs.sort_unstable_by_key(|it| std::cmp::Reverse(*it));
        for old in runs.into_iter().skip(LOGS) {
            std::fs::remove_file(path(old)).ok();
        }
    }
}
