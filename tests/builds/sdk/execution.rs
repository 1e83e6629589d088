//! Calls of Execute as new and as old clients make them, and of WaitExecution.

use kiln_protos::longrunning::operation::Result as Outcome;
use kiln_protos::longrunning::{GetOperationRequest, Operation};
use kiln_protos::reapi;
use kiln_protos::reapi::action_cache_client::ActionCacheClient;
use kiln_protos::reapi::execution_client::ExecutionClient;
use prost::Message;
use tonic::Streaming;

use crate::sdk::house::{Caller, House};

impl Caller {
    pub fn executions(&self) -> ExecutionClient<tonic::transport::Channel> {
        ExecutionClient::new(self.channel.clone())
    }

    /// Uploads the command, its inputs and the action. Returns the request to run it.
    pub async fn action(
        &self,
        command: &reapi::Command,
        inputs: &reapi::Directory,
        platform: Option<reapi::Platform>,
    ) -> reapi::ExecuteRequest {
        let action = reapi::Action {
            command_digest: Some(self.put_message(command).await),
            input_root_digest: Some(self.put_message(inputs).await),
            platform,
            ..Default::default()
        };
        reapi::ExecuteRequest {
            instance_name: self.instance(),
            action_digest: Some(self.put_message(&action).await),
            digest_function: self.number(),
            ..Default::default()
        }
    }

    pub async fn shell(&self, script: &str) -> reapi::ExecuteRequest {
        self.action(&shell(script), &reapi::Directory::default(), None).await
    }

    pub async fn execute(&self, request: reapi::ExecuteRequest) -> Streaming<Operation> {
        self.executions().execute(request).await.unwrap().into_inner()
    }

    pub async fn run(&self, request: reapi::ExecuteRequest) -> reapi::ExecuteResponse {
        response(&mut self.execute(request).await).await
    }
}

pub fn shell(script: &str) -> reapi::Command {
    reapi::Command {
        arguments: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        ..Default::default()
    }
}

pub fn linux() -> Option<reapi::Platform> {
    let property = |(name, value): (&str, &str)| reapi::platform::Property {
        name: name.into(),
        value: value.into(),
    };
    let properties = [("ISA", "x86-64"), ("OSFamily", "linux")].map(property).to_vec();
    Some(reapi::Platform { properties })
}

/// Reads the updates to the end and returns the response that the finished operation holds. Panics if there is none.
pub async fn response(updates: &mut Streaming<Operation>) -> reapi::ExecuteResponse {
    loop {
        let operation = updates.message().await.unwrap().expect("an end that is done");
        if operation.done {
            return of(operation);
        }
        assert!(operation.result.is_none(), "{operation:?}");
    }
}

pub fn of(operation: Operation) -> reapi::ExecuteResponse {
    assert!(operation.done);
    let metadata = metadata(&operation);
    assert_eq!(metadata.stage(), reapi::execution_stage::Value::Completed);
    match operation.result {
        Some(Outcome::Response(any)) => {
            assert!(any.type_url.ends_with("/build.bazel.remote.execution.v2.ExecuteResponse"));
            reapi::ExecuteResponse::decode(any.value.as_slice()).unwrap()
        }
        other => panic!("Operation.error must not be set: {other:?}"),
    }
}

pub fn metadata(operation: &Operation) -> reapi::ExecuteOperationMetadata {
    let any = operation.metadata.as_ref().expect("metadata");
    reapi::ExecuteOperationMetadata::decode(any.value.as_slice()).unwrap()
}

async fn inputs(caller: &Caller) -> reapi::Directory {
    let file = reapi::FileNode {
        name: "in".into(),
        digest: Some(caller.put(b"input of the action\n").await),
        ..Default::default()
    };
    let work = reapi::Directory { files: vec![file], ..Default::default() };
    let node =
        reapi::DirectoryNode { name: "work".into(), digest: Some(caller.put_message(&work).await) };
    reapi::Directory { directories: vec![node], ..Default::default() }
}

const SCRIPT: &str = "cat in > out/file; mkdir -p tree/sub; echo x > tree/sub/x; ln -s out/file link; \
     echo said; echo warned >&2";

