//! From settings to a worker, and what its actions may not see.

use std::path::{Path, PathBuf};

use kiln_ci::stages::SecretSource;
use kiln_deploy::signing::keys::KeySource;
use kiln_executor::images::{AllowList, ImageLimits, ImagesConfig, Timing};
use kiln_executor::platform;
use kiln_executor::sandbox::RootFs;
use kiln_executor::{SandboxMode, WorkerConfig};
use kiln_scheduler::session::MAX_PROPERTIES;

use super::error::ConfigError;
use super::setting::Origin;
use super::settings::Settings;
use crate::serve::{ForgeOptions, RolloutOptions, StagesOptions};

/// Files and directories that no action may see.
const SECRETS: [&str; 10] = [
    "auth.access_files",
    "auth.jwt_secret",
    "forges.file",
    "images.auth_file",
    "redis.client_key",
    "redis.password_file",
    "rollouts.parts",
    "stages.parts",
    "storage.data_dir",
    "tls.key",
];

fn images_config(settings: &Settings) -> Result<ImagesConfig, ConfigError> {
    let path = |name| settings.path(name);
    let allow = AllowList::new(&settings.list("images.allow"))
        .map_err(|problem| ConfigError::Combination(format!("images.allow: {problem}")))?;
    let defaults = ImageLimits::default();
    let bytes = settings.size("images.max_size").unwrap_or(defaults.bytes);
    Ok(ImagesConfig {
        allow,
        insecure: settings.list("images.insecure"),
        auth_file: path("images.auth_file"),
        ca: path("images.ca"),
        limits: ImageLimits { bytes, ..defaults },
        timing: Timing::default(),
    })
}

pub fn worker_config(
    settings: &Settings,
    id: String,
    data_dir: &Path,
    slots: u32,
) -> Result<WorkerConfig, ConfigError> {
    let mut config = WorkerConfig::new(id, data_dir.join("worker"), slots);
    config.hidden = secrets(settings, data_dir);
    config.properties = settings.properties("workers.properties");
    let properties = config.properties.len();
    if properties > MAX_PROPERTIES {
        return Err(ConfigError::Combination(format!(
            "workers.properties has {properties} entries; a worker can offer {MAX_PROPERTIES}"
        )));
    }
    config.sandbox = match settings.text("workers.sandbox") {
        "required" => SandboxMode::Required,
        _ => SandboxMode::BestEffort,
    };
    config.root_fs = match settings.text("workers.root") {
        "strict" => RootFs::Empty,
        "inputs" => RootFs::Inputs,
        _ => RootFs::Host,
    };
    config.images = images_config(settings)?;
    config.allow_network = settings.flag("workers.allow_network");
    platform::check_own(&config.properties, config.allow_network)
        .map_err(|error| ConfigError::Combination(format!("workers.properties: {error}")))?;
    config.drain_timeout = settings.duration("workers.drain");
    config.absence = settings.duration("workers.absence");
    if let Some(tools) = settings.number("workers.persistent") {
        let most = kiln_executor::persistent::MAX_TOOLS;
        let fits = u32::try_from(tools).ok().filter(|tools| *tools <= most);
        config.persistent.tools = fits.ok_or_else(|| {
            ConfigError::Combination(format!(
                "workers.persistent is {tools}; at most {most} tools can be kept on one machine"
            ))
        })?;
    }
    config.persistent.idle = settings.duration("workers.persistent_idle");
    if let Some(memory) = settings.size("workers.memory") {
        config.limits.memory_bytes = Some(memory);
        config.limits.disk_bytes = Some(memory);
    }
    if let Some(disk) = settings.size("workers.disk") {
        config.limits.disk_bytes = Some(disk);
    }
    if let Some(processes) = settings.number("workers.processes") {
        config.limits.processes = Some(u32::try_from(processes).unwrap_or(u32::MAX));
    }
    if let Some(output) = settings.size("workers.output") {
        config.limits.output_bytes = Some(output);
    }
    Ok(config)
}

/// Files with secrets, which no action may see. The configuration file itself is among them: a URL
/// in it may hold a password.
fn secrets(settings: &Settings, data_dir: &Path) -> Vec<PathBuf> {
    let named = SECRETS.iter().flat_map(|name| settings.list(name));
    let files = settings.iter().filter_map(|(_, setting)| match &setting.origin {
        Origin::File(path) => Some(path.clone()),
        _ => None,
    });
    let mut all: Vec<PathBuf> =
        named.map(PathBuf::from).chain(files).chain(signing_key(settings)).collect();
    all.push(data_dir.to_owned());
    all.sort();
    all.dedup();
    all.retain(|path| path.is_absolute() || path.exists());
    all
}

