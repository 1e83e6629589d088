//! What a forge is told of a change.

use std::collections::BTreeMap;

use kiln_net::urls;

use super::heard::Turned;
use crate::queue::hosted::{News, Told};
use crate::queue::serving::LaneName;
use crate::queue::{Branch, Commit, End, RunId};

/// Characters of a description; GitHub takes no more.
const MAX_DESCRIPTION: usize = 140;

/// How a change stands, in words that each forge has its own for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusState {
    Pending,
    Running,
    Success,
    Failure,
    /// The change left the queue, and nobody knows whether it is good.
    Left,
}

/// What is shown beside a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub commit: Commit,
    /// The branch of the commit; `None` where it is in another repository.
    pub branch: Option<Branch>,
    pub state: StatusState,
    pub description: String,
    /// A page of Kiln.
    pub link: String,
}

/// A rejection that is told in a comment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    pub queue: LaneName,
    pub branch: Branch,
    pub why: String,
    pub run: Option<RunId>,
    pub link: String,
}

/// What one step of a queue is told as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notices {
    pub statuses: Vec<Status>,
    pub rejections: Vec<Rejection>,
}

/// What is told of each of these steps, in their order. Of a commit in a queue only the last that is known is told: what it
/// was before, nobody needs to hear any more. Another queue may be told elsewhere, and overtakes nothing.
pub fn notices(told: &[Told], base_url: &str) -> Vec<Notices> {
    let mut last: BTreeMap<(&str, Commit), (usize, Status)> = BTreeMap::new();
    let mut all: Vec<_> = told.iter().map(|_| Notices::default()).collect();
    for (at, step) in told.iter().enumerate() {
        let pages = Pages { base_url, queue: &step.queue };
        for news in &step.news {
            if let Some(status) = pages.status(news) {
                last.insert((step.queue.as_str(), status.commit.clone()), (at, status));
            }
            let rejection = pages.rejection(news);
            if let Some(notices) = all.get_mut(at) {
                notices.rejections.extend(rejection);
            }
        }
    }
    for (at, status) in last.into_values() {
        if let Some(notices) = all.get_mut(at) {
            notices.statuses.push(status);
        }
    }
    all
}

/// What is told of a change that cannot be queued.
pub fn turned_down(turned: &Turned, base_url: &str) -> Status {
    Status {
        commit: turned.commit.clone(),
        branch: None,
        state: if turned.waits { StatusState::Pending } else { StatusState::Left },
        description: clipped(&format!("not queued: {}", turned.why)),
        link: format!("{base_url}/merge-queues"),
    }
}

/// Pages of one queue.
struct Pages<'a> {
    base_url: &'a str,
    queue: &'a LaneName,
}

impl Pages<'_> {
    fn queue(&self) -> String {
        format!("{}/merge-queues/{}", self.base_url, urls::component(self.queue.as_str()))
    }

    fn run(&self, run: Option<u64>) -> String {
        match run {
            Some(run) => format!("{}/runs/{run}", self.queue()),
            None => self.queue(),
        }
    }

    fn status(&self, news: &News) -> Option<Status> {
        let queue = self.queue.as_str();
        let (branch, commit, state, words, run) = match news {
            News::Queued { branch, head, .. } => {
                let words = format!("waits in the merge queue {queue}");
                (branch, head, StatusState::Pending, words, None)
            }
            News::Testing { branch, head, run } => {
                let words = format!("is tested by the merge queue {queue}");
                (branch, head, StatusState::Running, words, Some(*run))
            }
            News::Held { branch, head, why } => {
                (branch, head, StatusState::Pending, format!("held: {why}"), None)
            }
            News::Landed { branch, head, commit } => {
                let words = format!("landed in {}", commit.short());
                (branch, head, StatusState::Success, words, None)
            }
            News::Rejected { branch, head: Some(head), why, run } => {
                (branch, head, StatusState::Failure, why.clone(), *run)
            }
            News::Left { branch, head: Some(head), why } => {
                let merged = *why == End::Merged.to_string();
                let state = if merged { StatusState::Success } else { StatusState::Left };
                (branch, head, state, format!("left the merge queue: {why}"), None)
            }
            News::Rejected { head: None, .. }
            | News::Left { head: None, .. }
            | News::Paused { .. }
            | News::Resumed
            | News::Runner { .. } => return None,
        };
        Some(Status {
            commit: commit.clone(),
            branch: Some(branch.clone()),
            state,
            description: clipped(&words),
            link: self.run(run),
        })
    }

    fn rejection(&self, news: &News) -> Option<Rejection> {
        let News::Rejected { branch, why, run, .. } = news else { return None };
        Some(Rejection {
            queue: self.queue.clone(),
            branch: branch.clone(),
            why: why.clone(),
            run: run.map(RunId),
            link: self.run(*run),
        })
    }
}

