//! What differs between two closures: sources, actions, images, packages. The same path in both is the same source; the
//! same target, mnemonic and first output is the same action; the same name, whatever its version, is the same package.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::list::{ClosureEntry, Executed};
use super::packages::{PackageKind, Packages};

/// Differences that are told one by one; all are counted.
const MAX_TOLD: usize = 1000;

/// A closure, as far as it is compared.
#[derive(Debug, Default)]
pub struct Side {
    /// Digests of sources, by their paths.
    sources: BTreeMap<String, String>,
    actions: BTreeMap<ActionName, Facts>,
    images: BTreeSet<String>,
    packages: Packages,
}

/// The versions of one package, each with the hash of its files. The version is empty where the name of the repository
/// does not say it.
type Versions = BTreeMap<String, String>;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct ActionName {
    target: String,
    mnemonic: String,
    output: String,
}

/// What makes an action what it is; of a result that a client wrote nothing but its action is known.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Facts {
    action: String,
    ran: Option<Ran>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Ran {
    command: String,
    input_root: String,
    image: String,
    platform: BTreeMap<String, String>,
}

/// What one closure has and the other has not.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    pub sources: Changes,
    pub actions: Changes,
    pub images: Changes,
    /// Other repositories that sources came from, as bills of materials list them.
    pub packages: Changes,
}

/// Changes of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Changes {
    pub added: usize,
    pub removed: usize,
    pub changed: usize,
    /// The first of them, in the order of names.
    pub first: Vec<Change>,
}

/// One thing that is different.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Change {
    pub kind: ChangeKind,
    pub name: String,
    /// What of the thing changed: `content`, `command`, `inputs`, `image`, `platform`, `origin`, `version`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub what: Vec<&'static str>,
}

/// Whether something came, went or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum ChangeKind {
    Added,
    Removed,
    Changed,
}

impl Side {
    /// Takes an entry of the closure's list.
    pub fn add(&mut self, entry: ClosureEntry) {
        match entry {
            ClosureEntry::Source { path, digest } => {
                self.packages.count_source(&path, &digest);
                self.sources.insert(path, digest);
            }
            ClosureEntry::Missing { .. } => {}
            ClosureEntry::Written { action, outputs, .. } => {
                let name = ActionName::new(String::new(), String::new(), &outputs);
                self.actions.insert(name, Facts { action, ran: None });
            }
            ClosureEntry::Executed(executed) => self.add_executed(*executed),
        }
    }

    fn add_executed(&mut self, it: Executed) {
        if !it.image.is_empty() {
            self.images.insert(it.image.clone());
        }
        let name = ActionName::new(it.target, it.mnemonic, &it.outputs);
        let Executed { action, command, input_root, image, platform, .. } = it;
        let ran = Some(Ran { command, input_root, image, platform });
        self.actions.insert(name, Facts { action, ran });
    }

    /// The other repositories that sources came from, by name.
    fn repositories(&self) -> BTreeMap<String, Versions> {
        let mut named: BTreeMap<String, Versions> = BTreeMap::new();
        for package in self.packages.finish("") {
            if package.kind == PackageKind::Repository {
                named.entry(package.name).or_default().insert(package.version, package.sha256);
            }
        }
        named
    }
}

impl ActionName {
    fn new(target: String, mnemonic: String, outputs: &BTreeMap<String, String>) -> Self {
        let output = outputs.keys().next().cloned().unwrap_or_default();
        Self { target, mnemonic, output }
    }

    fn shown(&self) -> String {
        let Self { target, mnemonic, output } = self;
        let words = [target, mnemonic, output].into_iter().filter(|it| !it.is_empty());
        words.map(String::as_str).collect::<Vec<_>>().join(" ")
    }
}

impl Facts {
    fn changes(&self, other: &Self) -> Vec<&'static str> {
        let (Some(one), Some(two)) = (&self.ran, &other.ran) else {
            let both = self.ran.is_none() && other.ran.is_none();
            return if both && self.action == other.action { Vec::new() } else { vec!["origin"] };
        };
        let differs = [
            ("command", one.command != two.command),
            ("inputs", one.input_root != two.input_root),
            ("image", one.image != two.image),
            ("platform", one.platform != two.platform),
        ];
        differs.into_iter().filter(|(_, differs)| *differs).map(|(what, _)| what).collect()
    }
}

impl Changes {
    fn note(&mut self, kind: ChangeKind, name: String, what: Vec<&'static str>) {
        match kind {
            ChangeKind::Added => self.added += 1,
            ChangeKind::Removed => self.removed += 1,
            ChangeKind::Changed => self.changed += 1,
        }
        if self.first.len() < MAX_TOLD {
            self.first.push(Change { kind, name, what });
        }
    }

    /// Goes through the names of both sides in their order.
    fn between<K: Ord, V>(
        one: &BTreeMap<K, V>,
        two: &BTreeMap<K, V>,
        shown: impl Fn(&K) -> String,
        changes: impl Fn(&V, &V) -> Vec<&'static str>,
    ) -> Self {
        let mut all = Self::default();
        let names: BTreeSet<&K> = one.keys().chain(two.keys()).collect();
        for name in names {
            match (one.get(name), two.get(name)) {
                (Some(_), None) => all.note(ChangeKind::Removed, shown(name), Vec::new()),
                (None, _) => all.note(ChangeKind::Added, shown(name), Vec::new()),
                (Some(old), Some(new)) => {
                    let what = changes(old, new);
                    if !what.is_empty() {
                        all.note(ChangeKind::Changed, shown(name), what);
                    }
                }
            }
        }
        all
    }

    pub fn is_empty(&self) -> bool {
        self.added + self.removed + self.changed == 0
    }
}

impl Difference {
    /// What `new` has that `old` has not, and the other way round.
    pub fn between(old: &Side, new: &Side) -> Self {
        let content = |old: &String, new: &String| {
            if old == new { Vec::new() } else { vec!["content"] }
        };
        let images = |side: &Side| -> BTreeMap<String, ()> {
            side.images.iter().map(|it| (it.clone(), ())).collect()
        };
        Self {
            sources: Changes::between(&old.sources, &new.sources, String::clone, content),
            actions: Changes::between(
                &old.actions,
                &new.actions,
                ActionName::shown,
                Facts::changes,
            ),
            images: Changes::between(&images(old), &images(new), String::clone, |(), ()| {
                Vec::new()
            }),
            packages: packages(&old.repositories(), &new.repositories()),
        }
    }

    pub fn is_empty(&self) -> bool {
        [&self.sources, &self.actions, &self.images, &self.packages].iter().all(|it| it.is_empty())
    }
}

/// Compares packages by name. One of another version is named with both versions, and any other one with its own.
fn packages(old: &BTreeMap<String, Versions>, new: &BTreeMap<String, Versions>) -> Changes {
    let shown = |name: &String| {
        let [before, after] = [old, new].map(|side| side.get(name).map(told).unwrap_or_default());
        match (before.as_str(), after.as_str()) {
            ("", "") => name.clone(),
            (version, "") | ("", version) => format!("{name} {version}"),
            (one, two) if one == two => format!("{name} {one}"),
            (one, two) => format!("{name} {one} -> {two}"),
        }
    };
    Changes::between(old, new, shown, |old, new| match old.keys().eq(new.keys()) {
        true if old == new => Vec::new(),
        true => vec!["content"],
        false => vec!["version"],
    })
}

/// The versions that are known, one behind the other.
fn told(versions: &Versions) -> String {
    let known = versions.keys().filter(|it| !it.is_empty());
    known.map(String::as_str).collect::<Vec<_>>().join(", ")
}