#[tokio::test(flavor = "multi_thread")]
async fn new_clients_run_and_hit() {
    let house = House::new().await;
    for caller in house.callers() {
        let command = reapi::Command {
            working_directory: "work".into(),
            output_paths: ["link", "missing", "out/file", "tree"].map(str::to_owned).to_vec(),
            ..shell(SCRIPT)
        };
        let request = caller.action(&command, &inputs(&caller).await, linux()).await;
        let request = reapi::ExecuteRequest {
            inline_stdout: true,
            inline_stderr: true,
            inline_output_files: vec!["out/file".into()],
            ..request
        };
        let ran = caller.run(request.clone()).await;
        assert_eq!((ran.status.clone().unwrap_or_default().code, ran.cached_result), (0, false));
        let result = ran.result.unwrap();
        assert_eq!(result.exit_code, 0);
        assert_eq!(
            (result.stdout_raw.as_slice(), &*result.stderr_raw),
            (&b"said\n"[..], &b"warned\n"[..])
        );
        let [file] = result.output_files.as_slice() else { panic!("{result:?}") };
        assert_eq!(
            (file.path.as_str(), &*file.contents),
            ("out/file", &b"input of the action\n"[..])
        );
        let [tree] = result.output_directories.as_slice() else { panic!("{result:?}") };
        let digest = tree.tree_digest.as_ref().expect("a tree");
        let tree = reapi::Tree::decode(caller.blob(digest).await.as_slice()).unwrap();
        assert_eq!(tree.root.unwrap().directories[0].name, "sub");
        assert_eq!(result.output_symlinks[0].target, "out/file");
        let facts = result.execution_metadata.clone().expect("execution metadata");
        assert!(!facts.worker.is_empty() && facts.worker_completed_timestamp.is_some());

        let again = caller.run(request.clone()).await;
        assert!(again.cached_result);
        assert_eq!(again.result.unwrap().output_files, result.output_files);
        let get = reapi::GetActionResultRequest {
            instance_name: caller.instance(),
            action_digest: request.action_digest,
            digest_function: caller.number(),
            ..Default::default()
        };
        let mut cache = ActionCacheClient::new(house.channel.clone());
        let found = cache.get_action_result(get).await.unwrap().into_inner();
        assert_eq!(found.output_directories, result.output_directories);
    }
}

/// Clients of REAPI 2.0 send no digest function, name files and directories in two lists, and set the platform on the
/// command.
#[tokio::test(flavor = "multi_thread")]
async fn old_clients_run_too() {
    let house = House::new().await;
    let [_, _, caller, _] = house.callers();
    let command = reapi::Command {
        working_directory: "work".into(),
        output_files: ["link", "out/file"].map(str::to_owned).to_vec(),
        output_directories: vec!["tree".into()],
        platform: linux(),
        ..shell(SCRIPT)
    };
    let request = caller.action(&command, &inputs(&caller).await, None).await;
    let result = caller.run(request).await.result.unwrap();
    assert_eq!(result.exit_code, 0, "{result:?}");
    assert_eq!(result.output_files[0].path, "out/file");
    assert_eq!(result.output_file_symlinks[0].path, "link");
    assert_eq!(result.output_directories[0].path, "tree");
    let stdout = result.stdout_digest.expect("not inlined unless asked for");
    assert_eq!(caller.blob(&stdout).await, b"said\n");

    let elsewhere = reapi::Command {
        platform: Some(reapi::Platform {
            properties: vec![reapi::platform::Property {
                name: "kiln-memory".into(),
                value: "plenty".into(),
            }],
        }),
        ..shell("true")
    };
    let request = caller.action(&elsewhere, &reapi::Directory::default(), None).await;
    let status = caller.run(request).await.status.unwrap();
    assert!(status.message.contains("kiln-memory"), "the command's platform counts: {status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_lost_its_connection_waits_on() {
    let house = House::new().await;
    let [_, _, caller, _] = house.callers();
    let mut updates = caller.execute(caller.shell("sleep 1; echo late").await).await;
    let name = updates.message().await.unwrap().unwrap().name;
    drop(updates);
    // WaitExecution works on another connection than the one that began the action.
    let other = crate::support::reapi::Client::connect(&house.server.url()).await;
    let mut client = ExecutionClient::new(other.channel);
    let request = reapi::WaitExecutionRequest { name: name.clone() };
    let mut updates = client.wait_execution(request).await.unwrap().into_inner();
    let ended = response(&mut updates).await;
    assert_eq!(ended.result.unwrap().exit_code, 0);

    let mut operations = caller.operations();
    let get = GetOperationRequest { name };
    let operation = operations.get_operation(get).await.unwrap().into_inner();
    assert_eq!(of(operation).result.unwrap().exit_code, 0);
    let unknown = reapi::WaitExecutionRequest { name: "operations/no".into() };
    let error = client.wait_execution(unknown).await.unwrap_err();
    assert_eq!(error.code(), tonic::Code::NotFound, "clients then execute again");
}
