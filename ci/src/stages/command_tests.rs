//! Commands over a store and workers that are made up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use kiln_protos::reapi;
use tokio::sync::Notify;
use tonic::Code;

use super::begun::Ledger;
use super::command::{
    ActionEnd, Actions, ActionsError, Commands, Done, TakeReports, Wanted, end_of,
};
use super::log::StageLog;
use super::testing::{Heard, TestClock, command, task};
use crate::attempts::BlobName;
use crate::pipelines::{Outcome, Task, Work};
use crate::storage::memory::Memory;

/// Workers that run nothing: an action ends as it is told to, or when it is cancelled.
#[derive(Default)]
struct Fake {
    ends: Mutex<Option<ActionEnd>>,
    roots: Mutex<Vec<String>>,
    executed: Mutex<Vec<String>>,
    cancelled: Notify,
    /// Cancels that come before anything is queued are lost.
    deaf: AtomicUsize,
}

#[async_trait]
impl Actions for Fake {
    fn longest(&self) -> Duration {
        Duration::from_secs(3_600)
    }

    async fn put(&self, _instance: &str, message: Bytes) -> Result<reapi::Digest, ActionsError> {
        let hash = blake3::hash(&message).to_hex().to_string();
        Ok(reapi::Digest { hash, size_bytes: message.len() as i64 })
    }

    async fn root(
        &self,
        _instance: &str,
        sources: Option<&str>,
        over: &[&str],
    ) -> Result<reapi::Digest, ActionsError> {
        let hash = format!("{}+{}", sources.unwrap_or("none"), over.join("+"));
        self.roots.lock().unwrap().push(hash.clone());
        match hash.contains("gone") {
            true => Err(ActionsError::Unfit("the sources are not in the store".to_owned())),
            false => Ok(reapi::Digest { hash, size_bytes: 1 }),
        }
    }

    async fn execute(&self, wanted: &Wanted<'_>, log: &StageLog<'_>) -> Result<Done, ActionsError> {
        self.executed.lock().unwrap().push(wanted.action.to_owned());
        log.append(false, b"printed\n");
        let told = self.ends.lock().unwrap().clone();
        let end = match told {
            Some(end) => end,
            None => {
                self.cancelled.notified().await;
                ActionEnd::Cancelled
            }
        };
        let report = BlobName { hash: "ab".to_owned(), size: 2 };
        Ok(Done {
            end,
            files: vec![("out/report.xml".to_owned(), report)],
            tree: Some("t/1".to_owned()),
            link: "/actions/x".to_owned(),
        })
    }

    async fn cancel(&self, _instance: &str, _action: &str) -> Result<(), ActionsError> {
        let left = self.deaf.load(Ordering::Relaxed);
        match left {
            0 => self.cancelled.notify_one(),
            _ => self.deaf.store(left - 1, Ordering::Relaxed),
        }
        Ok(())
    }
}

#[async_trait]
impl TakeReports for Fake {
    async fn take(&self, _task: &Task, _path: &str, report: &BlobName) -> String {
        format!("{} bytes", report.size)
    }
}

fn commands(fake: &Arc<Fake>, memory: &Memory) -> Commands {
    Commands {
        actions: fake.clone(),
        ledger: Ledger::new(Arc::new(memory.clone()), Arc::new(TestClock::default())),
        reports: Some(fake.clone()),
        allow_network: false,
    }
}

fn ending(end: ActionEnd) -> Arc<Fake> {
    Arc::new(Fake { ends: Mutex::new(Some(end)), ..Fake::default() })
}

#[tokio::test]
async fn a_command_tells_what_it_left_and_stands_on_what_others_left() {
    let (fake, heard) = (ending(ActionEnd::Exited(0)), Heard::default());
    let mut it = command("make");
    it.from = vec!["build".into(), "nothing".into()];
    it.reports = vec!["out/report.xml".into(), "other.xml".into()];
    let mut task = task(1, Work::Test(it.clone()));
    task.source.root = Some("s/9".into());
    task.told.insert("build".into(), BTreeMap::from([("tree".into(), "b/1".into())]));
    let ended = commands(&fake, &Memory::default()).run(&task, &it, &heard).await.unwrap();
    let Outcome::Passed { told } = ended.outcome else { panic!("{ended:?}") };
    assert_eq!(told["tree"], "t/1");
    assert_eq!((told["invocation"].as_str(), told["target"].as_str()), ("r1-3-1", "test"));
    assert_eq!(*fake.roots.lock().unwrap(), ["s/9+b/1"]);
    assert_eq!(
        heard.said(),
        "printed\n[kiln: out/report.xml: 2 bytes]\n[kiln: other.xml: the command left no such report]\n"
    );
    assert_eq!(ended.links, [("action".to_owned(), "/actions/x".to_owned())]);
}

