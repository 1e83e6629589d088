//! Makes what the API shows of a merge queue out of its state.

use std::time::Duration;

use kiln_ci::model::Time;
use kiln_ci::queue::hosted::{Asked, Head, Line, Shown, expected, place, runs_of, why};
use kiln_ci::queue::serving::{LaneName, Ran, Reply, Request, Verdict};
use kiln_ci::queue::{Change, ChangeId, End, Ended, Group, Lane, Mode, Phase, Run, Standing};

use super::{
    MergeBatch, MergeChange, MergeChangeShown, MergeEnded, MergeQueueShown, MergeQueueSummary,
    MergeRan, MergeRequest, MergeRun, MergeRunner, MergeTotals,
};
use crate::json::moment::at;

fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}

fn mode(mode: Mode) -> String {
    match mode {
        Mode::Throughput => "throughput".to_owned(),
        Mode::Latency => "latency".to_owned(),
    }
}

fn phase(phase: Phase) -> String {
    match phase {
        Phase::Checking => "checking".to_owned(),
        Phase::Passed | Phase::Proving | Phase::Comparing => "passed".to_owned(),
        Phase::Landing => "landing".to_owned(),
    }
}

impl MergeQueueSummary {
    pub fn of(name: &LaneName, head: &Head, lane: Option<&Lane>, now: Time) -> Self {
        let held = |it: &&Change| matches!(it.standing, Standing::Held(_));
        let held = lane.map_or(0, |it| it.changes.values().filter(held).count());
        let checking = |it: &&Run| it.phase == Phase::Checking;
        let about = &head.about;
        Self {
            name: name.as_str().to_owned(),
            target: about.target.clone(),
            base: lane.and_then(|it| it.base.as_ref()).map(|it| it.commit.to_string()),
            mode: lane.map(|it| mode(it.options.mode)),
            paused: lane.and_then(|it| it.paused.clone()),
            waiting: lane.map_or(0, |it| it.changes.len()) - held,
            held,
            running: lane.map_or(0, |it| it.runs.values().filter(checking).count()),
            runner: MergeRunner {
                connected: head.connected(now),
                name: about.name.clone(),
                repository: about.repository.clone(),
                check: about.check.clone(),
                since: at(head.since.0),
                seen: at(head.seen.0),
            },
            totals: MergeTotals {
                landed: head.totals.landed,
                rejected: head.totals.rejected,
                left: head.totals.left,
                runs: head.totals.runs,
                waited_s: head.totals.waited_ms as f64 / 1_000.0,
            },
        }
    }
}

fn change(lane: &Lane, head: &Head, line: &Line, it: &Change, now: Time) -> MergeChange {
    let batch = lane.batches().iter().find(|batch| batch.members.contains(&it.id));
    MergeChange {
        branch: it.branch.to_string(),
        head: it.head.to_string(),
        priority: it.priority,
        added: at(it.added.0),
        standing: place(lane, it).name().to_owned(),
        why: why(lane, line, it),
        before: line.before(it.id).map(|it| it.all),
        runs: runs_of(lane, it.id).map(|run| run.id.0).collect(),
        batch: batch.map(|it| it.id),
        bad: 1.0 - lane.innocent(it.id),
        expected_s: expected(lane, head, line, it.id, now).map(|it| seconds(it.landed)),
    }
}

/// Open changes in the order in which they are tested, and after them those that are held.
fn changes(lane: &Lane, head: &Head, now: Time) -> Vec<MergeChange> {
    let (line, order) = (Line::of(lane, now), lane.order(now));
    let held = lane.changes.values().filter(|it| matches!(it.standing, Standing::Held(_)));
    let open = order.iter().filter_map(|id| lane.changes.get(id));
    open.chain(held).map(|it| change(lane, head, &line, it, now)).collect()
}

fn branches<'a>(lane: &Lane, ids: impl Iterator<Item = &'a ChangeId>) -> Vec<String> {
    ids.filter_map(|id| lane.changes.get(id)).map(|it| it.branch.to_string()).collect()
}

fn run(lane: &Lane, head: &Head, it: &Run, now: Time) -> MergeRun {
    let left = head.usual().map(|usual| usual.saturating_sub(now.since(it.began)));
    MergeRun {
        run: it.id.0,
        phase: phase(it.phase),
        base: it.base.to_string(),
        commit: it.commit.as_ref().map(ToString::to_string),
        branches: branches(lane, it.members.iter().map(|it| &it.id)),
        began: at(it.began.0),
        expected_s: left.filter(|_| it.phase == Phase::Checking).map(seconds),
    }
}

