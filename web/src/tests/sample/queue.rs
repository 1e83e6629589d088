//! A sample of a busy queue.

use super::*;

pub fn busy() -> Snapshot {
    let worker = |number: u32, occupied: u32| WorkerView {
        id: format!("kiln-worker-{number}"),
        host_name: format!("builder-{number}.example.com"),
        version: "0.1.0".into(),
        slots: 4,
        occupied,
        draining: false,
        paused: (number == 3).then(|| "the disk is full: /var/kiln has 3 MiB left".into()),
        last_seen_ms: 320 * u64::from(number),
        properties: vec![("OSFamily".into(), "linux".into()), ("Arch".into(), "x86_64".into())],
        not_enforced: Vec::new(),
    };
    let operation = |i: u64, target: &str, worker: &str| OperationView {
        name: format!("operations/live-{i}"),
        instance: String::new(),
        action: FUNCTION.digest(&i.to_le_bytes()).to_string(),
        target: target.into(),
        mnemonic: "CppCompile".into(),
        invocation: "5f3c1e1a-7a7e-4c0e-a8fd-0b1a6a0d94b2".into(),
        for_ms: 400 + i * 730,
        waited_ms: if worker.is_empty() { 0 } else { 50 },
        expected_ms: (i != 2).then_some(2_100),
        worker: worker.into(),
        attempt: 1,
        waiters: 1,
        properties: vec![("OSFamily".into(), "linux".into())],
        streams: [format!("logstreams/live-{i}/stdout"), format!("logstreams/live-{i}/stderr")],
    };
    let set = |name: &str, queued, running, served| PropertySetView {
        properties: vec![("OSFamily".into(), name.into())],
        queued,
        running,
        slots_wanted: queued + running,
        served,
    };
    Snapshot {
        workers: vec![worker(1, 4), worker(2, 3)],
        queue_depth: 3,
        running_count: 7,
        slots: 8,
        oldest_queued_ms: Some(1_860),
        queued: (7..10).map(|i| operation(i, "//net/quic:quic_impl", "")).collect(),
        running: (0..7)
            .map(|i| {
                operation(
                    i,
                    "//storage/index:index",
                    if i < 4 { "kiln-worker-1" } else { "kiln-worker-2" },
                )
            })
            .collect(),
        property_sets: vec![set("linux", 2, 7, true), set("macos", 1, 0, false)],
        draining: false,
        counters: Counters { merged: 41, ..Counters::default() },
        cache_hits: 0,
        completed: Default::default(),
    }
}
