//! Values in a log, then damage to its files: each value is then as it was, or absent.
#![no_main]

use arbitrary::Arbitrary;
use kiln_cas::stores::fuzzing::{self, Damage};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Input {
    /// Lengths of the values.
    values: Vec<u16>,
    close: bool,
    damage: Vec<(u16, Kind)>,
}

#[derive(Arbitrary, Debug)]
enum Kind {
    Flip { sidecar: bool, bits: [u8; 4] },
    Truncate { sidecar: bool },
    Append(Vec<u8>),
}

fuzz_target!(|input: Input| {
    let damage: Vec<Damage> = input
        .damage
        .into_iter()
        .take(1)
        .map(|(at, kind)| match kind {
            Kind::Flip { sidecar, bits } => Damage::Flip { sidecar, at: at.into(), bits },
            Kind::Truncate { sidecar } => Damage::Truncate { sidecar, at: at.into() },
            Kind::Append(bytes) => Damage::Append(bytes),
        })
        .collect();
    let values: Vec<u16> = input.values.into_iter().take(16).map(|length| length % 2048).collect();
    let dir = tempfile::tempdir().expect("a temporary directory");
    fuzzing::damaged(dir.path(), &values, input.close, &damage);
});
