//! Images over the life of a worker, and of the one after it.

use std::sync::Arc;

use kiln_executor::images::{ImageLimits, Images, ImagesConfig};

use crate::build::{Item, TestImage};
use crate::registry::TestRegistry;
use crate::{House, config, read};

#[tokio::test(flavor = "multi_thread")]
async fn images_survive_their_worker_and_half_ones_do_not() {
    let image = TestImage::simple(vec![Item::file("file", "content")]);
    let registry = TestRegistry::of(&image).await;
    let house = House::open();
    let first = house.get(&registry.name(&image)).await.unwrap();
    let half = house.dir.path().join("unfinished/half");
    std::fs::create_dir_all(half.join("root")).unwrap();
    let foreign = house.dir.path().join(format!("{}-foreign", "a".repeat(64)));
    std::fs::create_dir_all(foreign.join("root")).unwrap();
    let House { dir, images } = house;
    drop((first, images));

    let again = Arc::new(Images::open(dir.path(), config(&["*"]), Arc::default()).unwrap());
    assert!(!half.exists() && !foreign.exists());
    let requests = registry.asked().len();
    let found = again.get(&registry.name(&image).parse().unwrap()).await.unwrap();
    assert_eq!(read(&found, "file"), "content");
    assert_eq!(found.environment.len(), 2);
    assert_eq!(registry.asked().len(), requests, "nothing is fetched again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_store_forgets_what_nobody_uses_and_never_its_place() {
    let image = |number: usize| {
        TestImage::simple(vec![Item::file(
            &format!("file-{number}"),
            &number.to_string().repeat(60_000),
        )])
    };
    let images: Vec<TestImage> = (1..4).map(image).collect();
    let mut registries = Vec::new();
    for image in &images {
        registries.push(TestRegistry::of(image).await);
    }
    let limits = ImageLimits { bytes: 160_000, ..ImageLimits::default() };
    let house = House::new(ImagesConfig { limits, ..config(&["*"]) });
    let name = |number: usize| registries[number].name(&images[number]);
    let used = house.get(&name(0)).await.unwrap();
    let idle = house.get(&name(1)).await.unwrap();
    let root = idle.root();
    drop(idle);
    house.get(&name(2)).await.unwrap();
    assert!(!root.exists(), "the idle one made room");
    assert!(used.root().join("file-1").exists(), "the used one did not");
    let again = house.get(&name(1)).await.unwrap();
    assert_ne!(again.root(), root, "a sandbox may still have the old one mounted");
    assert_eq!(registries[1].count("/manifests/"), 2);
}
