//! A disk that fills while a release is made.

use std::sync::Arc;

use super::rig::House;
use super::store::Failing;

#[tokio::test]
async fn a_disk_that_fills_leaves_no_half_release() {
    let mut finished = false;
    for room in 0..100 {
        let house = House::start().await;
        house.build("one", "1").await;
        let filling = Failing::with_room(house.rig.blobs.clone(), room);
        let full = house.over_blobs(Arc::new(filling));
        if full.create("team/app:1.0", "one").await.is_ok() {
            finished = room > 5;
            break;
        }
        assert!(house.names().await.is_empty(), "after {room} blobs");
        // Once there is room again, the same release is made.
        house.create("team/app:1.0", "one").await.unwrap();
        assert_eq!(house.names().await, ["team/app:1.0"]);
    }
    assert!(finished, "it takes some blobs, and no more than that");
}
