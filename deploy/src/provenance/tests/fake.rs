//! Records and directories in memory.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use kiln_cas::{Digest, DigestFunction};

use super::super::{
    ActionRecord, Archive, Listing, Mechanism, Origin, Output, Root, RootFileSystem, Run, Sandbox,
    Written,
};

#[derive(Default)]
pub struct Fake {
    records: HashMap<Digest, Vec<Arc<ActionRecord>>>,
    directories: HashMap<Digest, Listing>,
    used: HashSet<String>,
    /// The directories that each call asked for.
    pub asked: Mutex<Vec<Vec<Digest>>>,
    /// Whether directories are said to be so large that few are read ahead.
    is_heavy: bool,
}

pub fn content(text: &str) -> Digest {
    DigestFunction::Sha256.digest(text.as_bytes())
}

pub fn root(path: &str, text: &str) -> Root {
    Root { path: path.to_owned(), digest: content(text) }
}

pub fn sandbox() -> Sandbox {
    Sandbox { root: RootFileSystem::Image, enforced: BTreeSet::from(Sandbox::ISOLATION) }
}

impl Fake {
    pub fn new(is_heavy: bool) -> Self {
        Self { is_heavy, ..Self::default() }
    }

    /// A directory of files; a path may have several parts.
    pub fn tree(&mut self, files: &[(&str, Digest)]) -> Digest {
        let mut listing = Listing::default();
        let mut below: Vec<(&str, Vec<(&str, Digest)>)> = Vec::new();
        for (path, digest) in files {
            match path.split_once('/') {
                None => listing.files.push(((*path).to_owned(), *digest)),
                Some((name, rest)) => match below.iter_mut().find(|it| it.0 == name) {
                    Some(it) => it.1.push((rest, *digest)),
                    None => below.push((name, vec![(rest, *digest)])),
                },
            }
        }
        for (name, files) in below {
            let digest = self.tree(&files);
            listing.directories.push((name.to_owned(), digest));
        }
        let mut digest = content(&format!("{listing:?}"));
        if self.is_heavy {
            digest.size = 5 << 20;
        }
        self.directories.insert(digest, listing);
        digest
    }

    /// An action that ran from `started` to `started + 10` seconds: inputs and outputs are paths with content.
    pub fn ran(
        &mut self,
        id: &str,
        started: i64,
        inputs: &[(&str, &str)],
        outputs: &[(&str, &str)],
    ) {
        let inputs: Vec<_> = inputs.iter().map(|(path, text)| (*path, content(text))).collect();
        let input_root = self.tree(&inputs);
        self.add(record(id, started, run(id, input_root), outputs));
    }

    pub fn wrote(&mut self, id: &str, at: i64, outputs: &[(&str, &str)]) {
        let written = Written { by: "somebody".to_owned() };
        self.add(record(id, at, Origin::Wrote(written), outputs));
    }

    pub fn add(&mut self, record: ActionRecord) {
        let record = Arc::new(record);
        for output in &record.outputs {
            self.records.entry(output.digest).or_default().push(record.clone());
        }
    }

    pub fn use_record(&mut self, id: &str) {
        self.used.insert(id.to_owned());
    }

    /// The directories that are there, in the order of their digests.
    pub fn known_directories(&self) -> Vec<Digest> {
        let mut known: Vec<_> = self.directories.keys().copied().collect();
        known.sort_unstable();
        known
    }

    pub fn forget_directory(&mut self, digest: &Digest) {
        self.directories.remove(digest);
    }
}

pub fn run(id: &str, input_root: Digest) -> Origin {
    Origin::Ran(Box::new(Run {
        command: content(&format!("command of {id}")),
        input_root,
        worker: "worker-1".to_owned(),
        image: format!("sha256:{}", content("image").hex()),
        platform: vec![("OSFamily".to_owned(), "linux".to_owned())],
        sandbox: sandbox(),
        exit_code: 0,
    }))
}

pub fn record(id: &str, started: i64, origin: Origin, outputs: &[(&str, &str)]) -> ActionRecord {
    let output = |(path, text): &(&str, &str)| Output {
        path: (*path).to_owned(),
        digest: content(text),
        is_tree: false,
    };
    ActionRecord {
        id: id.to_owned(),
        instance: String::new(),
        invocation: "invocation".to_owned(),
        target: "//:t".to_owned(),
        mnemonic: "Genrule".to_owned(),
        configuration: String::new(),
        action: content(&format!("action of {id}")),
        outputs: outputs.iter().map(output).collect(),
        origin,
        started: started * 1_000_000_000,
        finished: (started + 10) * 1_000_000_000,
    }
}

impl Archive for Fake {
    type Error = Infallible;

    fn producers(&self, contents: &[Digest]) -> Result<Vec<Vec<Arc<ActionRecord>>>, Infallible> {
        let of = |digest| self.records.get(digest).cloned().unwrap_or_default();
        Ok(contents.iter().map(of).collect())
    }

    fn is_used(&self, record: &ActionRecord) -> bool {
        self.used.contains(&record.id)
    }

    fn directories(&self, directories: &[Digest]) -> Result<Vec<Option<Listing>>, Infallible> {
        self.asked.lock().unwrap().push(directories.to_vec());
        Ok(directories.iter().map(|it| self.directories.get(it).cloned()).collect())
    }
}

/// A sandbox that lacks one mechanism.
pub fn sandbox_without(mechanism: Mechanism) -> Sandbox {
    let mut sandbox = sandbox();
    sandbox.enforced.remove(&mechanism);
    sandbox
}
