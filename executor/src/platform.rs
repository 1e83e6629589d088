//! The platform properties that a worker acts on. All others only choose a worker.
//!
//! | property | values | meaning |
//! | --- | --- | --- |
//! | `kiln-root` | `host`, `strict`, `inputs` | root file system: the machine's /usr and friends read-only; nothing but the inputs; the input root itself as `/` |
//! | `kiln-network` | `true`, `false` | the machine's network instead of loopback alone, where the worker grants it |
//! | `kiln-memory` | bytes, or with `K`, `M`, `G`, `KiB`, `MiB`, `GiB` | a memory limit below that of the worker |
//! | `persistentWorkerKey` | any | the action may be a request to a tool that stays between actions (docs/persistent-workers.md) |
//! | `persistentWorkerProtocol` | `proto`, `json` | how such a tool is spoken to |
//! | `kiln-tool-inputs` | paths with commas in between | what of the inputs is that tool's, beside what the client marks |
//! | `kiln-shards`, `kiln-shard-filter` | | for the scheduler, which takes them out (docs/sharding.md) |
//! | `container-image` | `docker://REPOSITORY@sha256:...`, `oci:/DIRECTORY@sha256:...`, `none` | the files of this image as the root file system (docs/images.md) |
//!
//! A worker whose own properties name a `kiln-root` uses that one for actions that name none: clients
//! such as BuildStream, which expects its input root to be `/`, send no properties of this kind.
//!
//! A worker that shows actions nothing of its machine by default shows it to none: it does not offer
//! `kiln-root=host`, so that such an action waits for a worker that does, and its client is told that there
//! is none.

use kiln_protos::reapi::Platform;

use crate::failure::Failure;
use crate::images::{ImageReference, ReferenceError};
use crate::sandbox::RootFs;

const ROOT: &str = "kiln-root";
const NETWORK: &str = "kiln-network";
const MEMORY: &str = "kiln-memory";
const IMAGE: &str = "container-image";
/// The property that asks for shards. Only the scheduler reads it (docs/sharding.md).
const SHARDS: &str = "kiln-shards";
const SHARD_FILTER: &str = "kiln-shard-filter";
/// Bazel sends these with `--experimental_remote_mark_tool_inputs`. The command is whole without: run
/// by itself it ends when it has done its work.
const PERSISTENT: [&str; 3] = [PERSISTENT_KEY, PERSISTENT_PROTOCOL, TOOL_INPUTS];
const PERSISTENT_KEY: &str = "persistentWorkerKey";
const PERSISTENT_PROTOCOL: &str = "persistentWorkerProtocol";
/// The property that lists a tool's files, for clients that mark no inputs, as Bazel before 5.0.
const TOOL_INPUTS: &str = "kiln-tool-inputs";

