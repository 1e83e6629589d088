//! What people pull: an image that a rule made, or files packed into a layer. The same outputs give the same manifest.

use std::collections::{BTreeMap, HashSet};
use std::io::{self, Read};

use kiln_cas::{Digest, StoreError};
use serde_json::json;

use super::blocking::{Blocking, stored};
use super::error::CatalogError;
use super::files::{OutputFile, OutputNode, led_to};
use super::layers::{KnownLayers, name_of};
use super::outputs::Outputs;
use crate::json;
use crate::oci::{
    Algorithm, ContentDigest, Descriptor, DocumentKind, LAYER_TYPE, LAYOUT_FILE, LayerEntry,
    LayerError, LayerNode, Layout, LayoutLimits, MANIFEST_TYPE, Manifest, check_layout,
    layer_size_at_most, write_layer,
};

const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";
/// Bytes of documents that a layout names itself by.
const MAX_FILE: u64 = 4 << 20;

/// What the outputs are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Form {
    /// An image where they are an image layout, else files.
    #[default]
    Any,
    Image,
    Files,
}

/// The manifest, and everything that it leads to, itself among it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    pub subject: Descriptor,
    pub blobs: Vec<Descriptor>,
    pub form: Form,
}

pub fn content(
    store: &Blocking,
    known: &KnownLayers,
    outputs: &Outputs,
    form: Form,
    platform: (&str, &str),
) -> Result<Content, CatalogError> {
    match (form, OutputLayout::find(store, outputs)) {
        (Form::Files, _) | (Form::Any, Err(_)) => packed(store, known, outputs, platform),
        (Form::Image | Form::Any, Ok(layout)) => image(&layout),
        (Form::Image, Err(why)) => Err(CatalogError::NoLayout(why)),
    }
}

/// The path that a file has in the release: below the directory that the build tool has for what it makes.
fn short(path: &str) -> &str {
    let below = |it: &'static str| path.strip_prefix(it).and_then(|it| it.split_once('/'));
    let of_bazel = below("bazel-out/").and_then(|(_, rest)| rest.strip_prefix("bin/"));
    of_bazel.unwrap_or(path)
}

fn packed(
    store: &Blocking,
    known: &KnownLayers,
    outputs: &Outputs,
    (os, architecture): (&str, &str),
) -> Result<Content, CatalogError> {
    let links: HashSet<_> = outputs.nodes.iter().map(|it| &it.path).collect();
    let files = outputs.files.iter().filter(|it| !links.contains(&it.path)).map(entry);
    let entries: Vec<_> = files.chain(outputs.nodes.iter().map(node)).collect();
    once(outputs)?;
    let layer = pack(store, known, &entries)?;
    let config = json!({
        "architecture": architecture,
        "config": {},
        "os": os,
        "rootfs": {"diff_ids": [layer.digest.to_string()], "type": "layers"},
    });
    let config = store.put(CONFIG_TYPE, json::write(&config)?)?;
    let manifest = Manifest::image(config.clone(), vec![layer.clone()]).write()?;
    let subject = store.put(MANIFEST_TYPE, manifest)?;
    let blobs = vec![subject.clone(), config, layer];
    Ok(Content { subject, blobs, form: Form::Files })
}

/// A layer of the entries, which is packed where it is not there already.
fn pack(
    store: &Blocking,
    known: &KnownLayers,
    entries: &[LayerEntry<Digest>],
) -> Result<Descriptor, CatalogError> {
    let name = name_of(entries);
    if let Some(layer) = known.find(&name)
        && let Some(digest) = stored(&layer)
        && store.has(&digest)?
    {
        return Ok(layer);
    }
    let layer = store.put_written(LAYER_TYPE, layer_size_at_most(entries), &mut |out| {
        let open = &mut |digest: &Digest| store.open(digest).map_err(io::Error::other);
        write_layer(entries.to_vec(), open, out).map_err(CatalogError::from)
    });
    let layer = layer.map_err(evicted)?;
    known.add(name, layer.clone());
    Ok(layer)
}

fn entry(file: &OutputFile) -> LayerEntry<Digest> {
    let node = LayerNode::File {
        content: file.digest,
        size: file.digest.size,
        is_executable: file.is_executable,
    };
    LayerEntry { path: short(&file.path).to_owned(), node }
}

/// Checks that no two files have one path in the release, as files of two configurations may.
fn once(outputs: &Outputs) -> Result<(), CatalogError> {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for path in outputs.files.iter().map(|it| it.path.as_str()) {
        if let Some(other) = seen.insert(short(path), path).filter(|it| *it != path) {
            return Err(CatalogError::Twice(other.to_owned(), path.to_owned()));
        }
    }
    Ok(())
}

fn node(it: &OutputNode) -> LayerEntry<Digest> {
    let node = match &it.target {
        Some(target) => LayerNode::Symlink { target: target.clone() },
        None => LayerNode::Directory,
    };
    LayerEntry { path: short(&it.path).to_owned(), node }
}

