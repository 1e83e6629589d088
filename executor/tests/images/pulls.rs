//! Images pulled from well-behaved registries and layouts.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use kiln_executor::images::{ImageLimits, ImagesConfig, Problem};

use crate::build::{Item, Packing, TestImage};
use crate::registry::{RegistryResponse, TestRegistry, from_blobs};
use crate::{House, config, read};

fn three_layers() -> TestImage {
    let lower = vec![
        Item::directory("usr/bin/"),
        Item::file("usr/bin/tool", "old").mode(0o4750),
        Item::symlink("bin", "usr/bin"),
        Item::file("etc/gone", "x"),
        Item::file("var/cache/a", "x"),
        Item::device("dev/null"),
    ];
    let middle =
        vec![Item::file("bin/tool", "new").mode(0o700), Item::link("bin/other", "/bin/tool")];
    let upper = vec![
        Item::file("etc/.wh.gone", ""),
        Item::file("var/cache/.wh..wh..opq", ""),
        Item::file("var/cache/b", "y"),
    ];
    TestImage::new(&[(Packing::Gzip, lower), (Packing::Zstd, middle), (Packing::Tar, upper)])
}

fn assert_three_layers(image: &kiln_executor::images::Image) {
    assert_eq!(read(image, "usr/bin/tool"), "new");
    let tool = image.root().join("usr/bin/tool").metadata().unwrap();
    assert_eq!(tool.permissions().mode() & 0o7777, 0o755, "for everybody, and nothing more");
    assert_eq!(tool.ino(), image.root().join("usr/bin/other").metadata().unwrap().ino());
    assert_eq!(tool.mtime(), 1_000_000_000);
    assert_eq!(image.root().join("bin").read_link().unwrap().to_str(), Some("usr/bin"));
    for gone in ["etc/gone", "var/cache/a", "dev/null", "etc/.wh.gone"] {
        assert!(!image.root().join(gone).exists(), "{gone}");
    }
    assert_eq!(read(image, "var/cache/b"), "y");
    assert_eq!(read(image, "etc/hosts"), "", "a place for the sandbox's own");
    assert_eq!(image.environment[1], ("OF_IMAGE".to_owned(), "yes".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn layers_of_all_kinds_come_from_a_registry_once() {
    let image = three_layers().indexed();
    let registry = TestRegistry::of(&image).await;
    let house = House::open();
    let pulled = house.get(&registry.name(&image)).await.unwrap();
    assert_three_layers(&pulled);
    let requests = registry.asked().len();
    assert_eq!(
        requests,
        2 + 1 + 3,
        "index, manifest, configuration, layers: {:?}",
        registry.asked()
    );
    assert!(registry.asked().iter().all(|asked| asked.authorization.is_none()));
    let again = house.get(&registry.name(&image)).await.unwrap();
    assert_eq!(again.root(), pulled.root());
    assert_eq!(registry.asked().len(), requests);
    let figures = house.images.stats().figures();
    assert_eq!((figures.pulled, figures.hits, figures.stored), (1, 1, 1));
    let layers: u64 = image.layers.iter().map(|layer| image.blobs[layer].len() as u64).sum();
    assert_eq!(figures.fetched_bytes, layers);
    assert!(figures.stored_bytes > 0 && !figures.pull_time.is_zero());
    house.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_on_this_machine_will_do() {
    let image = three_layers().indexed();
    let layouts = tempfile::tempdir().unwrap();
    image.write_layout(&layouts.path().join("tools"));
    let house = House::new(config(&[&format!("oci:{}", layouts.path().display())]));
    let name =
        |path: &str| format!("oci:{}/{path}@sha256:{}", layouts.path().display(), image.digest);
    let absent = house.get(&name("others")).await.unwrap_err();
    assert!(matches!(&absent, Problem::Final(text) if text.contains("others")), "{absent}");
    assert_three_layers(&house.get(&name("tools")).await.unwrap());

    let blob = layouts.path().join("tools/blobs/sha256").join(&image.layers[1]);
    std::fs::write(&blob, "x".repeat(image.blobs[&image.layers[1]].len())).unwrap();
    let house = House::new(config(&[&format!("oci:{}", layouts.path().display())]));
    let wrong = house.get(&name("tools")).await.unwrap_err();
    assert!(matches!(&wrong, Problem::Final(text) if text.contains("other bytes")), "{wrong}");
    house.assert_clean();
}

/// The outcomes of twenty requests for the image, all made before the registry answers the first
/// time.
async fn together(house: &House, image: &TestImage, known: bool) -> Vec<Result<PathBuf, Problem>> {
    let gate = Arc::new(std::sync::Barrier::new(2));
    let (blobs, closed) = (image.blobs.clone(), gate.clone());
    let registry = TestRegistry::start(move |asked| {
        if asked.path.contains("/manifests/") && asked.time == 1 {
            closed.wait();
        }
        if known { from_blobs(&blobs, asked) } else { RegistryResponse::status(404) }
    })
    .await;
    let name = registry.name(image);
    let mut all: Vec<_> = (0..20).map(|_| Box::pin(house.get(&name))).collect();
    for request in &mut all {
        assert!(futures_util::poll!(request).is_pending());
    }
    let open = tokio::task::spawn_blocking(move || gate.wait());
    let all = futures_util::future::join_all(all).await;
    open.await.unwrap();
    assert_eq!(registry.count("/manifests/"), 1);
    all.into_iter().map(|outcome| outcome.map(|image| image.root())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn requests_at_the_same_time_share_one_pull_and_its_end() {
    let (house, image) = (House::open(), three_layers());
    let roots = together(&house, &image, true).await;
    assert!(roots.iter().all(|root| root.is_ok() && root == &roots[0]));
    let house = House::open();
    let refusals = together(&house, &image, false).await;
    assert!(refusals.iter().all(|outcome| matches!(outcome, Err(Problem::Final(_)))));
    assert_eq!(house.images.stats().figures().refused, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pull_goes_on_while_somebody_waits_and_ends_with_the_last() {
    let image = three_layers();
    let (blobs, config_blob) = (image.blobs.clone(), image.config.clone());
    let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel();
    let registry = TestRegistry::start(move |asked| {
        let mut answer = from_blobs(&blobs, asked);
        if asked.path.contains(&config_blob) && asked.time == 1 {
            answer.stall = Some(0);
            begun.send(()).unwrap();
        }
        answer
    })
    .await;
    let mut config = config(&["*"]);
    config.timing.idle = std::time::Duration::from_secs(600);
    let house = House::new(config);
    let name = registry.name(&image);
    let waiting = Box::pin(house.get(&name));
    tokio::select! {
        _ = waiting => panic!("nothing can have come"),
        _ = begins.recv() => {}
    }
    // The one who waited is gone, and so is the pull: the next one begins anew and is answered.
    assert_three_layers(&house.get(&name).await.unwrap());
    assert_eq!(registry.count("/manifests/"), 2);
    let figures = house.images.stats().figures();
    assert_eq!((figures.cancelled, figures.pulled), (1, 1));
    house.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_allowed_is_not_even_asked_for() {
    let image = three_layers();
    let registry = TestRegistry::of(&image).await;
    let house = House::new(config(&["registry.example", "oci:/srv"]));
    let error = house.get(&registry.name(&image)).await.unwrap_err();
    assert!(matches!(error, Problem::Final(_)));
    let text = error.to_string();
    assert!(text.contains(&registry.name(&image)) && text.contains("images.allow"), "{text}");
    assert!(registry.asked().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_no_larger_than_the_store() {
    let large = "x".repeat(200_000);
    let image = TestImage::simple(vec![Item::file("a", &large), Item::file("b", &large)]);
    let registry = TestRegistry::of(&image).await;
    let within = |bytes, entries| {
        House::new(ImagesConfig { limits: ImageLimits { bytes, entries }, ..config(&["*"]) })
    };
    for (bytes, entries, said) in [
        (300_000, 100, "images.max_size"),
        (100, 100, "images.max_size"),
        (1 << 20, 1, "too many entries"),
    ] {
        let house = within(bytes, entries);
        let error = house.get(&registry.name(&image)).await.unwrap_err();
        assert!(matches!(&error, Problem::Final(text) if text.contains(said)), "{error}");
        house.assert_clean();
    }
    assert!(within(1 << 20, 2).get(&registry.name(&image)).await.is_ok());
}