#[tokio::test]
async fn an_attempt_is_one_action_however_often_it_is_gone_on_with() {
    let (fake, memory) = (ending(ActionEnd::Exited(1)), Memory::default());
    let it = command("make");
    for _ in 0..2 {
        let task = task(1, Work::Command(it.clone()));
        let ended = commands(&fake, &memory).run(&task, &it, &Heard::default()).await.unwrap();
        assert_eq!(ended.outcome, Outcome::Failed { reason: "it ended with 1".into() });
    }
    commands(&fake, &memory)
        .run(&task(2, Work::Command(it.clone())), &it, &Heard::default())
        .await
        .unwrap();
    let executed = fake.executed.lock().unwrap();
    assert_eq!(executed[0], executed[1]);
    assert_ne!(executed[1], executed[2]);
    assert_eq!(fake.roots.lock().unwrap().len(), 2, "it is put together once for each attempt");
}

#[tokio::test(start_paused = true)]
async fn what_is_cancelled_ends_also_where_the_first_word_of_it_is_lost() {
    let (fake, memory) = (Arc::new(Fake::default()), Memory::default());
    fake.deaf.store(2, Ordering::Relaxed);
    let it = command("sleep inf");
    let task = task(1, Work::Command(it.clone()));
    let (here, elsewhere) = (commands(&fake, &memory), commands(&fake, &memory));
    let heard = Heard::default();
    let (ended, cancelled) = tokio::join!(here.run(&task, &it, &heard), async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        elsewhere.cancel(&task).await
    });
    cancelled.unwrap();
    assert_eq!(ended.unwrap().outcome, Outcome::Cancelled);
    assert_eq!(heard.stood(), ["is being ended"]);
}

#[tokio::test]
async fn what_was_cancelled_before_it_began_does_not_begin() {
    let (fake, memory) = (ending(ActionEnd::Exited(0)), Memory::default());
    let it = command("make");
    let task = task(1, Work::Command(it.clone()));
    let commands = commands(&fake, &memory);
    commands.cancel(&task).await.unwrap();
    let ended = commands.run(&task, &it, &Heard::default()).await.unwrap();
    assert_eq!(ended.outcome, Outcome::Cancelled);
    assert!(fake.executed.lock().unwrap().is_empty());
}

#[tokio::test]
async fn what_says_nothing_of_the_command_is_told_from_what_does() {
    let it = command("make");
    let mut gone = task(1, Work::Command(it.clone()));
    gone.source.root = Some("gone".into());
    let fake = ending(ActionEnd::Exited(0));
    let ended = commands(&fake, &Memory::default()).run(&gone, &it, &Heard::default()).await;
    assert!(
        matches!(ended.unwrap().outcome, Outcome::Failed { reason } if reason.contains("store"))
    );
    for (end, infrastructure) in [
        (end_of(Code::Ok as i32, 75, false, ""), true),
        (end_of(Code::Ok as i32, 2, false, ""), false),
        (end_of(Code::Unavailable as i32, 0, false, "away"), true),
        (end_of(Code::Internal as i32, 0, false, "lost"), true),
        (end_of(Code::FailedPrecondition as i32, 0, false, "no inputs"), false),
        (end_of(Code::DeadlineExceeded as i32, 0, false, ""), false),
    ] {
        let (fake, task) = (ending(end.clone()), task(1, Work::Command(it.clone())));
        let ended = commands(&fake, &Memory::default()).run(&task, &it, &Heard::default()).await;
        let outcome = ended.unwrap().outcome;
        let is = matches!(outcome, Outcome::Infrastructure { .. });
        assert_eq!(is, infrastructure, "{end:?}: {outcome:?}");
        assert!(is || matches!(outcome, Outcome::Failed { .. }));
    }
    assert_eq!(end_of(Code::Unavailable as i32, 0, true, ""), ActionEnd::Cancelled);
}
