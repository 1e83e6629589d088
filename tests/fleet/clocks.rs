//! Machines whose clocks differ: a library between each process and the kernel tells the process another time.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::rig::{Shared, Worker, await_status, count};
use crate::support::balancer::Balancer;
use crate::support::bazel::Bazel;
use crate::support::client;
use crate::support::reapi::Client;

/// The source of a library that adds `CLOCK_AHEAD` seconds to the clock of a process.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, time);
    const char *ahead = getenv("CLOCK_AHEAD");
    if (result == 0 && clock == CLOCK_REALTIME && ahead) time->tv_sec += atol(ahead);
    return result;
}
"#;

fn shim(directory: &Path) -> PathBuf {
    let (source, library) = (directory.join("clock.c"), directory.join("clock.so"));
    std::fs::write(&source, SHIM).unwrap();
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).arg("-ldl");
    assert!(cc.status().expect("a C compiler").success());
    library
}

fn set_clock(command: &mut Command, shim: &Path, ahead: &str) {
    command.env("LD_PRELOAD", shim).env("CLOCK_AHEAD", ahead);
}

#[test]
fn a_build_does_not_depend_on_the_clocks_of_machines() {
    let (Some(binary), Some(shared)) = (client("KILN_BAZEL"), Shared::start()) else { return };
    let shim = shim(shared.dir.path());
    let frontends: Vec<_> = [("slow", "-600"), ("fast", "600")]
        .iter()
        .map(|(name, ahead)| {
            let mut command = shared.command(name, &["--workers", "0"]);
            set_clock(&mut command, &shim, ahead);
            shared.spawn(command, name)
        })
        .collect();
    let backends = frontends.iter().map(|server| server.address.clone()).collect();
    let balancer = Balancer::start(backends);
    let _workers = [("early", "-7200"), ("late", "7200")].map(|(name, ahead)| {
        let preload = shim.to_str().unwrap();
        let clock = [("LD_PRELOAD", preload), ("CLOCK_AHEAD", ahead)];
        Worker::start(&balancer.url(), &shared.dir.path().join(name), name, &clock)
    });
    await_status(&frontends[0].address, "both workers", |status| count(status, "/workers") == 2);
    let bazel = Bazel::new(binary, "tests/workspace");
    let build = ["build", "//cpp:all", "//links/...", "//paths/..."];
    let first = bazel.remote(&balancer.address, &build).expect_success();
    assert!(first.processes("remote") > 5, "{}", first.text);
    for frontend in &frontends {
        bazel.clean();
        let again = bazel.remote(&frontend.address, &build).expect_success();
        assert_eq!(again.processes("remote"), 0, "{}", again.text);
    }
    let counter = |name: &str| {
        let value = shared.redis.command(&["HGET", "{kiln:queue}:m", name]);
        value.parse::<u64>().unwrap_or(0)
    };
    for name in ["c.retries", "c.workers_lost", "c.leases_expired", "c.stale_results"] {
        assert_eq!(counter(name), 0, "{name}");
    }
}

/// S3 refuses a request whose time differs from its own by a quarter of an hour. Its answer names its own time, and
/// the client uses that from then on.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_s3_does_not_accept_is_corrected() {
    let Some(shared) = Shared::start() else { return };
    let shim = shim(shared.dir.path());
    for (name, ahead) in [("early", "-7200"), ("late", "7200")] {
        let mut command = shared.command(name, &["--workers", "0"]);
        set_clock(&mut command, &shim, ahead);
        let server = shared.spawn(command, name);
        let client = Client::connect(&server.url()).await;
        let data: Vec<u8> = name.bytes().cycle().take(200_000).collect();
        let digest = client.put(&data).await;
        assert_eq!(client.read(&digest).await, data);
    }
    // Another frontend, with an empty disk, reads what the first one has stored, so that is in S3.
    let data: Vec<u8> = "early".bytes().cycle().take(200_000).collect();
    let other = shared.frontend("two");
    let client = Client::connect(&other.url()).await;
    let digest = client.put(&data).await;
    assert_eq!(client.read(&digest).await, data);
}
