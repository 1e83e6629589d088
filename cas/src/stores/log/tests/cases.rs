//! What the engine does in special cases.

use super::*;
use crate::promises::Ruling;

#[test]
fn sidecars_spare_the_reading_of_payloads() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), START);
    for number in 0..50 {
        log.put(&key(number), &[number; 300], Put::IfAbsent, leased(START + 500)).unwrap();
    }
    assert!(log.take_sealing_due());
    assert!(!log.take_sealing_due());
    log.sync().unwrap();
    let segments = log.segments.read().unwrap().len();
    let sidecars = (0..segments as u32).filter(|id| sidecar::path(dir.path(), *id).exists());
    assert_eq!(sidecars.count(), segments - 1, "all but the active one");
    drop(log);
    // With all payloads of a sealed segment destroyed, its index is still known.
    let first = segment::path(dir.path(), 0);
    let length = first.metadata().unwrap().len() as usize;
    let mut data = std::fs::read(&first).unwrap();
    data[16..].fill(0);
    assert_eq!(data.len(), length);
    std::fs::write(&first, data).unwrap();
    let log = open(dir.path(), START);
    assert_eq!(log.count(), 50);
    // If the sidecar is damaged as well, the log walks the segment: the records of this segment are gone, and
    // the others are not.
    drop(log);
    let path = sidecar::path(dir.path(), 0);
    let mut data = std::fs::read(&path).unwrap();
    data[40] ^= 1;
    std::fs::write(&path, data).unwrap();
    let log = open(dir.path(), START);
    assert!(log.count() < 50 && log.count() > 40);
    check_accounts(&log);
}

#[test]
fn leases_survive_a_clean_restart_and_grow_in_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path(), START);
    for number in 0..20 {
        let until = START + u32::from(number);
        log.put(&key(number), &[1; 300], Put::IfAbsent, leased(until)).unwrap();
    }
    log.close().unwrap();
    drop(log);
    let log = open(dir.path(), START + 5);
    let times = |log: &LogStore, number| {
        log.index.times_at(&key(number), log.index.locate(&key(number)).unwrap()).unwrap()
    };
    for number in 0..20 {
        assert_eq!(times(&log, number), leased(START + u32::from(number)));
    }
    drop(log);
    // The log was not closed, so all promises that it made just before the crash are assumed to stand.
    let log = open(dir.path(), START + 9);
    for number in 0..20 {
        assert_eq!(times(&log, number).leased_until, START + 9 + LEASE);
    }
    assert_eq!(log.evict(&Ruling::strict(START + 9 + LEASE - 1), |_, _| true), 0);
    assert_eq!(log.evict(&Ruling::strict(START + 9 + LEASE), |_, _| true), 20);
}

#[test]
fn a_file_of_another_format_is_named_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = segment::path(dir.path(), 0);
    std::fs::write(&path, [7; 100]).unwrap();
    let options = LogOptions {
        dir: dir.path().to_owned(),
        segment_size: SEGMENT,
        lease: LEASE,
        mutable: true,
    };
    let Err(error) = LogStore::open(options, START) else { panic!("it was opened") };
    assert!(error.to_string().contains("00000000.log"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), [7; 100]);
}

#[test]
fn readers_writers_evictions_and_compactions_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions {
        dir: dir.path().to_owned(),
        segment_size: 64 * 1024,
        lease: LEASE,
        mutable: true,
    };
    let log = LogStore::open(options, START).unwrap();
    let running = AtomicBool::new(true);
    std::thread::scope(|scope| {
        for thread in 0..3u8 {
            let log = &log;
            scope.spawn(move || {
                for round in 0..4000u32 {
                    let number = (round.wrapping_mul(31) as u8).wrapping_add(thread);
                    let value = vec![number; 100 + usize::from(number) * 8];
                    // Every third key is promised and must always be found.
                    let times = if number % 3 == 0 { leased(u32::MAX) } else { at(START) };
                    let mode = if round % 2 == 0 { Put::Replace } else { Put::IfAbsent };
                    log.put(&key(number), &value, mode, times).unwrap();
                    let found = log.get(&key(number), times).unwrap();
                    assert!(found.as_ref().is_none_or(|found| *found == value));
                    assert!(found.is_some() || number % 3 != 0, "key {number} was promised");
                }
            });
        }
        let (log, running) = (&log, &running);
        let janitor = scope.spawn(move || {
            while running.load(Ordering::Relaxed) {
                log.evict(&Ruling::strict(START), |bytes, _| bytes % 64 == 0);
                log.compact_worst(4).unwrap();
                log.sync().unwrap();
            }
        });
        scope.spawn(move || {
            // Ends the janitor when the log has seen enough segments.
            while lock(&log.active).segment.id < 30 {
                std::thread::yield_now();
            }
            running.store(false, Ordering::Relaxed);
        });
        janitor.join().unwrap();
    });
    check_accounts(&log);
    assert_eq!(log.corrupt(), 0);
}

#[test]
fn what_was_put_before_a_sync_is_durable_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogOptions {
        dir: dir.path().to_owned(),
        segment_size: 1 << 30,
        lease: LEASE,
        mutable: false,
    };
    let log = LogStore::open(options, START).unwrap();
    let running = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let (log, running) = (&log, &running);
        scope.spawn(move || {
            while running.load(Ordering::Relaxed) {
                log.sync().unwrap();
            }
        });
        for round in 0..3000u32 {
            let key = Key::new(&[0; 32], round.into(), 1);
            log.put(&key, &[1; 3000], Put::IfAbsent, at(START)).unwrap();
            let segment = lock(&log.active).segment.clone();
            log.sync().unwrap();
            let durable = segment.durable.load(Ordering::Acquire);
            if durable < segment.length() {
                running.store(false, Ordering::Relaxed);
                panic!("{durable} of {} bytes are durable", segment.length());
            }
        }
        running.store(false, Ordering::Relaxed);
    });
}
