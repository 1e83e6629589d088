//! Images made in memory.

use std::collections::BTreeMap;
use std::io::Write;

use kiln_cas::DigestFunction;
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

pub type Blobs = BTreeMap<String, Vec<u8>>;

/// An entry of a layer.
#[derive(Debug, Clone)]
pub struct Item {
    pub path: String,
    pub kind: EntryType,
    pub mode: u32,
    pub data: Vec<u8>,
    pub link: String,
    pub time: u64,
}

impl Item {
    fn new(path: &str, kind: EntryType, mode: u32) -> Self {
        let (path, data, link) = (path.to_owned(), Vec::new(), String::new());
        Self { path, kind, mode, data, link, time: 1_000_000_000 }
    }

    pub fn file(path: &str, data: &str) -> Self {
        Self { data: data.into(), ..Self::new(path, EntryType::Regular, 0o644) }
    }

    pub fn directory(path: &str) -> Self {
        Self::new(path, EntryType::Directory, 0o755)
    }

    pub fn symlink(path: &str, target: &str) -> Self {
        Self { link: target.to_owned(), ..Self::new(path, EntryType::Symlink, 0o777) }
    }

    pub fn link(path: &str, target: &str) -> Self {
        Self { link: target.to_owned(), ..Self::new(path, EntryType::Link, 0o644) }
    }

    pub fn device(path: &str) -> Self {
        Self::new(path, EntryType::Char, 0o666)
    }

    pub fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }
}

/// The archive of `items`. Their names go into it as they are, whatever they are.
pub fn tar(items: &[Item]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for item in items {
        let mut header = Header::new_gnu();
        header.set_entry_type(item.kind);
        header.set_mode(item.mode);
        header.set_mtime(item.time);
        header.set_uid(12_345);
        header.set_gid(12_345);
        header.set_size(item.data.len() as u64);
        if item.kind == EntryType::Char {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        let old = header.as_old_mut();
        old.name[..item.path.len()].copy_from_slice(item.path.as_bytes());
        old.linkname[..item.link.len()].copy_from_slice(item.link.as_bytes());
        header.set_cksum();
        builder.append(&header, item.data.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn hex(data: &[u8]) -> String {
    DigestFunction::Sha256.digest(data).hex()
}

pub fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

pub struct TestImage {
    /// All blobs of the image, its manifests included, by the hexadecimal digits of their digests.
    pub blobs: Blobs,
    /// The hexadecimal digits of the digest by which the image is named: its manifest's or its
    /// index's.
    pub digest: String,
    pub layers: Vec<String>,
    pub config: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    Tar,
    Gzip,
    Zstd,
}

pub fn descriptor(media_type: &str, data: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": format!("sha256:{}", hex(data)), "size": data.len()})
}

pub fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

impl TestImage {
    pub fn new(layers: &[(Packing, Vec<Item>)]) -> Self {
        let packed = layers.iter().map(|(packing, items)| (*packing, tar(items)));
        Self::of_archives(packed.collect(), &["PATH=/image/bin:/bin", "OF_IMAGE=yes"])
    }

    /// An image of one layer, packed with gzip.
    pub fn simple(items: Vec<Item>) -> Self {
        Self::new(&[(Packing::Gzip, items)])
    }

    pub fn of_archives(archives: Vec<(Packing, Vec<u8>)>, env: &[&str]) -> Self {
        let mut image = Self {
            blobs: Blobs::new(),
            digest: String::new(),
            layers: Vec::new(),
            config: String::new(),
        };
        let mut descriptors = Vec::new();
        let ids: Vec<String> =
            archives.iter().map(|(_, archive)| format!("sha256:{}", hex(archive))).collect();
        for (packing, archive) in archives {
            let (suffix, data) = match packing {
                Packing::Tar => ("", archive),
                Packing::Gzip => ("+gzip", gzip(&archive)),
                Packing::Zstd => ("+zstd", zstd::encode_all(archive.as_slice(), 1).unwrap()),
            };
            let media_type = format!("application/vnd.oci.image.layer.v1.tar{suffix}");
            descriptors.push(descriptor(&media_type, &data));
            let layer = image.add(data);
            image.layers.push(layer);
        }
        let config = json!({"os": "linux", "architecture": architecture(),
            "config": {"Env": env, "User": "12345", "WorkingDir": "/tmp", "Entrypoint": ["/no"]},
            "rootfs": {"type": "layers", "diff_ids": ids}});
        let config = config.to_string().into_bytes();
        let manifest = json!({"schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": descriptors});
        image.config = image.add(config);
        image.digest = image.add(manifest.to_string().into_bytes());
        image
    }

    pub fn add(&mut self, data: Vec<u8>) -> String {
        let name = hex(&data);
        self.blobs.insert(name.clone(), data);
        name
    }

    /// The image behind an index that names another machine's manifest, one of no machine, and the
    /// image's own.
    pub fn indexed(mut self) -> Self {
        let entry = |architecture: &str, os: &str, data: &[u8]| {
            let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", data);
            entry["platform"] = json!({"os": os, "architecture": architecture});
            entry
        };
        let own = self.blobs[&self.digest].clone();
        let index = json!({"schemaVersion": 2, "manifests": [
            entry("s390x", "linux", b"another machine's"),
            entry("unknown", "unknown", b"an attestation"),
            entry(architecture(), "linux", &own)]});
        self.digest = self.add(index.to_string().into_bytes());
        self
    }

    /// Writes the image's blobs into `directory` as an OCI image layout.
    pub fn write_layout(&self, directory: &std::path::Path) {
        let blobs = directory.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).unwrap();
        for (name, data) in &self.blobs {
            std::fs::write(blobs.join(name), data).unwrap();
        }
        std::fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    }
}