impl From<&Ran> for MergeRan {
    fn from(it: &Ran) -> Self {
        let (verdict, targets, why) = match &it.verdict {
            Verdict::Passed => ("passed", Vec::new(), None),
            Verdict::Failed { targets } => ("failed", targets.clone(), None),
            Verdict::Unable(why) => ("unable", Vec::new(), Some(why.clone())),
        };
        Self {
            run: it.run.0,
            verdict: verdict.to_owned(),
            targets,
            why,
            base: it.base.to_string(),
            commit: it.commit.as_ref().map(ToString::to_string),
            branches: it.members.iter().map(|it| it.branch.to_string()).collect(),
            began: at(it.began.0),
            ended: at(it.ended.0),
            took_s: seconds(it.ended.since(it.began)),
            log: (!it.log.is_empty()).then(|| it.log.clone()),
        }
    }
}

fn ended(it: &Ended, ran: &[Ran]) -> MergeEnded {
    let with = |run: &&Ran| run.members.iter().any(|member| member.id == it.id);
    let failed = |run: &&Ran| matches!(run.verdict, Verdict::Failed { .. });
    let run = ran.iter().find(|run| with(run) && failed(run)).map(|it| it.run.0);
    let commit = match &it.end {
        End::Landed(commit) => Some(commit.to_string()),
        _ => None,
    };
    MergeEnded {
        branch: it.branch.to_string(),
        head: it.head.as_ref().map(ToString::to_string),
        added: at(it.added.0),
        ended: at(it.at.0),
        landed: commit.is_some(),
        rejected: it.end.rejects(),
        commit,
        why: it.end.to_string(),
        run: run.filter(|_| it.end.rejects()),
    }
}

impl MergeRequest {
    pub fn of(queue: &LaneName, it: &Asked) -> Self {
        let (what, branch) = match &it.ask.request {
            Request::Add { branch, .. } => ("add", Some(branch.to_string())),
            Request::Remove { branch } => ("remove", Some(branch.to_string())),
            Request::Pause { .. } => ("pause", None),
            Request::Resume => ("resume", None),
            Request::Mode(_) => ("mode", None),
        };
        let (state, why) = match &it.reply {
            None => ("waiting", None),
            Some(Reply::Done) => ("done", None),
            Some(Reply::Refused(why)) => ("refused", Some(why.clone())),
        };
        Self {
            id: it.id.0,
            queue: queue.as_str().to_owned(),
            what: what.to_owned(),
            branch,
            by: it.ask.by.clone(),
            at: at(it.at.0),
            state: state.to_owned(),
            why,
        }
    }
}

impl From<&Shown> for MergeQueueShown {
    fn from(it: &Shown) -> Self {
        let (head, now) = (&it.head, it.now);
        let lane = it.lane.as_ref();
        let base = lane.and_then(|it| it.base.as_ref());
        let base_state = match base {
            Some(base) if base.red => "fails",
            Some(base) if base.green => "passes",
            _ => "unknown",
        };
        let batches = lane.map(|lane| {
            let batch = |it: &Group| MergeBatch {
                id: it.id,
                branches: branches(lane, it.members.iter()),
                lands: it.lands,
            };
            lane.batches().iter().map(batch).collect::<Vec<_>>()
        });
        let running = lane
            .map(|lane| lane.runs.values().map(|it| run(lane, head, it, now)).collect::<Vec<_>>());
        Self {
            queue: MergeQueueSummary::of(&it.name, head, lane, now),
            base_state: base_state.to_owned(),
            changes: lane.map(|lane| changes(lane, head, now)).unwrap_or_default(),
            batches: batches.unwrap_or_default(),
            runs: running.unwrap_or_default(),
            ran: it.ran.iter().map(MergeRan::from).collect(),
            ended: it.ended.iter().map(|end| ended(end, &it.ran)).collect(),
            requests: it.waiting.iter().map(|asked| MergeRequest::of(&it.name, asked)).collect(),
            check_s: head.usual().map(seconds),
            bad: lane.map_or(0.0, |it| it.rates.bad()),
            flaky: lane.map_or(0.0, |it| it.rates.flaky()),
        }
    }
}

impl MergeChangeShown {
    pub fn of(it: &Shown, branch: &str) -> Self {
        let lane = it.lane.as_ref();
        let queued = lane.and_then(|lane| {
            let found = lane.changes.values().find(|it| it.branch.as_str() == branch)?;
            Some(change(lane, &it.head, &Line::of(lane, it.now), found, it.now))
        });
        let asks = |asked: &&Asked| matches!(&asked.ask.request, Request::Add { branch: added, .. } if added.as_str() == branch);
        let asked = it.waiting.iter().find(asks).map(|asked| MergeRequest::of(&it.name, asked));
        let left = it.ended.iter().find(|it| it.branch.as_str() == branch);
        Self {
            queue: it.name.as_str().to_owned(),
            branch: branch.to_owned(),
            change: queued,
            asked,
            ended: left.map(|end| ended(end, &it.ran)),
            paused: lane.and_then(|it| it.paused.clone()),
            connected: it.head.connected(it.now),
        }
    }
}
