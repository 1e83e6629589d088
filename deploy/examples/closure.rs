//! Measures the provenance of a large build: `cargo run --release -p kiln-deploy --example closure [ACTIONS]`.
//!
//! A made-up build of compilations (each with a source of its own and 20 directories of 50 headers that all share),
//! archives of 100 objects each, and one link. Prints times, sizes, and what memory the walk took beyond the records.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Instant;

use kiln_cas::{Digest, DigestFunction};
use kiln_deploy::provenance::{
    ActionRecord, Archive, BuildRequest, Limits, Listing, Origin, Output, Revision, Root,
    RootFileSystem, Run, Sandbox, SignedBy, Source, provenance,
};
use kiln_deploy::timestamp::Timestamp;

const OBJECTS_OF_AN_ARCHIVE: usize = 100;

#[derive(Default)]
struct Build {
    records: HashMap<Digest, Arc<ActionRecord>>,
    directories: HashMap<Digest, Listing>,
}

fn content(text: &str) -> Digest {
    DigestFunction::Sha256.digest(text.as_bytes())
}

impl Build {
    fn keep(&mut self, listing: Listing) -> Digest {
        let digest = content(&format!("{listing:?}"));
        self.directories.insert(digest, listing);
        digest
    }

    fn run(
        &mut self,
        mnemonic: &str,
        started: i64,
        inputs: Listing,
        path: &str,
    ) -> (String, Digest) {
        let input_root = self.keep(inputs);
        let output = (path.to_owned(), content(path));
        let sandbox =
            Sandbox { root: RootFileSystem::Image, enforced: BTreeSet::from(Sandbox::ISOLATION) };
        let run = Run {
            command: content(&format!("command {path}")),
            input_root,
            worker: "worker-17.build.example".to_owned(),
            image: format!("sha256:{}", content("image").hex()),
            platform: vec![("OSFamily".to_owned(), "linux".to_owned())],
            sandbox,
            exit_code: 0,
        };
        let record = ActionRecord {
            id: format!("operations/{path}"),
            instance: String::new(),
            invocation: "8a5e4d4c-0000-4000-8000-000000000000".to_owned(),
            target: format!("//{path}"),
            mnemonic: mnemonic.to_owned(),
            configuration: String::new(),
            action: content(&format!("action {path}")),
            outputs: vec![Output { path: output.0.clone(), digest: output.1, is_tree: false }],
            origin: Origin::Ran(Box::new(run)),
            started,
            finished: started + 1,
        };
        self.records.insert(output.1, Arc::new(record));
        output
    }
}

impl Archive for Build {
    type Error = Infallible;

    fn producers(&self, contents: &[Digest]) -> Result<Vec<Vec<Arc<ActionRecord>>>, Infallible> {
        Ok(contents.iter().map(|it| self.records.get(it).cloned().into_iter().collect()).collect())
    }

    fn is_used(&self, _: &ActionRecord) -> bool {
        true
    }

    fn directories(&self, directories: &[Digest]) -> Result<Vec<Option<Listing>>, Infallible> {
        Ok(directories.iter().map(|it| self.directories.get(it).cloned()).collect())
    }
}

fn build(actions: usize) -> (Build, Root) {
    let mut build = Build::default();
    let headers: Vec<_> = (0..20)
        .map(|library| {
            let file = |number| format!("h{number}.h");
            let files = (0..50).map(|it| (file(it), content(&format!("{library}/{it}")))).collect();
            let listing = Listing { files, directories: Vec::new() };
            (format!("lib{library}"), build.keep(listing))
        })
        .collect();
    let mut archives = Vec::new();
    let mut left = actions.saturating_sub(1);
    while left > 1 {
        let count = (left - 1).min(OBJECTS_OF_AN_ARCHIVE);
        let objects = (0..count).map(|number| {
            let name = format!("{}.{number}", archives.len());
            let files = vec![(format!("{name}.c"), content(&format!("source {name}")))];
            let inputs = Listing { files, directories: headers.clone() };
            build.run("CppCompile", 0, inputs, &format!("{name}.o"))
        });
        let files = objects.collect();
        let path = format!("{}.a", archives.len());
        archives.push(build.run(
            "CppArchive",
            10,
            Listing { files, directories: Vec::new() },
            &path,
        ));
        left -= count + 1;
    }
    let (path, digest) =
        build.run("CppLink", 20, Listing { files: archives, directories: Vec::new() }, "app");
    (build, Root { path, digest })
}

/// The most memory that this process had so far, in MiB.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|it| it.trim().split(' ').next()?.parse::<u64>().ok());
    kib.unwrap_or(0) / 1024
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let actions = std::env::args().nth(1).map_or(Ok(100_000), |it| it.parse())?;
    let (build, root) = build(actions);
    let before = peak();
    let request = BuildRequest {
        builder: "https://kiln.example".to_owned(),
        builder_version: "0".to_owned(),
        invocation: "8a5e4d4c-0000-4000-8000-000000000000".to_owned(),
        instance: String::new(),
        target: "//app".to_owned(),
        revision: Revision::released(Source::parse(
            "git+https://git.example/app@1234567890123456789012345678901234567890",
        )),
        signed_by: SignedBy::Server,
        started: Timestamp::from_unix(0),
        finished: Timestamp::from_unix(60),
        signed: Timestamp::from_unix(90),
    };
    let (mut parts, mut bytes) = (0, 0);
    let mut sink = |_: &str, part: Vec<u8>| {
        parts += 1;
        bytes += part.len();
        Ok(())
    };
    let start = Instant::now();
    let made = provenance(&build, &[root], &request, Limits::default(), &mut sink)?;
    let took = start.elapsed();
    let predicate = serde_json::to_vec(&made.predicate)?.len();
    println!("{:?}", made.closure);
    println!("provenance and list: {:.2} s", took.as_secs_f64());
    println!(
        "predicate {predicate} bytes, index {} bytes, {parts} parts with {bytes} bytes",
        made.index.len()
    );
    println!("memory: {before} MiB for the records, at most {} MiB more", peak() - before);
    Ok(())
}