/// The file with the key of releases, if it is in one.
fn signing_key(settings: &Settings) -> Option<PathBuf> {
    match settings.text("releases.key").parse::<KeySource>() {
        Ok(KeySource::File(path)) => std::path::absolute(path).ok(),
        _ => None,
    }
}

/// Files with secrets that files of the configuration name. A worker in a process of its own reads none of those.
pub fn named_secrets(
    forges: &ForgeOptions,
    stages: &StagesOptions,
    rollouts: &RolloutOptions,
) -> Vec<PathBuf> {
    let of_forges = forges.forges.iter();
    let of_forges = of_forges.flat_map(|it| [Some(&it.secret_file), it.token_file.as_ref()]);
    let of_stages = stages.parts.programs.secrets.0.values().map(|source| match source {
        SecretSource::File(path) => Some(path),
        SecretSource::Command(_) => None,
    });
    let named = of_forges.chain(of_stages).flatten().cloned();
    named.chain(rollouts.parts.signals.values().flat_map(|it| it.secret_files())).collect()
}

#[cfg(test)]
mod tests {
    use super::super::serve_options;
    use super::*;

    #[test]
    fn secrets_are_hidden_from_actions() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kiln.toml");
        std::fs::write(&file, "[auth]\naccess_files = [\"/a/one\", \"/a/two\"]\n").unwrap();
        let data = ("KILN_STORAGE_DATA_DIR".to_owned(), "/usr/kiln".to_owned());
        let settings = Settings::load(Some(&file), [data], Vec::new()).unwrap();
        let hidden = serve_options(&settings).unwrap().worker.unwrap().hidden;
        for path in
            [file.as_path(), Path::new("/a/one"), Path::new("/a/two"), Path::new("/usr/kiln")]
        {
            assert!(hidden.iter().any(|it| it == path), "{path:?} in {hidden:?}");
        }
    }

    #[test]
    fn files_that_name_secrets_are_hidden_with_what_lies_beside_them() {
        let variables = ["KILN_FORGES_FILE", "KILN_ROLLOUTS_PARTS", "KILN_STAGES_PARTS"];
        let given = variables.map(|name| (name.to_owned(), format!("/opt/{name}/file.toml")));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kiln.toml");
        std::fs::write(&file, "").unwrap();
        let settings = Settings::load(Some(&file), given.clone(), Vec::new()).unwrap();
        let hidden = secrets(&settings, Path::new("/usr/kiln"));
        for (_, path) in given {
            assert!(hidden.contains(&PathBuf::from(&path)), "{path} in {hidden:?}");
        }
    }

    #[test]
    fn secrets_that_such_files_name_elsewhere_are_hidden_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| {
            let path = dir.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let secret = write("a/secret", "0123456789abcdef".to_owned());
        let token = write("b/token", "token".to_owned());
        let (of_stage, of_signals) = ("/opt/c/secret".to_owned(), "/opt/d/token".to_owned());
        let forges = format!(
            "[[forge]]\nname = \"hub\"\nkind = \"github\"\nsecret_file = {secret:?}\n\
             token_file = {token:?}\n[[forge.repository]]\npath = \"owner/app\"\n\
             branch = \"main\"\nqueue = \"app\"\n"
        );
        let stages = format!("[secrets.one]\nfile = {of_stage:?}\n");
        let rollouts = format!(
            "[signals.one]\nkind = \"prometheus\"\nurl = \"http://127.0.0.1:9090\"\n\
             token_file = {of_signals:?}\n"
        );
        let given = [
            ("KILN_FORGES_FILE".to_owned(), write("forges.toml", forges)),
            ("KILN_STAGES_PARTS".to_owned(), write("stages.toml", stages)),
            ("KILN_ROLLOUTS_PARTS".to_owned(), write("rollouts.toml", rollouts)),
            ("KILN_STORAGE_DATA_DIR".to_owned(), "/usr/kiln".to_owned()),
        ];
        let settings = Settings::load(None, given, Vec::new()).unwrap();
        let hidden = serve_options(&settings).unwrap().worker.unwrap().hidden;
        for path in [secret, token, of_stage, of_signals] {
            assert!(hidden.contains(&PathBuf::from(&path)), "{path} in {hidden:?}");
        }
    }

    #[test]
    fn the_key_of_releases_is_hidden_where_it_is_a_file() {
        let of = |key: &str| {
            let given = [("KILN_RELEASES_KEY".to_owned(), key.to_owned())];
            let settings = Settings::load(None, given, Vec::new()).unwrap();
            secrets(&settings, Path::new("/usr/kiln"))
        };
        let data = PathBuf::from("/usr/kiln");
        assert_eq!(
            of("/opt/keys/release.pem"),
            [PathBuf::from("/opt/keys/release.pem"), data.clone()]
        );
        assert_eq!(of("env:KEY"), std::slice::from_ref(&data));
        assert_eq!(of(""), [data]);
    }
}
