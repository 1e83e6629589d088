//! Action and Command messages: what a worker is ready to run stays within its root.
#![no_main]

use std::path::{Component, Path};
use std::time::Duration;

use bytes::Bytes;
use kiln_cas::DigestFunction;
use kiln_cas::action::Action;
use kiln_executor::command::prepare;
use kiln_executor::platform::Wishes;
use kiln_executor::{WorkerConfig, paths};
use kiln_protos::reapi;
use libfuzzer_sys::fuzz_target;
use prost::Message;

fn stays_inside(path: &str) {
    assert!(Path::new(path).components().all(|part| matches!(part, Component::Normal(_))));
    assert!(!path.contains('\0'));
}

fn prepared(action: &Action, command: reapi::Command) {
    let config = WorkerConfig::new("fuzz", "/nowhere", 1);
    let Ok(prepared) = prepare(action, command, Duration::from_secs(1), &config) else { return };
    stays_inside(&prepared.spec.working_directory);
    prepared.spec.directories.iter().for_each(|path| stays_inside(path));
    prepared.outputs.expected.iter().for_each(|output| stays_inside(&output.path));
    assert!(prepared.spec.arguments.iter().all(|argument| !argument.contains(&0)));
}

// The first byte says where the action ends and the command begins.
fuzz_target!(|data: &[u8]| {
    let Some((&cut, data)) = data.split_first() else { return };
    let (first, second) = data.split_at(usize::from(cut).min(data.len()));
    let digest = DigestFunction::Sha256.digest(b"");
    let (timeout, platform) = Default::default();
    let mut action =
        Action { command: digest, input_root: digest, timeout, platform, do_not_cache: false };
    if let Ok(decoded) = Action::decode(Bytes::copy_from_slice(first), &digest) {
        action = decoded;
    }
    if let Ok(command) = reapi::Command::decode(second) {
        prepared(&action, command);
    }
    if let Ok(platform) = reapi::Platform::decode(data) {
        let _ = Wishes::of(Some(&platform));
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let (base, path) = text.split_once('\n').unwrap_or(("", text));
        if let Ok(base) = paths::resolve("", base)
            && let Ok(path) = paths::resolve(&base, path)
        {
            stays_inside(&path);
        }
        let property =
            reapi::platform::Property { name: "kiln-memory".into(), value: text.to_owned() };
        let _ = Wishes::of(Some(&reapi::Platform { properties: vec![property] }));
    }
});
