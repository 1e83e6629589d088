//! A log segment and its sidecar of any bytes: opening may refuse, but neither panics nor
//! serves a value whose checksum does not match; and what is put afterwards is there.
#![no_main]

use arbitrary::Arbitrary;
use kiln_cas::stores::fuzzing;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Files<'a> {
    /// With the right beginning of the file, so that what follows is looked at.
    with_prefix: bool,
    segment: &'a [u8],
    sidecar: Option<Sidecar<'a>>,
}

#[derive(Arbitrary, Debug)]
enum Sidecar<'a> {
    Raw(&'a [u8]),
    /// A checksum that matches, and anything before it.
    Sealed {
        covered: u64,
        entries: Vec<([u8; 3], u32, u32)>,
    },
}

fuzz_target!(|files: Files| {
    let mut segment = Vec::new();
    if files.with_prefix {
        segment.extend_from_slice(&fuzzing::segment_prefix(0));
    }
    segment.extend_from_slice(files.segment);
    let sidecar = files.sidecar.map(|sidecar| match sidecar {
        Sidecar::Raw(bytes) => bytes.to_vec(),
        Sidecar::Sealed { covered, entries } => fuzzing::sidecar(0, covered, &entries),
    });
    let dir = tempfile::tempdir().expect("a temporary directory");
    fuzzing::open_files(dir.path(), &segment, sidecar.as_deref());
});
