use std::sync::Arc;

use super::*;
use crate::records::Records;
use crate::stores::MemoryRecords;

fn event(number: u64) -> AuditEvent {
    AuditEvent {
        time: 1_700_000_000 + number,
        actor: "ana".to_owned(),
        action: "release.promote".to_owned(),
        subject: format!("release/{number}"),
        details: "{}".to_owned(),
    }
}

async fn log_of(entries: u64) -> (Arc<MemoryRecords>, AuditLog) {
    let records = Arc::new(MemoryRecords::default());
    let log = AuditLog::new(records.clone());
    for number in 1..=entries {
        assert_eq!(log.append(event(number)).await.unwrap().sequence, number);
    }
    (records, log)
}

async fn set(records: &MemoryRecords, key: String, value: Option<Bytes>) {
    records.write(vec![Write { key, expect: Expect::Anything, value }]).await.unwrap();
}

#[tokio::test]
async fn entries_come_back_in_order_and_the_chain_holds() {
    let (_, log) = log_of(5).await;
    let entries = log.list(1, 3).await.unwrap();
    assert_eq!(entries.iter().map(|e| e.sequence).collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!(entries[1].previous, entries[0].hash);
    assert_eq!(entries[0].event, event(2));
    let newest = log.list_newest(Some(5), 2).await.unwrap();
    assert_eq!(newest.iter().map(|e| e.sequence).collect::<Vec<_>>(), [4, 3]);
    for (from, to) in [(1, u64::MAX), (3, 4), (5, 5), (9, 12)] {
        assert_eq!(log.verify(from, to).await.unwrap(), None, "{from}..{to}");
    }
}

#[tokio::test]
async fn what_is_noted_and_what_is_written_are_one_step() {
    let (records, log) = log_of(1).await;
    let write = |expect| Write {
        key: "thing".to_owned(),
        expect,
        value: Some(Bytes::from_static(b"done")),
    };
    let events = vec![event(2), event(3)];
    let entries = log.append_with(events.clone(), vec![write(Expect::Absent)]).await.unwrap();
    assert_eq!(entries.iter().map(|it| it.sequence).collect::<Vec<_>>(), [2, 3]);
    let refused = log.append_with(events, vec![write(Expect::Absent)]).await.unwrap_err();
    assert!(matches!(refused, RecordsError::Conflict { key } if key == "thing"));
    assert_eq!(log.head().await.unwrap().unwrap().0, 3);
    assert_eq!(log.verify(1, u64::MAX).await.unwrap(), None);
    log.append_with(Vec::new(), vec![write(Expect::Anything)]).await.unwrap();
    assert!(records.get("thing").await.unwrap().is_some());
}

#[tokio::test]
async fn concurrent_appends_make_one_chain() {
    let (_, log) = log_of(0).await;
    let log = Arc::new(log);
    let appends: Vec<_> = (0..20)
        .map(|number| {
            let log = log.clone();
            tokio::spawn(async move { log.append(event(number)).await.unwrap().sequence })
        })
        .collect();
    let mut sequences = Vec::new();
    for append in appends {
        sequences.push(append.await.unwrap());
    }
    sequences.sort_unstable();
    assert_eq!(sequences, (1..=20).collect::<Vec<_>>());
    assert_eq!(log.verify(1, u64::MAX).await.unwrap(), None);
}

#[tokio::test]
async fn every_change_of_history_is_found() {
    let (records, log) = log_of(4).await;
    set(&records, key(2), None).await;
    assert_eq!(log.verify(1, 9).await.unwrap(), Some(AuditBreak::Missing(2)));

    let (records, log) = log_of(4).await;
    let mut changed = records.get(&key(3)).await.unwrap().unwrap().value.to_vec();
    changed[8] ^= 1;
    set(&records, key(3), Some(changed.into())).await;
    assert_eq!(log.verify(1, 9).await.unwrap(), Some(AuditBreak::Changed(3)));

    let (records, log) = log_of(4).await;
    let mut swapped = Vec::new();
    for sequence in [3, 2] {
        swapped.push(records.get(&key(sequence)).await.unwrap().unwrap().value);
    }
    for (sequence, value) in [2, 3].into_iter().zip(swapped) {
        set(&records, key(sequence), Some(value)).await;
    }
    let misplaced = AuditBreak::Misplaced { at: 2, found: 3 };
    assert_eq!(log.verify(1, 9).await.unwrap(), Some(misplaced));

    let (records, log) = log_of(4).await;
    let forged = AuditEntry::new(3, event(33), [0; 32]);
    set(&records, key(3), Some(forged.encode())).await;
    assert_eq!(log.verify(3, 3).await.unwrap(), Some(AuditBreak::Unchained(3)));

    let (records, log) = log_of(4).await;
    let previous = log.list(2, 1).await.unwrap()[0].previous;
    let forged = AuditEntry::new(3, event(33), previous);
    set(&records, key(3), Some(forged.encode())).await;
    assert_eq!(log.verify(1, 9).await.unwrap(), Some(AuditBreak::Unchained(4)));

    let (records, log) = log_of(4).await;
    let forged = AuditEntry::new(4, event(44), log.list(3, 1).await.unwrap()[0].previous);
    set(&records, key(4), Some(forged.encode())).await;
    assert_eq!(log.verify(1, 9).await.unwrap(), Some(AuditBreak::Head(4)));

    let (records, log) = log_of(4).await;
    set(&records, key(1), Some(Bytes::from_static(b"?"))).await;
    assert_eq!(log.verify(1, 9).await.unwrap(), Some(AuditBreak::Unreadable(1)));

    let (records, log) = log_of(4).await;
    set(&records, HEAD.to_owned(), None).await;
    assert_eq!(log.verify(1, 9).await.unwrap(), Some(AuditBreak::Head(0)));
}

#[tokio::test]
async fn whoever_follows_passes_by_what_cannot_be_read() {
    let (records, log) = log_of(4).await;
    for damaged in [2, 4] {
        set(&records, key(damaged), Some(Bytes::from_static(b"no entry"))).await;
    }
    assert!(log.list(0, 10).await.is_err());
    let (entries, upto) = log.follow(0, 10).await.unwrap();
    assert_eq!(entries.iter().map(|it| it.sequence).collect::<Vec<_>>(), [1, 3]);
    assert_eq!(upto, 4, "it is looked at once");
    assert_eq!(log.follow(4, 10).await.unwrap(), (Vec::new(), 4));
}
