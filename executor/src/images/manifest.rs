//! Indexes, manifests and configurations: OCI image specification 1.1 and Docker's schema 2, which
//! differ in nothing but the names of media types.

use kiln_cas::{Digest, DigestFunction};
use serde::Deserialize;

use super::problem::Problem;

/// Registries take no larger manifests either (distribution specification).
pub const MAX_MANIFEST_BYTES: u64 = 4 << 20;
pub const MAX_CONFIG_BYTES: u64 = 8 << 20;
const MAX_LAYERS: usize = 512;

/// The media types that registries are asked for.
pub const MANIFEST_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, \
     application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.v2+json, \
     application/vnd.docker.distribution.manifest.list.v2+json";

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Document {
    /// Manifests for several platforms.
    Index(Vec<Choice>),
    Manifest(Manifest),
}

/// An entry of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    pub digest: Digest,
    /// The platform as `os/architecture`; `None` where the index does not say it.
    platform: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    pub config: Digest,
    /// The layers, the lowest first.
    pub layers: Vec<Layer>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// The digest of the layer's bytes as they come from the registry, still compressed.
    pub blob: Digest,
    pub compression: Compression,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    None,
    Gzip,
    Zstd,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireDocument {
    schema_version: Option<u32>,
    manifests: Option<Vec<WireDescriptor>>,
    config: Option<WireDescriptor>,
    layers: Option<Vec<WireDescriptor>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: i64,
    platform: Option<WirePlatform>,
}

#[derive(Deserialize)]
struct WirePlatform {
    os: String,
    architecture: String,
}

/// Reads a manifest or an index; which of them it is shows in its fields.
pub fn read(bytes: &[u8]) -> Result<Document, Problem> {
    let wire: WireDocument = serde_json::from_slice(bytes)
        .map_err(|error| Problem::Final(format!("its manifest is malformed: {error}")))?;
    let fault = |text: &str| Err(Problem::Final(format!("its manifest {text}")));
    match (wire.manifests, wire.config, wire.layers) {
        _ if wire.schema_version == Some(1) => fault(
            "is of Docker's schema 1, which is not supported: push the image again with a newer tool",
        ),
        (Some(manifests), None, None) => {
            manifests.iter().map(choice).collect::<Result<_, _>>().map(Document::Index)
        }
        (None, Some(config), Some(layers)) => {
            if layers.len() > MAX_LAYERS {
                return fault(&format!("has {} layers, more than {MAX_LAYERS}", layers.len()));
            }
            let layers = layers.iter().map(layer).collect::<Result<_, _>>()?;
            Ok(Document::Manifest(Manifest { config: blob(&config)?, layers }))
        }
        // A document of both kinds would be another image to another reader.
        _ => fault("is neither one with config and layers nor an index with manifests"),
    }
}

fn blob(descriptor: &WireDescriptor) -> Result<Digest, Problem> {
    let WireDescriptor { digest, size, .. } = descriptor;
    let malformed = || {
        Problem::Final(format!(
            "its manifest names the blob {digest:?} of {size} bytes: expected sha256: with 64 digits and a size"
        ))
    };
    let hex = digest.strip_prefix("sha256:").ok_or_else(malformed)?;
    let size = u64::try_from(*size).map_err(|_| malformed())?;
    Digest::from_hex(hex.as_bytes(), size, DigestFunction::Sha256).map_err(|_| malformed())
}

fn choice(descriptor: &WireDescriptor) -> Result<Choice, Problem> {
    let platform = descriptor.platform.as_ref();
    let platform = platform.map(|platform| format!("{}/{}", platform.os, platform.architecture));
    Ok(Choice { digest: blob(descriptor)?, platform })
}

fn layer(descriptor: &WireDescriptor) -> Result<Layer, Problem> {
    let media_type = descriptor.media_type.as_str();
    let compression = match media_type {
        "application/vnd.oci.image.layer.v1.tar"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar"
        | "application/vnd.docker.image.rootfs.diff.tar" => Compression::None,
        "application/vnd.oci.image.layer.v1.tar+gzip"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
        | "application/vnd.docker.image.rootfs.diff.tar.gzip"
        | "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip" => Compression::Gzip,
        "application/vnd.oci.image.layer.v1.tar+zstd"
        | "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd"
        | "application/vnd.docker.image.rootfs.diff.tar.zstd" => Compression::Zstd,
        other => {
            return Err(Problem::Final(format!(
                "it has a layer of type {other:?}; supported are tar, tar+gzip and tar+zstd: is it an image of files at all?"
            )));
        }
    };
    Ok(Layer { blob: blob(descriptor)?, compression })
}

/// This machine's platform as images name it: `os/architecture`.
pub fn platform() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("linux/{architecture}")
}

/// Picks the manifest for this machine out of an index.
pub fn choose(choices: &[Choice]) -> Result<Digest, Problem> {
    let wanted = platform();
    let fitting = |choice: &&Choice| choice.platform.as_ref() == Some(&wanted);
    let only = || choices.first().filter(|only| choices.len() == 1 && only.platform.is_none());
    let chosen = choices.iter().find(fitting).or_else(only);
    chosen.map(|choice| choice.digest).ok_or_else(|| {
        let offered: Vec<&str> =
            choices.iter().filter_map(|choice| choice.platform.as_deref()).take(16).collect();
        Problem::Final(format!(
            "it is not made for {wanted}; its index has {}",
            if offered.is_empty() { "no platforms".to_owned() } else { offered.join(", ") }
        ))
    })
}