/// An output that is gone is no fault of whoever packs it.
fn evicted(error: CatalogError) -> CatalogError {
    let CatalogError::Layer(LayerError::Io { source, .. }) = &error else { return error };
    let gone = match source.get_ref().and_then(|it| it.downcast_ref::<StoreError>()) {
        Some(StoreError::NotFound(digest)) => Some(*digest),
        _ => None,
    };
    gone.map_or(error, |digest| CatalogError::Evicted(StoreError::NotFound(digest)))
}

fn image(layout: &OutputLayout<'_>) -> Result<Content, CatalogError> {
    let checked = check_layout(layout, LayoutLimits::default())?;
    let [named] = checked.index.manifests.as_slice() else {
        let count = checked.index.manifests.len();
        return Err(CatalogError::NoLayout(format!("its index names {count} images, not one")));
    };
    let subject = Descriptor::new(&named.media_type, named.digest.clone(), named.size);
    let mut wanted = BTreeMap::from([(subject.digest.clone(), subject.clone())]);
    for named in checked.documents.values().flat_map(|it| it.names()) {
        if !named.is_foreign() {
            let Descriptor { media_type, digest, size, .. } = named;
            let plain = Descriptor::new(media_type, digest.clone(), *size);
            wanted.entry(digest.clone()).or_insert(plain);
        }
    }
    for blob in wanted.values() {
        if blob.digest.algorithm() != Algorithm::Sha256 {
            return Err(CatalogError::Sha512(blob.digest.clone()));
        }
        let file = layout.digest_of(&blob.digest).map_err(|it| {
            CatalogError::NoLayout(format!("{} is not among its blobs: {it}", blob.digest))
        })?;
        layout.store.put_copy(&blob.media_type, &file).map_err(CatalogError::Evicted)?;
    }
    debug_assert!(DocumentKind::of(&subject.media_type).is_some(), "it was read as one");
    Ok(Content { subject, blobs: wanted.into_values().collect(), form: Form::Image })
}

/// An image layout among the outputs.
struct OutputLayout<'a> {
    store: &'a Blocking,
    /// Digests of the layout's files, by path within it.
    files: BTreeMap<&'a str, Digest>,
}

impl<'a> OutputLayout<'a> {
    /// Errors: why there is none, in words.
    fn find(store: &'a Blocking, outputs: &'a Outputs) -> Result<Self, String> {
        let files = &outputs.files;
        let root = |it: &'a OutputFile| it.path.strip_suffix(LAYOUT_FILE);
        let roots: Vec<_> = files.iter().filter_map(root).filter(|it| it.ends_with('/')).collect();
        let [root] = roots.as_slice() else {
            return Err(match roots.len() {
                0 => format!("no output is called {LAYOUT_FILE}"),
                several => format!("there are {several}; name one with --output"),
            });
        };
        let below = |it: &'a OutputFile| Some((it.path.strip_prefix(root)?, it.digest));
        let mut found: BTreeMap<_, _> = files.iter().filter_map(below).collect();
        if found.len() < files.len() {
            return Err("there are other outputs beside it; name it with --output".to_owned());
        }
        // Blobs may be links to others of them.
        for it in &outputs.nodes {
            let Some((path, target)) = it.path.strip_prefix(root).zip(it.target.as_deref()) else {
                continue;
            };
            let leads_to = led_to(path, target).and_then(|it| found.get(it.as_str()).copied());
            if let Some(digest) = leads_to {
                found.entry(path).or_insert(digest);
            }
        }
        Ok(Self { store, files: found })
    }

    fn digest_at(&self, path: &str) -> io::Result<Digest> {
        self.files.get(path).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn digest_of(&self, digest: &ContentDigest) -> io::Result<Digest> {
        self.digest_at(&format!("blobs/{}/{}", digest.algorithm().name(), digest.hex()))
    }
}

impl Layout for OutputLayout<'_> {
    fn file(&self, name: &str, limit: usize) -> io::Result<Vec<u8>> {
        let digest = self.digest_at(name)?;
        let limit = MAX_FILE.min(limit as u64);
        Ok(self.store.read(&digest, limit).map_err(io::Error::other)?.into())
    }

    fn blob(&self, digest: &ContentDigest) -> io::Result<Box<dyn Read>> {
        let reader = self.store.open(&self.digest_of(digest)?).map_err(io::Error::other)?;
        Ok(Box::new(reader))
    }
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn paths_do_not_depend_on_configurations() {
        assert_eq!(short("bazel-out/k8-fastbuild/bin/app/server"), "app/server");
        assert_eq!(short("bazel-out/k8-opt-ST-1/bin/a"), "a");
        assert_eq!(short("bazel-out/k8-fastbuild/testlogs/a"), "bazel-out/k8-fastbuild/testlogs/a");
        assert_eq!(short("buck-out/v2/gen/a"), "buck-out/v2/gen/a");
    }
}
