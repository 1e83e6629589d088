//! All settings: read from the file, the environment and flags, in rising precedence.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kiln_net::files;

use super::environment::{Unknown, is_of_a_service};
use super::error::ConfigError;
use super::keys::{self, Key};
use super::setting::{Origin, Setting};
use super::values::{self, items, parse_duration, parse_size};

/// All settings with their origins.
#[derive(Debug, Clone)]
pub struct Settings {
    values: BTreeMap<&'static str, Setting>,
    /// Messages for the user about settings that have no effect.
    remarks: Vec<String>,
}

/// A flag that sets a key: its spelling, the key, the value.
pub type FlagValue = (&'static str, &'static str, String);

impl Settings {
    /// `environment`: all variables; those that begin with `KILN_` and a section's name count. What
    /// orchestrators set for services of such a name does not, and others are remarked on.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        flags: Vec<FlagValue>,
    ) -> Result<Self, ConfigError> {
        let values = keys::all()
            .map(|key| {
                (key.name, Setting { text: key.default.to_owned(), origin: Origin::Default })
            })
            .collect();
        let mut settings = Self { values, remarks: Vec::new() };
        if let Some(path) = file {
            settings.read_file(path)?;
        }
        settings.read_environment(environment)?;
        for (flag, name, text) in flags {
            let key = keys::find(name).ok_or_else(|| ConfigError::Unknown {
                place: flag.to_owned(),
                name: name.to_owned(),
                nearest: keys::nearest(name),
            })?;
            settings.set(key, text, Origin::Flag(flag.to_owned()))?;
        }
        settings.check()?;
        Ok(settings)
    }

    pub fn get(&self, name: &str) -> &Setting {
        // Names come from the code; tests read every one of them.
        static NOTHING: Setting = Setting { text: String::new(), origin: Origin::Default };
        self.values.get(name).unwrap_or(&NOTHING)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&'static Key, &Setting)> {
        keys::all().map(|key| (key, self.get(key.name)))
    }

    /// The one place where values come in: from here on all paths are absolute.
    fn set(&mut self, key: &Key, text: String, origin: Origin) -> Result<(), ConfigError> {
        let text = values::absolute(key, text, || base(&origin))?;
        self.values.insert(key.name, Setting { text, origin });
        Ok(())
    }

    fn read_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let text = files::read_text(path).map_err(|error| ConfigError::Unreadable {
            path: path.to_owned(),
            message: error.to_string(),
        })?;
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            ConfigError::Toml { path: path.to_owned(), message: error.to_string() }
        })?;
        // Wherever it is used: what actions must not read is named by it as well.
        let file = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        for (section, entries) in &table {
            let Some(entries) = entries.as_table() else {
                return Err(unknown(path, &text, section, section));
            };
            for (entry, value) in entries {
                let name = format!("{section}.{entry}");
                let key = keys::find(&name).ok_or_else(|| unknown(path, &text, &name, entry))?;
                self.set(key, values::from_toml(value), Origin::File(file.clone()))?;
            }
        }
        Ok(())
    }

    fn read_environment(
        &mut self,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), ConfigError> {
        let known: BTreeMap<String, &Key> =
            keys::all().map(|key| (keys::variable(key.name), key)).collect();
        for (variable, text) in environment {
            if let Some(key) = known.get(&variable) {
                self.set(key, text, Origin::Environment(variable))?;
            } else if !is_of_a_service(&variable, &text) {
                match Unknown::of(&variable) {
                    Some(unknown) if unknown.is_of_a_section => {
                        let (place, nearest) = ("environment".into(), unknown.nearest);
                        return Err(ConfigError::Unknown { place, name: variable, nearest });
                    }
                    Some(unknown) => self.remarks.push(unknown.to_string()),
                    None => {}
                }
            }
        }
        Ok(())
    }

    /// Messages for whoever started this process about settings that have no effect.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Every value can be read, whether or not it is used.
    fn check(&self) -> Result<(), ConfigError> {
        self.iter().try_for_each(|(key, setting)| values::check(key, setting))
    }
}

