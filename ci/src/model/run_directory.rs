//! What Bazel calls the directory of one of several runs of a test (`--runs_per_test`): `run_2_of_50`, and
//! `shard_1_of_4_run_2_of_50` where the test is sharded too. Bazel before 5 says in no other way which run
//! it is.

use std::borrow::Cow;

/// A path's part that names a run.
struct Named<'a> {
    /// What comes before the number of the run.
    front: &'a str,
    run: u32,
    /// What comes after the number of the run.
    back: &'a str,
}

/// The number of the run that a path belongs to, counted from 1; `None`: the path names none.
pub fn run_in(path: &str) -> Option<u32> {
    path.split('/').find_map(named).map(|it| it.run)
}

/// The path as all runs of the test have it.
pub fn without_run(path: &str) -> Cow<'_, str> {
    if path.split('/').all(|part| named(part).is_none()) {
        return path.into();
    }
    let parts = path.split('/').map(|part| match named(part) {
        Some(Named { front, back, .. }) => format!("{front}N{back}").into(),
        None => Cow::from(part),
    });
    parts.collect::<Vec<_>>().join("/").into()
}

fn named(part: &str) -> Option<Named<'_>> {
    let (shard, numbers) = match part.strip_prefix("run_") {
        Some(numbers) => ("", numbers),
        None => part.split_once("_run_")?,
    };
    let (run, runs) = numbers.split_once("_of_")?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    let is_shard = |text: &str| {
        let numbers = text.strip_prefix("shard_").and_then(|it| it.split_once("_of_"));
        numbers.is_some_and(|(shard, shards)| is_number(shard) && is_number(shards))
    };
    if !is_number(run) || !is_number(runs) || !(shard.is_empty() || is_shard(shard)) {
        return None;
    }
    let front = part.strip_suffix(numbers)?;
    Some(Named { front, run: run.parse().ok()?, back: numbers.strip_prefix(run)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_known_by_their_directories() {
        for (path, run, all) in [
            ("testlogs/a/t/run_2_of_50/test.xml", 2, "testlogs/a/t/run_N_of_50/test.xml"),
            ("t/shard_1_of_4_run_12_of_20/test.log", 12, "t/shard_1_of_4_run_N_of_20/test.log"),
            ("run_1_of_2", 1, "run_N_of_2"),
        ] {
            assert_eq!(run_in(path), Some(run), "{path}");
            assert_eq!(without_run(path), all);
        }
        for path in [
            "",
            "testlogs/a/t/test.xml",
            "t/shard_1_of_4/test.log",
            "run_of_2",
            "run_1_of_",
            "run_1_of_2x",
            "dry_run_1_of_2",
            "shard_x_of_4_run_1_of_2",
            "run_99999999999_of_2",
        ] {
            assert_eq!(run_in(path), None, "{path}");
            assert_eq!(without_run(path), path);
        }
    }
}
