//! Packs of which a fetch left only a part, since it was ended before all was here (`objects/pack/tmp_*`). Git removes such
//! files with what it collects as garbage, which it never does here.

use std::fs::DirEntry;
use std::time::Duration;

use super::repository::Repository;

/// For so long nobody has written to a part that nobody goes on with. Where somebody did, his fetch would fail, and is tried
/// again.
const STALE: Duration = Duration::from_secs(3_600);
/// Most files that are looked at.
const MAX_SEEN: usize = 200_000;

impl Repository {
    /// Removes what was left. That it cannot be is no reason to do nothing.
    pub(super) fn remove_parts(&self) {
        let packs = self.directory().join("objects").join("pack");
        let Ok(entries) = std::fs::read_dir(packs) else { return };
        for entry in entries.take(MAX_SEEN).filter_map(Result::ok).filter(is_left) {
            let path = entry.path();
            if std::fs::remove_file(&path).is_ok() {
                tracing::info!(part = %path.display(), "a fetch left this part of a pack: it is removed");
            }
        }
    }
}

fn is_left(entry: &DirEntry) -> bool {
    let written = entry.metadata().and_then(|it| it.modified());
    let age = written.ok().and_then(|it| it.elapsed().ok());
    entry.file_name().to_string_lossy().starts_with("tmp_") && age.is_some_and(|it| it > STALE)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::SystemTime;

    use super::super::Heads;
    use super::*;
    use crate::queue::{Branch, Commit};

    #[tokio::test]
    async fn parts_of_packs_go_with_the_next_fetch_that_fails() {
        let directory = tempfile::tempdir().unwrap();
        let nowhere = directory.path().join("nowhere.git");
        let clone = directory.path().join("clone");
        let repository = Repository::open(&clone, nowhere.to_str().unwrap()).await.unwrap();
        let packs = repository.directory().join("objects/pack");
        let write = |name: &str, age: Duration| {
            let path = packs.join(name);
            let file = File::create(&path).unwrap();
            file.set_modified(SystemTime::now().checked_sub(age).unwrap()).unwrap();
            path
        };
        let left = write("tmp_pack_a", 2 * STALE);
        let others = [write("tmp_pack_b", Duration::ZERO), write("pack-c.keep", 2 * STALE)];
        let head = Commit::new(&"a".repeat(40)).unwrap();
        repository.fetch(&Heads::from([(Branch::new("one").unwrap(), head)])).await.unwrap_err();
        assert!(!left.exists(), "nobody goes on with it");
        assert!(others.iter().all(|it| it.exists()), "somebody may, and the other one is none");
    }
}
