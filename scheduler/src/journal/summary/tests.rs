use super::*;

#[test]
fn mnemonics_are_bounded_and_lose_no_count() {
    let mut build = ActiveBuild::default();
    for i in 0..200 {
        let execution = Execution {
            mnemonic: format!("M{i}"),
            origin: Origin::CacheHit.into(),
            ..Default::default()
        };
        build.add(&execution, i);
    }
    assert_eq!(build.summary.mnemonics.len(), MAX_MNEMONICS + 1);
    let sum: u64 = build.summary.mnemonics.iter().map(|m| m.counts.total()).sum();
    assert_eq!((sum, build.summary.counts.hits), (200, 200));
}

#[test]
fn parts_are_counted_with_their_whole() {
    let mut build = ActiveBuild::default();
    build.begin(&Begun { requests: 1, ..Begun::default() }, 0);
    let run = |number, cancelled| Execution {
        origin: Origin::Executed.into(),
        attempts: 1,
        cancelled,
        timeline: Some(Timeline { finished: 9, ..Timeline::default() }),
        shard: Some(kiln_protos::events::Shard { number, count: 2, ..Default::default() }),
        ..Execution::default()
    };
    build.add(&run(1, false), 1);
    assert_eq!((build.summary.counts.executed, build.summary.open()), (0, 1));
    build.add(&run(0, false), 2);
    build.add(&run(2, true), 3);
    assert_eq!((build.summary.counts.total(), build.summary.open()), (1, 0));
    assert!(!build.summary.is_cancelled, "a part that was not needed was stopped");
}

#[test]
fn what_is_looked_up_in_vain_ran_at_the_client_unless_it_was_asked_for() {
    let mut build = ActiveBuild::default();
    let begun = |requests, missed| Begun {
        requests,
        missed,
        mnemonic: "M".into(),
        last_at: 7,
        ..Begun::default()
    };
    for seq in 0..4 {
        build.begin(&begun(0, 1), seq);
    }
    assert_eq!((build.summary.counts.ran_at_client(), build.summary.last_at), (4, 7));
    assert_eq!(build.summary.counts.hit_rate(), Some(0.0));
    // One of them waits, another build has made the next one meanwhile.
    build.begin(&begun(1, 0), 5);
    let origin = Origin::CacheHit.into();
    let hit = Execution { origin, mnemonic: "M".into(), ..Execution::default() };
    let at_execute = Execution { command: Some(Default::default()), ..hit.clone() };
    build.add(&at_execute, 6);
    build.add(&hit, 7);
    let counts = build.summary.counts;
    assert_eq!((counts.ran_at_client(), counts.hits, build.summary.open()), (2, 2, 1));
    assert_eq!(counts.hit_rate(), Some(0.5));
    assert_eq!(build.summary.mnemonics[0].counts.ran_at_client(), 2);
}

#[test]
fn what_no_worker_had_was_refused_and_waited_to_its_end() {
    let timeline = Timeline { queued: 10, finished: 40, ..Timeline::default() };
    let refused = Execution {
        origin: Origin::Executed.into(),
        status_code: 9,
        timeline: Some(timeline),
        ..Execution::default()
    };
    let mut counts = Counts::default();
    counts.add(&refused);
    assert_eq!((counts.refused, counts.executed, counts.failed), (1, 0, 1));
    assert_eq!((counts.queue_ns, counts.hit_rate()), (30, Some(0.0)));
    counts.add(&Execution { cancelled: true, ..refused.clone() });
    assert_eq!((counts.refused, counts.cancelled, counts.queue_ns), (1, 1, 60));
    // An action that a worker had and lost does not count as refused.
    counts.add(&Execution { attempts: 2, ..refused });
    assert_eq!((counts.refused, counts.executed), (1, 1));
}
