//! What a step of a runner means to those who are told: the difference between what was and what is.

use serde::{Deserialize, Serialize};

use crate::queue::{Branch, Change, ChangeId, Commit, End, Ended, Held, Lane, RunId, Standing};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum News {
    /// The change waits, with this head: another one after a push.
    Queued {
        branch: Branch,
        head: Commit,
        priority: u8,
    },
    /// A run with the change began.
    Testing {
        branch: Branch,
        head: Commit,
        run: u64,
    },
    /// The change is not tried until somebody or something changes that.
    Held {
        branch: Branch,
        head: Commit,
        why: String,
    },
    Landed {
        branch: Branch,
        head: Commit,
        commit: Commit,
    },
    Rejected {
        branch: Branch,
        head: Option<Commit>,
        why: String,
        /// The last run with it that failed.
        run: Option<u64>,
    },
    /// The change was removed, its branch was deleted, or it was merged by somebody else.
    Left {
        branch: Branch,
        head: Option<Commit>,
        why: String,
    },
    Paused {
        why: String,
    },
    Resumed,
    /// Another runner has the queue.
    Runner {
        name: String,
    },
}

impl News {
    /// `change.landed` and so on.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Queued { .. } => "change.queued",
            Self::Testing { .. } => "change.testing",
            Self::Held { .. } => "change.held",
            Self::Landed { .. } => "change.landed",
            Self::Rejected { .. } => "change.rejected",
            Self::Left { .. } => "change.left",
            Self::Paused { .. } => "queue.paused",
            Self::Resumed => "queue.resumed",
            Self::Runner { .. } => "queue.runner",
        }
    }

    pub fn branch(&self) -> Option<&Branch> {
        match self {
            Self::Queued { branch, .. }
            | Self::Testing { branch, .. }
            | Self::Held { branch, .. }
            | Self::Landed { branch, .. }
            | Self::Rejected { branch, .. }
            | Self::Left { branch, .. } => Some(branch),
            Self::Paused { .. } | Self::Resumed | Self::Runner { .. } => None,
        }
    }
}

/// Why a change is held, in words.
pub fn held(why: &Held) -> String {
    match why {
        Held::RedBase(base) => format!("the target fails by itself at {}", base.short()),
        Held::Refused(words) => format!("the push was refused: {words}"),
        Held::Unfetched(why) => format!("its head cannot be fetched: {why}"),
    }
}

/// What is new in `after`. `failed`: the last run with a change that failed.
pub fn news(
    before: Option<&Lane>,
    after: &Lane,
    ended: &[Ended],
    failed: impl Fn(ChangeId) -> Option<RunId>,
) -> Vec<News> {
    let mut all = Vec::new();
    for change in after.changes.values() {
        let known = before.and_then(|it| it.changes.get(&change.id));
        all.extend(of_change(known, change));
    }
    for run in after.runs.values() {
        if before.is_some_and(|it| it.runs.contains_key(&run.id)) {
            continue;
        }
        for change in run.members.iter().filter_map(|it| after.changes.get(&it.id)) {
            let (branch, head) = (change.branch.clone(), change.head.clone());
            all.push(News::Testing { branch, head, run: run.id.0 });
        }
    }
    all.extend(ended.iter().map(|it| of_end(it, &failed)));
    let was = before.and_then(|it| it.paused.as_ref());
    match &after.paused {
        Some(why) if was != Some(why) => all.push(News::Paused { why: why.clone() }),
        None if was.is_some() => all.push(News::Resumed),
        _ => {}
    }
    all
}

fn of_change(before: Option<&Change>, after: &Change) -> Vec<News> {
    let (branch, head, priority) = (after.branch.clone(), after.head.clone(), after.priority);
    let mut all = Vec::new();
    if before.is_none_or(|it| it.head != after.head) {
        all.push(News::Queued { branch: branch.clone(), head: head.clone(), priority });
    }
    if let Standing::Held(why) = &after.standing
        && before.is_none_or(|it| it.standing != after.standing)
    {
        all.push(News::Held { branch, head, why: held(why) });
    }
    all
}

fn of_end(it: &Ended, failed: &impl Fn(ChangeId) -> Option<RunId>) -> News {
    let (branch, head, why) = (it.branch.clone(), it.head.clone(), it.end.to_string());
    match (&it.end, head) {
        (End::Landed(commit), Some(head)) => News::Landed { branch, head, commit: commit.clone() },
        (End::Failed { .. } | End::Conflict(_), head) => {
            let run = failed(it.id).map(|it| it.0);
            News::Rejected { branch, head, why, run }
        }
        (_, head) => News::Left { branch, head, why },
    }
}
