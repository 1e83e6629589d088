//! ccache stores its own entries in Kiln's HTTP cache, at the paths where Bazel stores results.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::client;
use crate::support::server::{Server, command};

/// Compiles with an empty local cache. Returns the object's bytes and ccache's own counts of its remote cache.
fn compile(ccache: &Path, place: &Path, remote: &str) -> (Vec<u8>, String) {
    let local = place.join("local");
    let _ = std::fs::remove_dir_all(&local);
    let run = |arguments: &[&str]| {
        let remote = format!("{remote}|layout=bazel");
        let output = Command::new(ccache)
            .args(arguments)
            .current_dir(place)
            .env("CCACHE_DIR", &local)
            .env("CCACHE_REMOTE_STORAGE", remote)
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    run(&["cc", "-c", "unit.c", "-o", "unit.o"]);
    let counted = run(&["--print-stats"]);
    let remote = counted.lines().filter(|line| line.starts_with("remote_storage_"));
    let counted = remote.map(|line| line.replace('\t', "=")).collect::<Vec<_>>().join(" ");
    (std::fs::read(place.join("unit.o")).unwrap(), counted)
}

#[test]
fn ccache_finds_its_entries_in_instances_that_are_for_it_and_in_no_others() {
    let usual = PathBuf::from("/usr/bin/ccache");
    let found = if usual.is_file() { Some(usual) } else { client("KILN_CCACHE") };
    let Some(ccache) = found else { return };
    let dir = tempfile::tempdir().unwrap();
    let (place, data) = (dir.path().join("place"), dir.path().join("data"));
    std::fs::create_dir(&place).unwrap();
    std::fs::write(place.join("unit.c"), "int answer(void) { return 42; }\n").unwrap();
    let mut serve = command("127.0.0.1:0", &data, &["--allow-cache-updates", "--workers", "0"]);
    serve.env("KILN_CACHE_OPAQUE_INSTANCES", "team/ccache");
    let server = Server::spawn(serve, &data);

    let opaque = format!("{}/team/ccache", server.url());
    let (first, counted) = compile(&ccache, &place, &opaque);
    assert!(!counted.contains("remote_storage_hit=1"), "{counted}");
    assert!(counted.contains("remote_storage_error=0"), "{counted}");
    let (second, counted) = compile(&ccache, &place, &opaque);
    assert!(counted.contains("remote_storage_hit=1"), "{counted}");
    assert_eq!(first, second);

    let other = format!("{}/team", server.url());
    let (_, counted) = compile(&ccache, &place, &other);
    assert!(counted.contains("remote_storage_error=1"), "results alone: {counted}");
}