/// The properties that a worker understands, for matching: `*` stands for any value. Which images a
/// worker that takes some allows is its own to say: the scheduler knows nothing of registries.
pub fn offers(
    root: &RootFs,
    network: bool,
    images: bool,
) -> impl Iterator<Item = (String, String)> {
    let host = shows_machine(root);
    // `*` is for values that nobody knows, too: the worker says which there are.
    let roots: &[_] = if host { &[(ROOT, "*")] } else { &[(ROOT, "strict"), (ROOT, "inputs")] };
    let all = [
        (MEMORY, "*"),
        (NETWORK, "false"),
        (NETWORK, "true"),
        (IMAGE, ""),
        (IMAGE, "none"),
        (IMAGE, "*"),
    ];
    roots
        .iter()
        .copied()
        .chain(all)
        .chain(PERSISTENT.map(|name| (name, "*")))
        .filter(move |(name, value)| network || (*name, *value) != (NETWORK, "true"))
        .filter(move |(name, value)| images || (*name, *value) != (IMAGE, "*"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
}

/// Whether a worker with this default root lets actions see its machine.
pub fn shows_machine(root: &RootFs) -> bool {
    *root == RootFs::Host
}

/// Holds a worker's own properties against what it does: one that it acts on is a promise to each action that
/// asks for it. Returns the root that they name, for actions that name none. `network`: whether it is granted.
/// Errors say which property, and why.
pub fn check_own(properties: &[(String, String)], network: bool) -> Result<Option<RootFs>, String> {
    let mut own = Wishes::default();
    for (name, value) in properties {
        let refused = |why: &str| format!("{name} = {value:?}: {why}");
        match name.as_str() {
            IMAGE => return Err(refused("images.allow says which images a worker takes")),
            SHARDS | SHARD_FILTER => {
                return Err(refused("an action asks the scheduler for it; no worker offers it"));
            }
            _ if PERSISTENT.contains(&name.as_str()) => {
                return Err(refused("an action asks for it; every worker offers it"));
            }
            _ => own.apply(name, value).map_err(refused)?,
        }
        if own.network && !network {
            return Err(refused("this worker grants no network; workers.allow_network grants it"));
        }
    }
    Ok(own.root)
}

/// What an action asks of its surroundings in its platform properties. `None` in a field: the
/// worker's default.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    pub root: Option<RootFs>,
    pub network: bool,
    pub memory_bytes: Option<u64>,
    pub image: Option<ImageReference>,
    pub persistent: Option<Persistent>,
}

/// A tool that may stay between actions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Persistent {
    /// The client's name for the tool (`persistentWorkerKey`).
    pub key: String,
    pub protocol: Option<String>,
    /// Paths of files and directories that belong to the tool, beside the inputs that the client
    /// has marked.
    pub inputs: Vec<String>,
}

impl Wishes {
    pub fn of(platform: Option<&Platform>) -> Result<Self, Failure> {
        let mut wishes = Self::default();
        let mut persistent = Persistent::default();
        for property in platform.iter().flat_map(|platform| &platform.properties) {
            persistent.apply(&property.name, &property.value);
            wishes.apply(&property.name, &property.value).map_err(|problem| {
                Failure::InvalidAction(format!(
                    "platform property {} = {:?}: {problem}",
                    property.name, property.value
                ))
            })?;
        }
        wishes.persistent = Some(persistent).filter(|persistent| !persistent.key.is_empty());
        if wishes.image.is_some() && wishes.root.is_some() {
            return Err(Failure::InvalidAction(format!(
                "platform properties {ROOT} and {IMAGE}: an image is a root by itself; name one of them"
            )));
        }
        Ok(wishes)
    }

    fn apply(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        match (name, value) {
            (ROOT, "host") => self.root = Some(RootFs::Host),
            (ROOT, "strict") => self.root = Some(RootFs::Empty),
            (ROOT, "inputs") => self.root = Some(RootFs::Inputs),
            (ROOT, _) => return Err("the values are host, strict and inputs"),
            (NETWORK, "true") => self.network = true,
            (NETWORK, "false") => self.network = false,
            (NETWORK, _) => return Err("the values are true and false"),
            (MEMORY, amount) => {
                let bytes = parse_bytes(amount).ok_or("give bytes, for example 512M or 4GiB")?;
                self.memory_bytes = Some(bytes);
            }
            (IMAGE, "" | "none") => self.image = None,
            (IMAGE, image) => self.image = Some(image.parse().map_err(|ReferenceError(it)| it)?),
            _ => {}
        }
        Ok(())
    }
}

impl Persistent {
    fn apply(&mut self, name: &str, value: &str) {
        match name {
            PERSISTENT_KEY => value.clone_into(&mut self.key),
            PERSISTENT_PROTOCOL => self.protocol = Some(value.to_owned()),
            TOOL_INPUTS => {
                let paths = value.split(',').map(|path| path.trim().trim_end_matches('/'));
                self.inputs = paths.filter(|path| !path.is_empty()).map(str::to_owned).collect();
            }
            _ => {}
        }
    }

