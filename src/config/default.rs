//! The configuration file as it is without any change.

use super::{keys, values};

/// A commented file with every key at its default.
pub fn default_toml() -> String {
    let mut text = String::new();
    let mut section = "";
    for key in keys::all() {
        let (of, name) = key.name.split_once('.').unwrap_or(("", key.name));
        if of != section {
            section = of;
            text.push_str(&format!("{}[{section}]\n", if text.is_empty() { "" } else { "\n" }));
        }
        text.push_str(&format!("# {}\n", key.help));
        text.push_str(&format!("{name} = {}\n", values::to_toml(key)));
    }
    text
}
