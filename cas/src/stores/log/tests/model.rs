//! The engine against a model: random operations, restarts, torn tails, damage, compactions.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;

use super::*;
use crate::promises::Ruling;

#[derive(Debug, Clone)]
enum Op {
    Replace(u8, u8, u16),
    IfAbsent(u8, u8, u16),
    Sync,
    Compact,
    CompactAny,
    Evict(u8),
    CloseAndOpen,
    CrashAndOpen,
    /// Cuts the tail of the newest segment off at this many thousandths of it.
    Tear(u16),
    /// Appends bytes that are no record, as a torn write would leave them.
    Garbage(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let (key, fill, length) = (0..24u8, any::<u8>(), 0..700u16);
    prop_oneof![
        8 => (key.clone(), fill, length.clone()).prop_map(|(k, f, l)| Op::Replace(k, f, l)),
        4 => (key, any::<u8>(), length).prop_map(|(k, f, l)| Op::IfAbsent(k, f, l)),
        1 => Just(Op::Sync),
        2 => Just(Op::Compact),
        1 => Just(Op::CompactAny),
        1 => (0..24u8).prop_map(Op::Evict),
        1 => Just(Op::CloseAndOpen),
        1 => Just(Op::CrashAndOpen),
        1 => (0..=1000u16).prop_map(Op::Tear),
        1 => any::<u8>().prop_map(Op::Garbage),
    ]
}

struct Model {
    dir: tempfile::TempDir,
    log: Option<LogStore>,
    values: HashMap<u8, Vec<u8>>,
    /// Keys that were evicted and not put since: a crash may bring their latest value back.
    evicted: HashMap<u8, Vec<u8>>,
}

impl Model {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let log = Some(open(dir.path(), START));
        Self { dir, log, values: HashMap::new(), evicted: HashMap::new() }
    }

    fn log(&self) -> &LogStore {
        self.log.as_ref().unwrap()
    }

    fn put(&mut self, number: u8, fill: u8, length: u16, mode: Put) {
        let value = vec![fill; length.into()];
        let stored = self.log().put(&key(number), &value, mode, at(START)).unwrap();
        let expected = mode == Put::Replace || !self.values.contains_key(&number);
        assert_eq!(stored, expected);
        if stored {
            self.evicted.remove(&number);
            self.values.insert(number, value);
        }
    }

    fn evict(&mut self, number: u8) {
        let victim = self.log().index.locate(&key(number));
        let Some(victim) = victim else { return };
        // The engine chooses by size and time only: give the victim a time of its own.
        self.log().touch(&key(number), at(START + 1));
        let gone = self.log().evict(&Ruling::strict(START + 10_000), |bytes, times| {
            times.accessed == START + 1 && bytes == victim.space()
        });
        assert!(gone >= 1);
        let log = self.log.take().unwrap();
        self.values.retain(|number, value| {
            let kept = log.index.locate(&key(*number)).is_some();
            if !kept {
                self.evicted.insert(*number, value.clone());
            }
            kept
        });
        self.log = Some(log);
    }

    /// Opens again after `between` did something to the files.
    fn reopen(&mut self, close: bool, between: impl FnOnce(&LogStore)) {
        let log = self.log.take().unwrap();
        if close {
            log.close().unwrap();
        }
        between(&log);
        drop(log);
        self.log = Some(open(self.dir.path(), START));
        if !close {
            // A value that has come back must be the latest one that was evicted, and not an older one.
            for (number, value) in std::mem::take(&mut self.evicted) {
                if let Some(found) = self.get(number) {
                    assert_eq!(found, value);
                    self.values.insert(number, value);
                }
            }
        }
    }

    fn get(&self, number: u8) -> Option<Vec<u8>> {
        self.log().get(&key(number), at(START)).unwrap().map(|value| value.to_vec())
    }

