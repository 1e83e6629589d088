//! From settings to a worker, and what its actions may not see.

use std::path::{Path, PathBuf};

use kiln_executor::images::{AllowList, ImageLimits, ImagesConfig, Timing};
use kiln_executor::platform;
use kiln_executor::sandbox::RootFs;
use kiln_executor::{SandboxMode, WorkerConfig};
use kiln_scheduler::session::MAX_PROPERTIES;

use super::error::ConfigError;
use super::setting::Origin;
use super::settings::Settings;

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

/// The configuration file itself is among them: a URL in it may hold a password.
fn secrets(settings: &Settings, data_dir: &Path) -> Vec<PathBuf> {
    let named = SECRETS.iter().flat_map(|name| settings.list(name));
    let files = settings.iter().filter_map(|(_, setting)| match &setting.origin {
        Origin::File(path) => Some(path.clone()),
        _ => None,
    });
    let mut all: Vec<PathBuf> = named.map(PathBuf::from).chain(files).collect();
    all.push(data_dir.to_owned());
    all.sort();
    all.dedup();
    all.retain(|path| path.is_absolute() || path.exists());
    all
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
}
