//! What a client can do while an action runs: read its output, look at its state, and cancel it.

use kiln_protos::bytestream::ReadRequest;
use kiln_protos::longrunning::operations_client::OperationsClient;
use kiln_protos::longrunning::{
    CancelOperationRequest, DeleteOperationRequest, GetOperationRequest, ListOperationsRequest,
    Operation, WaitOperationRequest,
};
use kiln_protos::{protobuf, reapi};
use tonic::transport::Channel;
use tonic::{Code, Streaming};

use crate::sdk::execution::{metadata, of, response};
use crate::sdk::house::{Caller, House};

impl Caller {
    pub fn operations(&self) -> OperationsClient<Channel> {
        OperationsClient::new(self.channel.clone())
    }
}

async fn until_executing(updates: &mut Streaming<Operation>) -> Operation {
    loop {
        let operation = updates.message().await.unwrap().expect("the operation goes on");
        assert!(!operation.done, "{operation:?}");
        if metadata(&operation).stage() == reapi::execution_stage::Value::Executing {
            return operation;
        }
    }
}

/// The action prints a line and then hangs, so a client sees the line only if it reads while the action runs.
#[tokio::test(flavor = "multi_thread")]
async fn output_is_read_while_the_action_runs_and_a_cancelled_action_ends() {
    let house = House::new().await;
    for caller in house.callers() {
        let request = caller.shell("echo first; echo wrong >&2; sleep 600").await;
        let mut updates = caller.execute(request).await;
        let running = until_executing(&mut updates).await;
        let streams = metadata(&running);
        let mut stdout = live(&caller, &streams.stdout_stream_name).await;
        assert_eq!(line(&mut stdout).await, "first\n");
        let mut stderr = live(&caller, &streams.stderr_stream_name).await;
        assert_eq!(line(&mut stderr).await, "wrong\n");

        let name = running.name;
        let mut operations = caller.operations();
        let get = GetOperationRequest { name: name.clone() };
        let seen = operations.get_operation(get.clone()).await.unwrap().into_inner();
        assert!(!seen.done);
        let parent = match caller.instance {
            "" => "operations".to_owned(),
            instance => format!("{instance}/operations"),
        };
        let list = ListOperationsRequest {
            name: parent,
            filter: "stage=EXECUTING".into(),
            ..Default::default()
        };
        let listed = operations.list_operations(list).await.unwrap().into_inner().operations;
        assert!(listed.iter().any(|operation| operation.name == name), "{listed:?}");
        let soon = Some(protobuf::Duration { seconds: 0, nanos: 50_000_000 });
        let wait = WaitOperationRequest { name: name.clone(), timeout: soon };
        let waited = operations.wait_operation(wait).await.unwrap().into_inner();
        assert!(!waited.done, "the time was over first");

        let second = reapi::WaitExecutionRequest { name: name.clone() };
        let mut second = caller.executions().wait_execution(second).await.unwrap().into_inner();
        let cancel = CancelOperationRequest { name: name.clone() };
        operations.cancel_operation(cancel).await.unwrap();
        for updates in [&mut updates, &mut second] {
            let status = response(updates).await.status.expect("a status");
            assert_eq!(status.code, Code::Cancelled as i32, "{status:?}");
        }
        while stdout.message().await.unwrap().is_some() {}
        while stderr.message().await.unwrap().is_some() {}

        let done = operations.get_operation(get.clone()).await.unwrap().into_inner();
        assert_eq!(of(done).status.unwrap().code, Code::Cancelled as i32);
        operations.delete_operation(DeleteOperationRequest { name }).await.unwrap();
        let gone = operations.get_operation(get).await.unwrap_err();
        assert_eq!(gone.code(), Code::NotFound);
    }
}

async fn live(caller: &Caller, name: &str) -> Streaming<kiln_protos::bytestream::ReadResponse> {
    assert!(name.contains("logstreams/"), "{name:?}");
    let request = ReadRequest { resource_name: name.to_owned(), ..Default::default() };
    caller.byte_stream().read(request).await.unwrap().into_inner()
}

async fn line(stream: &mut Streaming<kiln_protos::bytestream::ReadResponse>) -> String {
    let mut text = String::new();
    while !text.ends_with('\n') {
        let chunk = stream.message().await.unwrap().expect("the log goes on");
        text.push_str(std::str::from_utf8(&chunk.data).unwrap());
    }
    text
}