/// The first line of a description, cut to what a status may have.
fn clipped(words: &str) -> String {
    let line = kiln_net::causes::one_line(words);
    if line.chars().count() <= MAX_DESCRIPTION {
        return line;
    }
    line.chars().take(MAX_DESCRIPTION - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Time;

    fn commit(digit: char) -> Commit {
        Commit::new(&digit.to_string().repeat(40)).unwrap()
    }

    fn branch() -> Branch {
        Branch::new("feature/login").unwrap()
    }

    fn told(number: u64, news: Vec<News>) -> Told {
        Told { queue: LaneName::new("app").unwrap(), number, at: Time(number), news }
    }

    fn queued(digit: char) -> News {
        News::Queued { branch: branch(), head: commit(digit), priority: 0 }
    }

    fn testing(digit: char, run: u64) -> News {
        News::Testing { branch: branch(), head: commit(digit), run }
    }

    #[test]
    fn each_news_of_a_commit_is_a_status_with_its_page() {
        let why = "rejected: //a:t failed".to_owned();
        let rejected =
            News::Rejected { branch: branch(), head: Some(commit('a')), why, run: Some(4) };
        let landed = News::Landed { branch: branch(), head: commit('a'), commit: commit('b') };
        let left = |why: &str| News::Left {
            branch: branch(),
            head: Some(commit('a')),
            why: why.to_owned(),
        };
        let held =
            News::Held { branch: branch(), head: commit('a'), why: "the target fails".to_owned() };
        for (news, state, description, page) in [
            (queued('a'), StatusState::Pending, "waits in the merge queue app", ""),
            (testing('a', 3), StatusState::Running, "is tested by the merge queue app", "/runs/3"),
            (held, StatusState::Pending, "held: the target fails", ""),
            (landed, StatusState::Success, "landed in bbbbbbbbbbbb", ""),
            (rejected, StatusState::Failure, "rejected: //a:t failed", "/runs/4"),
            (left("removed"), StatusState::Left, "left the merge queue: removed", ""),
            (
                left("was merged already"),
                StatusState::Success,
                "left the merge queue: was merged already",
                "",
            ),
        ] {
            let all = notices(&[told(1, vec![news])], "http://kiln");
            let [Notices { statuses, .. }] = &all[..] else { panic!("{all:?}") };
            let [status] = &statuses[..] else { panic!("{statuses:?}") };
            assert_eq!((status.state, status.description.as_str()), (state, description));
            assert_eq!(status.link, format!("http://kiln/merge-queues/app{page}"));
        }
        let silent = vec![News::Paused { why: "x".to_owned() }, News::Resumed];
        assert_eq!(notices(&[told(1, silent)], "http://kiln"), [Notices::default()]);
    }

    #[test]
    fn only_the_last_of_a_commit_is_told_and_every_rejection() {
        let why = "rejected: it conflicts with x\n".repeat(20);
        let rejected = News::Rejected { branch: branch(), head: Some(commit('a')), why, run: None };
        let steps = [
            told(1, vec![queued('a'), testing('a', 1)]),
            told(2, vec![queued('b')]),
            told(3, vec![rejected, queued('a')]),
        ];
        let all = notices(&steps, "http://kiln");
        let states: Vec<Vec<_>> =
            all.iter().map(|it| it.statuses.iter().map(|it| it.state).collect()).collect();
        assert_eq!(states, [vec![], vec![StatusState::Pending], vec![StatusState::Pending]]);
        assert_eq!(all[2].rejections.len(), 1);
        let told_alone = notices(&[told(1, steps[2].news[..1].to_vec())], "http://kiln");
        let description = &told_alone[0].statuses[0].description;
        assert_eq!(description.chars().count(), MAX_DESCRIPTION);
        assert!(!description.contains('\n'));
    }

    #[test]
    fn what_another_queue_says_of_a_commit_overtakes_nothing() {
        let queue = LaneName::new("other").unwrap();
        let other = Told { queue, ..told(2, vec![testing('a', 1)]) };
        let all = notices(&[told(1, vec![queued('a')]), other], "http://kiln");
        let states: Vec<Vec<_>> =
            all.iter().map(|it| it.statuses.iter().map(|it| it.state).collect()).collect();
        assert_eq!(states, [[StatusState::Pending], [StatusState::Running]]);
    }

    proptest! {
        /// Whatever news is told at once, each commit gets at most one status, and that is the last one.
        #[test]
        fn the_last_word_of_each_commit_wins(
            news in prop::collection::vec((0_u8..3, 0_u64..9), 0..30),
            cut in 1_usize..5,
        ) {
            let digits = ['a', 'b', 'c'];
            let all: Vec<News> =
                news.iter().map(|(at, run)| testing(digits[usize::from(*at)], *run)).collect();
            let steps: Vec<_> = all.chunks(cut).map(|it| told(1, it.to_vec())).collect();
            let statuses: Vec<_> =
                notices(&steps, "").into_iter().flat_map(|it| it.statuses).collect();
            for digit in digits {
                let of_it: Vec<_> = statuses.iter().filter(|it| it.commit == commit(digit)).collect();
                let last = news.iter().rev().find(|(at, _)| digits[usize::from(*at)] == digit);
                prop_assert_eq!(of_it.len(), usize::from(last.is_some()));
                if let (Some((_, run)), [status]) = (last, &of_it[..]) {
                    let suffix = format!("/runs/{run}");
                    prop_assert!(status.link.ends_with(&suffix));
                }
            }
        }
    }
}
