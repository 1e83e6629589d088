//! The platform properties that a worker acts on. All others only choose a worker.
//!
//! | property | values | meaning |
//! | --- | --- | --- |
//! | `kiln-root` | `host`, `strict` | root file system: the machine's /usr and friends read-only, or nothing but the inputs |
//! | `kiln-network` | `true`, `false` | the machine's network instead of loopback alone, where the worker grants it |
//! | `kiln-memory` | bytes, or with `K`, `M`, `G` | a memory limit below that of the worker |
//! | `container-image` | | refused: images as root file systems are not supported yet |

use kiln_protos::reapi::Platform;

use crate::failure::Failure;
use crate::sandbox::RootFs;

const ROOT: &str = "kiln-root";
const NETWORK: &str = "kiln-network";
const MEMORY: &str = "kiln-memory";
const IMAGE: &str = "container-image";

/// The properties that a worker understands, for matching: `*` stands for any value.
pub fn offers(network: bool) -> impl Iterator<Item = (String, String)> {
    let all = [(ROOT, "*"), (MEMORY, "*"), (NETWORK, "false"), (NETWORK, "true")];
    all.into_iter()
        .filter(move |(name, value)| network || (*name, *value) != (NETWORK, "true"))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
}

/// What an action asks of its surroundings; `None`: the worker's default.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    pub root: Option<RootFs>,
    pub network: bool,
    pub memory_bytes: Option<u64>,
}

impl Wishes {
    pub fn of(platform: Option<&Platform>) -> Result<Self, Failure> {
        let mut wishes = Self::default();
        for property in platform.iter().flat_map(|platform| &platform.properties) {
            wishes.apply(&property.name, &property.value).map_err(|problem| {
                Failure::InvalidAction(format!(
                    "platform property {} = {:?}: {problem}",
                    property.name, property.value
                ))
            })?;
        }
        Ok(wishes)
    }

    fn apply(&mut self, name: &str, value: &str) -> Result<(), &'static str> {
        match (name, value) {
            (ROOT, "host") => self.root = Some(RootFs::Host),
            (ROOT, "strict") => self.root = Some(RootFs::Empty),
            (ROOT, _) => return Err("the values are host and strict"),
            (NETWORK, "true") => self.network = true,
            (NETWORK, "false") => self.network = false,
            (NETWORK, _) => return Err("the values are true and false"),
            (MEMORY, amount) => {
                let bytes = parse_bytes(amount).ok_or("give bytes, for example 512M or 4G")?;
                self.memory_bytes = Some(bytes);
            }
            (IMAGE, "" | "none") => {}
            (IMAGE, _) => {
                return Err("container images are not supported yet; use kiln-root = host");
            }
            _ => {}
        }
        Ok(())
    }
}

fn parse_bytes(text: &str) -> Option<u64> {
    let (digits, shift) = match text.strip_suffix(['K', 'k']) {
        Some(digits) => (digits, 10),
        None => match text.strip_suffix(['M', 'm']) {
            Some(digits) => (digits, 20),
            None => match text.strip_suffix(['G', 'g']) {
                Some(digits) => (digits, 30),
                None => (text, 0),
            },
        },
    };
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
        assert!(wishes("kiln-network", "true").unwrap().network);
        assert_eq!(wishes("kiln-memory", "512M").unwrap().memory_bytes, Some(512 << 20));
        assert_eq!(wishes("OSFamily", "linux").unwrap(), Wishes::default());
        assert_eq!(Wishes::of(None).unwrap(), Wishes::default());
    }

    #[test]
    fn the_network_is_offered_only_where_it_is_granted() {
        let network = ("kiln-network".to_owned(), "true".to_owned());
        assert!(offers(true).any(|offer| offer == network));
        assert!(!offers(false).any(|offer| offer == network));
        assert!(offers(false).any(|offer| offer == ("kiln-root".to_owned(), "*".to_owned())));
    }

    #[test]
    fn wrong_values_name_the_property_and_the_way_out() {
        for (name, value, said) in [
            ("kiln-root", "container", "host and strict"),
            ("kiln-network", "on", "true and false"),
            ("kiln-memory", "lots", "512M"),
            ("kiln-memory", "0", "512M"),
            ("kiln-memory", "99999999999999999999G", "512M"),
            ("container-image", "docker://x", "not supported yet"),
        ] {
            let error = wishes(name, value).unwrap_err();
            assert!(matches!(error, Failure::InvalidAction(_)));
            let text = error.to_string();
            assert!(text.contains(name) && text.contains(said), "{text}");
        }
    }
}