/// The directory that a relative path begins from: that of the file which says it, else the current
/// one.
fn base(origin: &Origin) -> Result<PathBuf, ConfigError> {
    let of_file = match origin {
        Origin::File(file) => file.parent().unwrap_or(Path::new("")),
        _ => Path::new(""),
    };
    // An empty path is none for the standard library.
    std::path::absolute(Path::new(".").join(of_file)).map_err(|error| {
        ConfigError::Combination(format!(
            "the current directory cannot be found ({error}), and a path from {origin} is relative: \
             write it from / on"
        ))
    })
}

fn unknown(path: &Path, text: &str, name: &str, entry: &str) -> ConfigError {
    let line = text
        .lines()
        .position(|line| line.trim_start().trim_start_matches('[').starts_with(entry))
        .map_or(String::new(), |line| format!(":{}", line + 1));
    ConfigError::Unknown {
        place: format!("{}{line}", path.display()),
        name: name.to_owned(),
        nearest: keys::nearest(name),
    }
}

/// Typed reading. Values were checked when they were loaded; `auto` reads as `None`.
impl Settings {
    pub fn text(&self, name: &str) -> &str {
        &self.get(name).text
    }

    pub fn flag(&self, name: &str) -> bool {
        self.text(name) == "true"
    }

    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name).parse().ok()
    }

    pub fn size(&self, name: &str) -> Option<u64> {
        parse_size(self.text(name))
    }

    /// The key's value as a path; `None`: it is empty.
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        Some(self.text(name)).filter(|text| !text.is_empty()).map(PathBuf::from)
    }

    pub fn duration(&self, name: &str) -> Duration {
        parse_duration(self.text(name)).unwrap_or_default()
    }

    pub fn list(&self, name: &str) -> Vec<String> {
        items(self.text(name)).map(str::to_owned).collect()
    }

    pub fn properties(&self, name: &str) -> Vec<(String, String)> {
        items(self.text(name))
            .filter_map(|item| item.split_once('='))
            .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::default_toml;

    fn load(
        toml: &str,
        environment: &[(&str, &str)],
        flags: Vec<FlagValue>,
    ) -> Result<Settings, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kiln.toml");
        std::fs::write(&path, toml).unwrap();
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Settings::load(Some(&path), environment, flags)
    }

    #[test]
    fn flags_beat_the_environment_which_beats_the_file() {
        let toml = "[storage]\nlease = \"1h\"\nmax_size = \"2GiB\"\n[server]\ndrain = \"5s\"";
        let settings = load(
            toml,
            &[("KILN_STORAGE_LEASE", "2h"), ("KILN_SERVER_DRAIN", "6s"), ("KILN_SERVER", "x")],
            vec![("--lease", "storage.lease", "3h".into())],
        )
        .unwrap();
        assert_eq!(settings.get("storage.lease").text, "3h");
        assert_eq!(settings.get("server.drain").text, "6s");
        assert_eq!(settings.get("storage.max_size").text, "2GiB");
        assert_eq!(settings.get("server.listen").origin, Origin::Default);
    }

    #[test]
    fn an_unknown_key_names_its_line_and_the_nearest_one() {
        let error = load("[storage]\nlease = \"1h\"\nmaxsize = 1", &[], vec![]).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(":3: unknown key storage.maxsize"), "{text}");
        assert!(text.contains("did you mean storage.max_size?"), "{text}");
        let error = load("[audit]\nrate = 1", &[], vec![]).unwrap_err();
        assert!(error.to_string().contains("did you mean hermeticity.rate?"), "{error}");
        let error = load("", &[("KILN_AUDIT_RATE", "1")], vec![]).unwrap_err();
        assert!(error.to_string().contains("did you mean hermeticity.rate?"), "{error}");
        let error = load("", &[("KILN_STORAGE_LEESE", "1h")], vec![]).unwrap_err();
        assert!(error.to_string().contains("did you mean storage.lease?"), "{error}");
    }

    #[test]
    fn tools_beyond_what_a_machine_keeps_are_refused() {
        let of = |tools: u32| {
            let toml = format!("[workers]\npersistent = {tools}");
            crate::config::worker_options(&load(&toml, &[], vec![]).unwrap())
        };
        assert_eq!(of(1024).unwrap().0.persistent.tools, 1024);
        let error = of(1025).unwrap_err().to_string();
        assert!(error.contains("workers.persistent is 1025; at most 1024"), "{error}");
    }

    #[test]
    fn a_bad_value_says_what_is_expected() {
        let error = load("[storage]\nlease = \"soon\"", &[], vec![]).unwrap_err().to_string();
        assert!(error.contains("storage.lease = \"soon\""), "{error}");
        assert!(error.contains("expected a duration"), "{error}");
    }

    #[test]
    fn relative_paths_become_absolute_from_the_file_or_the_current_directory() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kiln.toml");
        let toml = "[storage]\ndata_dir = \"./data/\"\n[tls]\ncert = \"/c.pem\"\n\
                    [auth]\naccess_files = [\"a.toml\", \"/b.toml\"]";
        std::fs::write(&file, toml).unwrap();
        let environment = [("KILN_IMAGES_CA".to_owned(), "ca.pem".to_owned())];
        let flags = vec![("--tls-key", "tls.key", "my keys/k.pem".to_owned())];
        let settings = Settings::load(Some(&file), environment, flags).unwrap();
        let here = std::env::current_dir().unwrap();
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        assert_eq!(settings.text("storage.data_dir"), text(dir.path().join("data")));
        assert_eq!(settings.text("tls.cert"), "/c.pem");
        let files = settings.list("auth.access_files");
        assert_eq!(files, [text(dir.path().join("a.toml")), "/b.toml".to_owned()]);
        assert_eq!(settings.text("images.ca"), text(here.join("ca.pem")));
        assert_eq!(settings.text("tls.key"), text(here.join("my keys/k.pem")));
        assert_eq!(settings.text("redis.ca"), "", "nothing stays nothing");
        assert_eq!(load("", &[], vec![]).unwrap().text("storage.data_dir"), "auto");
    }

    #[test]
    fn what_could_serve_nothing_is_refused_when_it_is_read() {
        for (name, bad, good) in [
            ("server.listen", "8980", "localhost:8980"),
            ("server.listen", "::1:8980", "[::1]:8980"),
            ("server.listen", ":8980", "build.example:0"),
            ("server.listen", "host:port", "0.0.0.0:1"),
            ("worker.listen", "localhost", "localhost:1"),
            ("server.base_url", "build.example", "https://build.example/kiln/"),
            ("server.base_url", "grpc://build.example", "auto"),
            ("server.base_url", "http://", "http://[::1]:8980"),
            ("server.base_url", "https://me:secret@build.example", "https://build.example:1"),
            ("server.base_url", "https://build.example/#x", "https://build.example"),
            ("storage.lease", "3651d", "3650d"),
            ("storage.max_size", "2000000TB", "1000000TB"),
            ("server.front_threads", "0", "1"),
            ("storage.data_dir", "", "data"),
            ("storage.data_dir", "~/kiln", "/data"),
            ("storage.max_size", "10", "64MiB"),
            ("storage.lease", "0s", "1s"),
            ("redis.timeout", "0s", "1s"),
            ("workers.count", "abc", "0"),
            ("workers.count", "5000", "auto"),
            ("workers.memory", "1", "16MiB"),
            ("workers.disk", "0", "1MiB"),
            ("workers.output", "0", "1KiB"),
            ("workers.processes", "1", "8"),
            ("workers.properties", "=x", "pool="),
            ("scheduler.max_timeout", "0s", "1h"),
            ("scheduler.max_queued", "0", "1"),
            ("hermeticity.rate", "7", "0.5"),
            ("log.filter", "inof", "info"),
            ("log.filter", "info,kiln_cas=loud", "info,kiln_cas=debug"),
            ("log.filter", "", "off"),
        ] {
            let of = |text: &str| load("", &[], vec![("--flag", name, text.to_owned())]).map(drop);
            let error = of(bad).unwrap_err().to_string();
            assert!(error.contains(&format!("{name} = ")), "{error}");
            assert!(error.contains("(from --flag): expected"), "{error}");
            assert_eq!(of(good), Ok(()), "{name}");
        }
    }

    #[test]
    fn the_default_file_means_the_defaults() {
        let settings = load(&default_toml(), &[], vec![]).unwrap();
        for (key, setting) in settings.iter() {
            assert_eq!(setting.text, key.default, "{}", key.name);
        }
    }

    #[test]
    fn every_key_is_in_the_manual() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
        let manual = std::fs::read_to_string(path).unwrap();
        for key in keys::all() {
            assert!(manual.contains(&format!("`{}`", key.name)), "{} is not in it", key.name);
        }
    }
}
