//! Image layouts, whole and broken.

use std::path::Path;

use super::super::{
    ContentDigest, Descriptor, DirectoryLayout, EMPTY_CONFIG, EMPTY_TYPE, INDEX_TYPE, Index,
    Layout, LayoutError, LayoutLimits, MANIFEST_TYPE, Manifest, check_layout,
};

struct Made {
    directory: tempfile::TempDir,
}

impl Made {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let made = Self { directory };
        made.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        made
    }

    fn root(&self) -> &Path {
        self.directory.path()
    }

    fn layout(&self) -> DirectoryLayout {
        DirectoryLayout::new(self.root())
    }

    fn file(&self, name: &str, data: &[u8]) {
        let path = self.root().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, data).unwrap();
    }

    fn blob(&self, media_type: &str, data: &[u8]) -> Descriptor {
        let descriptor = Descriptor::of(media_type, data);
        self.file(&format!("blobs/sha256/{}", descriptor.digest.hex()), data);
        descriptor
    }

    fn path(&self, digest: &ContentDigest) -> std::path::PathBuf {
        self.layout().blob_path(digest)
    }

    fn index(&self, manifests: Vec<Descriptor>) {
        self.file("index.json", &Index::new(manifests).write().unwrap());
    }

    /// A manifest with one layer, and the layer.
    fn manifest(&self, layer: &str) -> (Descriptor, Descriptor) {
        let config = self.blob(EMPTY_TYPE, EMPTY_CONFIG);
        let layer = self.blob("text/plain", layer.as_bytes());
        let manifest = Manifest::image(config, vec![layer.clone()]);
        (self.blob(MANIFEST_TYPE, &manifest.write().unwrap()), layer)
    }

    fn check(&self) -> Result<super::super::CheckedLayout, LayoutError> {
        check_layout(&self.layout(), LayoutLimits::default())
    }
}

fn made() -> (Made, Descriptor, Descriptor) {
    let made = Made::new();
    let (manifest, layer) = made.manifest("layer");
    made.index(vec![manifest.clone()]);
    (made, manifest, layer)
}

#[test]
fn everything_that_the_index_leads_to_is_verified() {
    let made = Made::new();
    let (one, _) = made.manifest("one");
    let (two, _) = made.manifest("two");
    let inner = made.blob(INDEX_TYPE, &Index::new(vec![one.clone(), two]).write().unwrap());
    made.index(vec![inner, one]);
    let checked = made.check().unwrap();
    assert_eq!((checked.documents.len(), checked.blobs.len()), (3, 3));
}

#[test]
fn a_blob_that_is_gone_changed_or_longer_is_found() {
    let (made, _, layer) = made();
    let path = made.path(&layer.digest);
    assert!(made.check().is_ok());
    std::fs::write(&path, "loyer").unwrap();
    assert!(
        matches!(made.check(), Err(LayoutError::Changed { digest, .. }) if digest == layer.digest)
    );
    for other in ["laye", "layers"] {
        std::fs::write(&path, other).unwrap();
        assert!(matches!(made.check(), Err(LayoutError::Size { expected: 5, .. })), "{other}");
    }
    std::fs::remove_file(&path).unwrap();
    assert!(
        matches!(made.check(), Err(LayoutError::Blob { digest, .. }) if digest == layer.digest)
    );
    std::fs::create_dir(&path).unwrap();
    assert!(matches!(made.check(), Err(LayoutError::Blob { .. })));
}

#[test]
fn a_manifest_that_was_changed_is_found() {
    let (made, manifest, _) = made();
    let path = made.path(&manifest.digest);
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("text/plain", "text/plein")).unwrap();
    assert!(matches!(made.check(), Err(LayoutError::Changed { .. })));
}

#[test]
fn the_same_content_described_in_two_ways_is_verified_twice() {
    let (made, manifest, layer) = made();
    let mut wrong = manifest.clone();
    wrong.size += 1;
    made.index(vec![manifest.clone(), wrong]);
    assert!(matches!(made.check(), Err(LayoutError::Size { .. })));
    let mut other = layer;
    other.media_type = MANIFEST_TYPE.to_owned();
    made.index(vec![manifest, other]);
    assert!(matches!(made.check(), Err(LayoutError::Document { .. })));
}

#[test]
fn a_directory_that_is_no_layout_says_so() {
    let (made, ..) = made();
    made.file("oci-layout", br#"{"imageLayoutVersion":"2.0.0"}"#);
    assert!(matches!(made.check(), Err(LayoutError::Version(_))));
    std::fs::remove_file(made.root().join("oci-layout")).unwrap();
    assert!(matches!(made.check(), Err(LayoutError::File { name, .. }) if name == "oci-layout"));
}

#[test]
fn an_index_leads_only_so_far() {
    let (made, manifest, _) = made();
    let mut inner = manifest;
    for _ in 0..10 {
        inner = made.blob(INDEX_TYPE, &Index::new(vec![inner]).write().unwrap());
    }
    made.index(vec![inner]);
    assert!(matches!(made.check(), Err(LayoutError::TooDeep(_, 8))));
    let few = LayoutLimits { documents: 3, ..LayoutLimits::default() };
    let checked = check_layout(&made.layout(), few);
    assert!(matches!(checked, Err(LayoutError::TooMany(3, _))));
}

#[test]
fn what_others_have_by_licence_may_be_away() {
    let made = Made::new();
    let config = made.blob(EMPTY_TYPE, EMPTY_CONFIG);
    let mut layer = Descriptor::of("application/vnd.oci.image.layer.nondistributable.v1.tar", b"x");
    layer.urls.push("https://layers.example/x".to_owned());
    let manifest = Manifest::image(config, vec![layer]).write().unwrap();
    let manifest = made.blob(MANIFEST_TYPE, &manifest);
    made.index(vec![manifest]);
    assert!(made.check().is_ok());
}

#[test]
fn an_index_that_is_too_large_is_not_read() {
    let (made, ..) = made();
    let file = std::fs::File::create(made.root().join("index.json")).unwrap();
    // A gigabyte of nothing.
    file.set_len(1 << 30).unwrap();
    assert!(made.layout().file("index.json", 1000).is_err());
    assert!(matches!(made.check(), Err(LayoutError::File { name, .. }) if name == "index.json"));
}