/// The image's environment variables in its order.
pub type Environment = Vec<(String, String)>;

#[derive(Deserialize)]
struct WireConfig {
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    config: Option<WireRun>,
}

#[derive(Deserialize)]
struct WireRun {
    #[serde(rename = "Env")]
    env: Option<Vec<String>>,
}

/// Checks that the image is for this machine. Its entry point, user and working directory are not for
/// actions (docs/images.md).
pub fn environment(config: &[u8]) -> Result<Environment, Problem> {
    let config: WireConfig = serde_json::from_slice(config)
        .map_err(|error| Problem::Final(format!("its configuration is malformed: {error}")))?;
    let made_for = format!("{}/{}", config.os, config.architecture);
    if made_for != platform() {
        return Err(Problem::Final(format!(
            "it is made for {made_for}, and this worker is {}",
            platform()
        )));
    }
    let variables = config.config.and_then(|run| run.env).unwrap_or_default();
    let pairs = variables.iter().filter_map(|variable| variable.split_once('='));
    Ok(pairs
        .filter(|(name, value)| !name.is_empty() && !name.contains('\0') && !value.contains('\0'))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn descriptor(media_type: &str, size: i64) -> serde_json::Value {
        json!({"mediaType": media_type, "digest": format!("sha256:{}", "a".repeat(64)), "size": size})
    }

    fn manifest(layer_type: &str) -> Result<Document, Problem> {
        let document = json!({
            "schemaVersion": 2,
            "config": descriptor("application/vnd.oci.image.config.v1+json", 2),
            "layers": [descriptor(layer_type, 3)],
        });
        read(document.to_string().as_bytes())
    }

    #[test]
    fn layers_of_both_houses_are_read() {
        for (media_type, expected) in [
            ("application/vnd.oci.image.layer.v1.tar", Compression::None),
            ("application/vnd.oci.image.layer.v1.tar+gzip", Compression::Gzip),
            ("application/vnd.docker.image.rootfs.diff.tar.gzip", Compression::Gzip),
            ("application/vnd.oci.image.layer.v1.tar+zstd", Compression::Zstd),
        ] {
            let Document::Manifest(manifest) = manifest(media_type).unwrap() else {
                panic!("an index")
            };
            assert_eq!(manifest.layers[0].compression, expected);
            assert_eq!((manifest.config.size, manifest.layers[0].blob.size), (2, 3));
        }
        let wasm = manifest("application/vnd.wasm.content.layer.v1+wasm").unwrap_err();
        assert!(wasm.to_string().contains("wasm"), "{wasm}");
    }

    #[test]
    fn malformed_documents_are_final_problems() {
        let both = json!({"manifests": [], "config": descriptor("", 1), "layers": []});
        let negative = json!({"config": descriptor("", -1), "layers": []});
        let odd = json!({"manifests": [{"digest": "md5:00", "size": 1}]});
        let old = json!({"schemaVersion": 1, "fsLayers": []});
        for document in [
            both.to_string(),
            negative.to_string(),
            odd.to_string(),
            old.to_string(),
            "{}".into(),
            "x".into(),
        ] {
            let error = read(document.as_bytes()).unwrap_err();
            assert!(matches!(error, Problem::Final(_)), "{error:?}");
        }
    }

    #[test]
    fn an_index_is_searched_for_this_machine() {
        let entry = |os: &str, architecture: &str, digit: &str| {
            json!({"digest": format!("sha256:{}", digit.repeat(64)), "size": 1,
                   "platform": {"os": os, "architecture": architecture}})
        };
        let ours = platform();
        let (os, architecture) = ours.split_once('/').unwrap();
        let index = |entries: serde_json::Value| {
            let Document::Index(choices) =
                read(json!({"manifests": entries}).to_string().as_bytes()).unwrap()
            else {
                panic!("a manifest")
            };
            choose(&choices)
        };
        let attestation = entry("unknown", "unknown", "c");
        let found =
            index(json!([attestation, entry("linux", "s390x", "b"), entry(os, architecture, "a")]));
        assert_eq!(found.unwrap().hex(), "a".repeat(64));
        let error = index(json!([entry("linux", "s390x", "b")])).unwrap_err();
        assert!(error.to_string().contains("linux/s390x"), "{error}");
        let nameless = json!([{"digest": format!("sha256:{}", "d".repeat(64)), "size": 1}]);
        assert_eq!(index(nameless).unwrap().hex(), "d".repeat(64));
        assert!(index(json!([])).is_err());
    }

    #[test]
    fn the_environment_is_read_and_another_machine_refused() {
        let ours = platform();
        let (os, architecture) = ours.split_once('/').unwrap();
        let config = |architecture: &str, env: serde_json::Value| {
            let config = json!({"os": os, "architecture": architecture, "config": {"Env": env}});
            environment(config.to_string().as_bytes())
        };
        let env = config(architecture, json!(["A=b=c", "PATH=/x", "broken", "=y"])).unwrap();
        assert_eq!(env, [("A".to_owned(), "b=c".to_owned()), ("PATH".to_owned(), "/x".to_owned())]);
        assert_eq!(config(architecture, serde_json::Value::Null).unwrap(), []);
        assert!(config("s390x", json!([])).unwrap_err().to_string().contains("s390x"));
    }
}
