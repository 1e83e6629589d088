//! What holds for a lease in all records.

use std::sync::Arc;
use std::time::Duration;

use kiln_net::lease::{Slot as _, Standing};

use crate::records::lease::{LeaseRecord, RecordTurn};
use crate::records::{Expect, SharedRecords, Write};
use crate::stores::{DiskRecords, MemoryRecords};

/// Longer than any of these tests takes.
const TERM: Duration = Duration::from_secs(600);

fn turn(records: &SharedRecords, key: &str, holder: &str) -> RecordTurn {
    LeaseRecord::new(records.clone(), key).turn(holder, TERM)
}

async fn a_record_is_swapped_by_whoever_knows_its_version(records: &SharedRecords) {
    let slot = LeaseRecord::new(records.clone(), "lease/slot");
    assert_eq!(slot.read().await.unwrap(), None);
    assert_eq!(slot.swap(Some(1), b"0".to_vec()).await.unwrap(), None);
    let first = slot.swap(None, b"1".to_vec()).await.unwrap().expect("there is none");
    assert_eq!(slot.swap(None, b"2".to_vec()).await.unwrap(), None);
    let second = slot.swap(Some(first), b"2".to_vec()).await.unwrap().expect("it is known");
    assert!(second > first);
    assert_eq!(slot.swap(Some(first), b"3".to_vec()).await.unwrap(), None);
    assert_eq!(slot.read().await.unwrap(), Some((second, b"2".to_vec())));
}

async fn it_goes_from_one_to_the_next_when_it_is_given_up(records: &SharedRecords) {
    let one = turn(records, "lease/turn", "one");
    assert_eq!(one.take().await.unwrap(), Standing::Held(1));
    for _ in 0..3 {
        // Each of these looks at it for the first time.
        let two = turn(records, "lease/turn", "two");
        assert!(matches!(two.take().await.unwrap(), Standing::Elsewhere(pause) if pause <= TERM));
    }
    one.give_up().await.unwrap();
    let two = turn(records, "lease/turn", "two");
    assert_eq!(two.take().await.unwrap(), Standing::Held(2));
    assert!(!one.is_mine().await.unwrap());
    one.give_up().await.unwrap();
    assert!(two.is_mine().await.unwrap(), "the other one had nothing to give up");
}

async fn what_cannot_be_read_is_over(records: &SharedRecords) {
    for (key, value) in [("lease/empty", ""), ("lease/old", "{\"holder\":\"a\",\"until\":9}")] {
        let value = Some(value.to_owned().into());
        let write = Write { key: key.to_owned(), expect: Expect::Absent, value };
        let version = records.write(vec![write]).await.unwrap()[0];
        let standing = turn(records, key, "one").take().await.unwrap();
        assert_eq!(standing, Standing::Held(version + 1), "{key}");
    }
}

async fn one_of_many_takes_it(records: &SharedRecords) {
    let take = |number: usize| {
        let turn = turn(records, "lease/race", &number.to_string());
        tokio::spawn(async move { turn.is_mine().await.unwrap() })
    };
    let mut holders = 0;
    for task in (0..10).map(take).collect::<Vec<_>>() {
        holders += usize::from(task.await.unwrap());
    }
    assert_eq!(holders, 1);
}

pub async fn suite(records: SharedRecords) {
    a_record_is_swapped_by_whoever_knows_its_version(&records).await;
    it_goes_from_one_to_the_next_when_it_is_given_up(&records).await;
    what_cannot_be_read_is_over(&records).await;
    one_of_many_takes_it(&records).await;
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    suite(Arc::new(MemoryRecords::default())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disk_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    suite(Arc::new(DiskRecords::open(&dir.path().join("records.redb")).unwrap())).await;
}
