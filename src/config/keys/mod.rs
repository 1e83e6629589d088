//! Every key there is: its name, default and meaning. Flags, environment variables, the
//! configuration file, `kiln config` and docs/configuration.md all follow this table.

mod key;
mod registry;
mod running;
mod server;
mod storage;
mod workers;

pub use key::{Key, Kind};

/// The tables of keys, in the order of the manual's sections.
const TABLES: [&[Key]; 5] =
    [server::KEYS, storage::KEYS, registry::KEYS, workers::KEYS, running::KEYS];

pub fn all() -> impl Iterator<Item = &'static Key> {
    TABLES.into_iter().flatten()
}

pub fn find(name: &str) -> Option<&'static Key> {
    all().find(|key| key.name == name)
}

/// What keys were called before, and what they are called now.
pub const RENAMED: [(&str, &str); 2] =
    [("audit.rate", "hermeticity.rate"), ("audit.concurrency", "hermeticity.concurrency")];

/// The key that `name` was renamed to, else the known key that is spelled most alike.
pub fn nearest(name: &str) -> Option<&'static str> {
    let renamed = RENAMED.iter().find(|(before, _)| *before == name).map(|(_, now)| *now);
    renamed.or_else(|| most_alike(name))
}

fn most_alike(name: &str) -> Option<&'static str> {
    all()
        .map(|key| (strsim::jaro_winkler(name, key.name), key.name))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > 0.7)
        .map(|(_, name)| name)
}

/// `KILN_SERVER_LISTEN` for `server.listen`.
pub fn variable(name: &str) -> String {
    format!("KILN_{}", name.to_uppercase().replace('.', "_"))
}
