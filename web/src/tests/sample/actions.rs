//! An action that failed, with its blobs.

use super::*;

pub async fn put(state: &WebState, data: Vec<u8>) -> Digest {
    let digest = FUNCTION.digest(&data);
    state.blobs.write(&digest, Bytes::from(data)).await.expect("the store has room");
    digest
}

pub async fn file(state: &WebState, name: &str, text: &str) -> reapi::FileNode {
    let digest = put(state, text.as_bytes().to_vec()).await;
    reapi::FileNode {
        name: name.to_owned(),
        digest: Some(digest.to_wire()),
        is_executable: name.ends_with(".sh"),
        node_properties: None,
    }
}

pub async fn input_root(state: &WebState, source: &str) -> Digest {
    let directory = reapi::Directory {
        files: vec![
            file(state, "log.cc", source).await,
            file(state, "log.h", "#pragma once\nvoid append(const char*);\n").await,
            file(state, "log_test.cc", "#include \"log.h\"\nint main() { append(0); }\n").await,
        ],
        ..Default::default()
    };
    let storage = put(state, directory.encode_to_vec()).await;
    let root = reapi::Directory {
        files: vec![file(state, "WORKSPACE", "workspace(name = \"example\")\n").await],
        directories: vec![reapi::DirectoryNode {
            name: "storage".into(),
            digest: Some(storage.to_wire()),
        }],
        symlinks: vec![reapi::SymlinkNode {
            name: "external".into(),
            target: "../external".into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    put(state, root.encode_to_vec()).await
}

/// Two runs of one target with different inputs, the second of which failed.
pub async fn failed_action(
    state: &WebState,
    events: &Events,
    earlier: &str,
    invocation: &str,
) -> (Digest, String) {
    let (_, first) = action(state, "int append_count = 0;\n", "-O2").await;
    let (result, second) = action(state, "int append_count = 1;\n", "-O1").await;
    let finished = now() - 14 * SECOND;
    let runs = [(&first, 0, finished - 600 * SECOND, earlier), (&second, 1, finished, invocation)];
    for (number, (digests, exit_code, at, invocation)) in runs.into_iter().enumerate() {
        let wire =
            |digest: &Digest| events::Digest { hash: digest.hex(), size_bytes: digest.size as i64 };
        events.publish(Execution {
            id: format!("operations/failed-{number}"),
            origin: Origin::Executed.into(),
            digest_function: 1,
            action: Some(wire(&digests[0])),
            command: Some(wire(&digests[1])),
            input_root: Some(wire(&digests[2])),
            invocation_id: invocation.to_owned(),
            target_id: "//storage/log:log_test".into(),
            mnemonic: "TestRunner".into(),
            configuration_id: "k8-fastbuild".into(),
            tool_name: "bazel".into(),
            tool_version: "8.4.2".into(),
            worker: "kiln-worker-2".into(),
            attempts: 1,
            exit_code,
            expected_ms: 2_900,
            timeline: Some(Timeline {
                received: at - 4_213 * MS,
                queued: at - 4_212 * MS,
                leased: at - 3_600 * MS,
                input_fetch_start: at - 3_599 * MS,
                input_fetch_end: at - 3_410 * MS,
                run_start: at - 3_400 * MS,
                run_end: at - 160 * MS,
                upload_start: at - 159 * MS,
                upload_end: at - 20 * MS,
                finished: at,
            }),
            action_result: result.encode_to_vec().into(),
            ..Execution::default()
        });
    }
    let key = ActionKey { instance: "".into(), action: first[0] };
    state.actions.put(&key, result.encode_to_vec().into()).await.expect("the cache has room");
    (second[0], "operations/failed-1".to_owned())
}

pub async fn action(
    state: &WebState,
    source: &str,
    level: &str,
) -> (reapi::ActionResult, [Digest; 3]) {
    let variable = |name: &str, value: &str| reapi::command::EnvironmentVariable {
        name: name.into(),
        value: value.into(),
    };
    let command = reapi::Command {
        arguments: [
            "external/bazel_tools/tools/test/test-setup.sh",
            "storage/log/log_test",
            level,
            "-fdiagnostics-color",
            "--gtest_filter=Log.*:-Log.Slow*",
            "--name=it's <b>quoted</b>",
        ]
        .map(Into::into)
        .to_vec(),
        environment_variables: vec![
            variable("PATH", "/bin:/usr/bin"),
            variable("TEST_TIMEOUT", "300"),
            variable("TZ", "UTC"),
        ],
        output_paths: vec!["test.log".into(), "test.outputs".into(), "test.xml".into()],
        ..Default::default()
    };
    let command = put(state, command.encode_to_vec()).await;
    let root = input_root(state, source).await;
    let action = reapi::Action {
        command_digest: Some(command.to_wire()),
        input_root_digest: Some(root.to_wire()),
        platform: Some(reapi::Platform {
            properties: vec![reapi::platform::Property {
                name: "OSFamily".into(),
                value: "linux".into(),
            }],
        }),
        ..Default::default()
    };
    let action = put(state, action.encode_to_vec()).await;
    (result(state).await, [action, command, root])
}

pub async fn result(state: &WebState) -> reapi::ActionResult {
    let log = "[==========] Running 3 tests from 1 test suite.\n[ RUN      ] Log.AppendsInOrder\n\
        storage/log/log_test.cc:42: Failure\nExpected equality of these values:\n  reader.next()\n    \
        Which is: <script>alert(1)</script>\n  \"second\"\n\u{1b}[0;31m[  FAILED  ]\u{1b}[m Log.AppendsInOrder (812 ms)\n";
    let log = put(state, log.as_bytes().to_vec()).await;
    let tree = reapi::Tree {
        root: Some(reapi::Directory {
            files: vec![file(state, "core.txt", "nothing\n").await],
            ..Default::default()
        }),
        children: Vec::new(),
    };
    let tree = put(state, tree.encode_to_vec()).await;
    reapi::ActionResult {
        output_files: vec![reapi::OutputFile {
            path: "test.log".into(),
            digest: Some(log.to_wire()),
            ..Default::default()
        }],
        output_directories: vec![reapi::OutputDirectory {
            path: "test.outputs".into(),
            tree_digest: Some(tree.to_wire()),
            ..Default::default()
        }],
        exit_code: 1,
        stdout_digest: Some(log.to_wire()),
        stderr_raw: b"external/bazel_tools/tools/test/test-setup.sh: exit 1\n".as_slice().into(),
        ..Default::default()
    }
}