    fn tear(&mut self, thousandths: u16) {
        let mut lost = BTreeSet::new();
        let numbers: Vec<u8> = self.values.keys().copied().collect();
        self.reopen(false, |log| {
            let path = active_path(log);
            let length = path.metadata().unwrap().len();
            let cut = length * u64::from(thousandths) / 1000;
            let id = lock(&log.active).segment.id;
            for number in numbers {
                let at = log.index.locate(&key(number)).unwrap();
                if at.segment == id && u64::from(at.offset) + at.space() > cut {
                    lost.insert(number);
                }
            }
            std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(cut).unwrap();
        });
        for number in lost {
            let value = self.values.remove(&number).unwrap();
            // The value is still there if only its padding was torn. If it is lost, no older value may come
            // back.
            if let Some(found) = self.get(number) {
                assert_eq!(found, value, "an old value came back");
                self.values.insert(number, value);
            }
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Replace(number, fill, length) => self.put(number, fill, length, Put::Replace),
            Op::IfAbsent(number, fill, length) => self.put(number, fill, length, Put::IfAbsent),
            Op::Sync => self.log().sync().unwrap(),
            Op::Compact => drop(self.log().compact_worst(3).unwrap()),
            Op::CompactAny => while self.log().compact_worst(1_000_000).unwrap() {},
            Op::Evict(number) => self.evict(number),
            Op::CloseAndOpen => self.reopen(true, |_| {}),
            Op::CrashAndOpen => self.reopen(false, |_| {}),
            Op::Tear(thousandths) => self.tear(thousandths),
            Op::Garbage(fill) => self.reopen(false, |log| {
                use std::io::Write;
                let file = std::fs::OpenOptions::new().append(true).open(active_path(log));
                file.unwrap().write_all(&vec![fill; 100 + usize::from(fill)]).unwrap();
            }),
        }
    }

    fn check(&self) {
        for number in 0..24 {
            assert_eq!(self.get(number), self.values.get(&number).cloned(), "key {number}");
        }
        assert_eq!(self.log().corrupt(), 0);
        check_accounts(self.log());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..Default::default() })]

    #[test]
    fn it_behaves_as_a_map(ops in prop::collection::vec(op(), 1..80)) {
        let mut model = Model::new();
        for op in ops {
            model.apply(op);
            model.check();
        }
    }

    /// However one bit of a segment changes, no wrong value is ever returned. (A damaged
    /// beginning of the file is an error with a name: another test.)
    #[test]
    fn a_flipped_bit_is_never_returned(
        place in 12..16 + 3 * 560usize, bit in 0..8u8, clean in any::<bool>(), restart in any::<bool>()
    ) {
        let mut model = Model::new();
        for number in 0..3 {
            model.put(number, number, 500, Put::Replace);
        }
        let flip = |log: &LogStore| {
            let path = segment::path(&log.options.dir, 0);
            let mut data = std::fs::read(&path).unwrap();
            data[place] ^= 1 << bit;
            std::fs::write(&path, data).unwrap();
        };
        if restart {
            model.reopen(clean, flip);
        } else {
            flip(model.log());
        }
        let found: Vec<_> = (0..3).map(|number| model.get(number)).collect();
        for (number, value) in found.iter().enumerate() {
            if let Some(value) = value {
                prop_assert_eq!(value, &vec![number as u8; 500]);
            }
        }
        prop_assert!(found.iter().flatten().count() >= 2, "one flip lost more than one record");
        // What was found damaged is absent from then on, and can be put again.
        for number in 0..3 {
            prop_assert_eq!(model.log().touch(&key(number), at(START)), found[usize::from(number)].is_some());
            model.log().put(&key(number), &[number; 500], Put::IfAbsent, at(START)).unwrap();
            prop_assert_eq!(model.get(number), Some(vec![number; 500]));
        }
        check_accounts(model.log());
        model.reopen(false, |_| {});
        for number in 0..3 {
            prop_assert_eq!(model.get(number), Some(vec![number; 500]));
        }
    }
}