    /// Whether `inputs` names the file at `path` or a directory above it.
    pub fn names(&self, path: &str) -> bool {
        self.inputs.iter().any(|named| leads_to(named, path))
    }

    /// The first path in `inputs` that is none of `files` and no directory above any of them;
    /// `None`: there is no such path.
    pub fn unmatched<'a>(&self, files: impl Iterator<Item = &'a str> + Clone) -> Option<&str> {
        let is_empty = |named: &&String| !files.clone().any(|file| leads_to(named, file));
        self.inputs.iter().find(is_empty).map(String::as_str)
    }
}

/// Whether `path` is `named` itself, or lies beneath it.
fn leads_to(named: &str, path: &str) -> bool {
    path.strip_prefix(named).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Units and their powers of two; the longer ones first.
const UNITS: [(&str, u32); 9] = [
    ("KiB", 10),
    ("MiB", 20),
    ("GiB", 30),
    ("K", 10),
    ("k", 10),
    ("M", 20),
    ("m", 20),
    ("G", 30),
    ("g", 30),
];

fn parse_bytes(text: &str) -> Option<u64> {
    let unit = UNITS.iter().find_map(|(unit, shift)| Some((text.strip_suffix(unit)?, *shift)));
    let (digits, shift) = unit.unwrap_or((text, 0));
    let amount: u64 = digits.parse().ok().filter(|amount| *amount > 0)?;
    amount.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use kiln_protos::reapi::platform::Property;

    use super::*;

    fn wishes(name: &str, value: &str) -> Result<Wishes, Failure> {
        let properties = vec![Property { name: name.into(), value: value.into() }];
        Wishes::of(Some(&Platform { properties }))
    }

    #[test]
    fn known_properties_are_understood_and_others_ignored() {
        assert_eq!(wishes("kiln-root", "strict").unwrap().root, Some(RootFs::Empty));
        assert_eq!(wishes("kiln-root", "inputs").unwrap().root, Some(RootFs::Inputs));
        assert!(wishes("kiln-network", "true").unwrap().network);
        for half_a_gibibyte in ["512M", "512MiB", "524288k", "524288KiB", "536870912"] {
            let memory = wishes("kiln-memory", half_a_gibibyte).unwrap().memory_bytes;
            assert_eq!(memory, Some(512 << 20), "{half_a_gibibyte}");
        }
        assert_eq!(wishes("OSFamily", "linux").unwrap(), Wishes::default());
        assert_eq!(Wishes::of(None).unwrap(), Wishes::default());
    }

    #[test]
    fn a_workers_own_property_is_the_default_root() {
        let own =
            |name: &str, value: &str| check_own(&[(name.to_owned(), value.to_owned())], false);
        assert_eq!(own("OSFamily", "linux"), Ok(None));
        assert_eq!(own("kiln-root", "inputs"), Ok(Some(RootFs::Inputs)));
        assert_eq!(own("kiln-network", "false"), Ok(None));
        assert_eq!(own("kiln-memory", "4GiB"), Ok(None));
        for (name, value) in [
            ("kiln-root", "moon"),
            ("kiln-network", "true"),
            ("kiln-network", "maybe"),
            ("kiln-memory", "lots"),
            ("container-image", "docker://x"),
            ("persistentWorkerProtocol", "xml"),
            ("kiln-shards", "4"),
        ] {
            let error = own(name, value).unwrap_err();
            assert!(error.starts_with(name), "{error}");
        }
        let network = ("kiln-network".to_owned(), "true".to_owned());
        assert_eq!(check_own(&[network], true), Ok(None));
    }

    #[test]
    fn the_network_is_offered_only_where_it_is_granted() {
        let network = ("kiln-network".to_owned(), "true".to_owned());
        assert!(offers(&RootFs::Host, true, false).any(|offer| offer == network));
        assert!(!offers(&RootFs::Host, false, false).any(|offer| offer == network));
        for name in
            ["kiln-root", "persistentWorkerKey", "persistentWorkerProtocol", "kiln-tool-inputs"]
        {
            let offer = (name.to_owned(), "*".to_owned());
            assert!(offers(&RootFs::Host, false, false).any(|offered| offered == offer), "{name}");
        }
    }

    #[test]
    fn the_machine_is_offered_only_where_it_is_the_default() {
        let offered = |root: RootFs| {
            offers(&root, false, false)
                .filter(|(name, _)| name == ROOT)
                .map(|(_, value)| value)
                .collect::<Vec<_>>()
        };
        assert_eq!(offered(RootFs::Host), ["*"]);
        for strict in [RootFs::Empty, RootFs::Inputs] {
            assert_eq!(offered(strict), ["strict", "inputs"]);
        }
    }

    #[test]
    fn images_are_offered_only_where_some_are_allowed() {
        let offered = |images| {
            offers(&RootFs::Host, true, images)
                .filter(|(name, _)| name == IMAGE)
                .map(|(_, value)| value)
                .collect::<Vec<_>>()
        };
        assert_eq!(offered(false), ["", "none"]);
        assert_eq!(offered(true), ["", "none", "*"]);
    }

    #[test]
    fn a_protocol_alone_asks_for_no_tool() {
        let of = |properties: &[(&str, &str)]| {
            let property = |(name, value): &(&str, &str)| Property {
                name: (*name).into(),
                value: (*value).into(),
            };
            let properties = properties.iter().map(property).collect();
            Wishes::of(Some(&Platform { properties })).unwrap().persistent
        };
        assert_eq!(of(&[("persistentWorkerProtocol", "json")]), None);
        assert_eq!(of(&[("persistentWorkerKey", "")]), None);
        let protocol = Some("json".into());
        let persistent = Persistent { key: "k".into(), protocol, ..Persistent::default() };
        let both = [("persistentWorkerProtocol", "json"), ("persistentWorkerKey", "k")];
        assert_eq!(of(&both), Some(persistent.clone()));
        let without = Persistent { protocol: None, ..persistent };
        assert_eq!(of(&both[1..]), Some(without));
        let named = [("persistentWorkerKey", "k"), ("kiln-tool-inputs", "a/b/, c")];
        let named = of(&named).unwrap();
        for (path, is_tool) in
            [("a/b", true), ("a/b/c", true), ("c", true), ("a/bc", false), ("a", false)]
        {
            assert_eq!(named.names(path), is_tool, "{path}");
        }
    }

    #[test]
    fn an_image_is_a_root_by_itself() {
        let image = format!("docker://registry.example/a@sha256:{}", "a".repeat(64));
        assert_eq!(wishes("container-image", &image).unwrap().image.unwrap().to_string(), image);
        assert_eq!(wishes("container-image", "none").unwrap(), Wishes::default());
        let both = [("kiln-root", "strict"), ("container-image", image.as_str())];
        let property =
            |(name, value): (&str, &str)| Property { name: name.into(), value: value.into() };
        let platform = Platform { properties: both.map(property).to_vec() };
        let error = Wishes::of(Some(&platform)).unwrap_err().to_string();
        assert!(error.contains("name one of them"), "{error}");
    }

    #[test]
    fn wrong_values_name_the_property_and_the_way_out() {
        for (name, value, said) in [
            ("kiln-root", "container", "host, strict and inputs"),
            ("kiln-network", "on", "true and false"),
            ("kiln-memory", "lots", "512M"),
            ("kiln-memory", "0", "512M"),
            ("kiln-memory", "5iB", "512M"),
            ("kiln-memory", "99999999999999999999G", "512M"),
            ("container-image", "docker://x", "names no digest"),
        ] {
            let error = wishes(name, value).unwrap_err();
            assert!(matches!(error, Failure::InvalidAction(_)));
            let text = error.to_string();
            assert!(text.contains(name) && text.contains(said), "{text}");
        }
    }
}
