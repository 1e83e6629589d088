//! Operations: get, list, wait, delete.

use kiln_protos::longrunning::{
    DeleteOperationRequest, GetOperationRequest, ListOperationsRequest, WaitOperationRequest,
};
use kiln_protos::reapi::execution_stage::Value as Stage;
use kiln_scheduler::SchedulerConfig;
use tonic::Code;

use crate::harness::{Kiln, understand};

fn list(name: &str, filter: &str, page_size: i32, page_token: &str) -> ListOperationsRequest {
    ListOperationsRequest {
        name: name.to_owned(),
        filter: filter.to_owned(),
        page_size,
        page_token: page_token.to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn operations_are_listed_by_filter_and_page() {
    let kiln = Kiln::start().await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        let mut client = kiln.execute(&kiln.simple().await).await;
        let name = client.update().await.name;
        clients.push((client, name));
    }
    let mut worker = kiln.worker("w", 1, &[]).await;
    worker.succeed_next().await;
    clients[0].0.until(Stage::Completed).await;
    worker.lease().await;

    let mut operations = kiln.operations();
    let mut found = Vec::new();
    let mut token = String::new();
    loop {
        let page = operations.list_operations(list("main/operations", "", 2, &token)).await;
        let page = page.unwrap().into_inner();
        assert!(page.operations.len() <= 2);
        found.extend(page.operations.into_iter().map(|operation| operation.name));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let names: Vec<_> = clients.iter().map(|(_, name)| name.clone()).collect();
    assert_eq!(found, names);

    for (filter, count) in [
        ("stage=QUEUED", 3),
        ("stage=EXECUTING AND mnemonic=Genrule", 1),
        ("done=true AND target=\"//a:b\"", 1),
        ("invocation=another", 0),
    ] {
        let page = operations.list_operations(list("", filter, 0, "")).await.unwrap().into_inner();
        assert_eq!(page.operations.len(), count, "{filter}");
    }
    let elsewhere = operations.list_operations(list("other/operations", "", 0, "")).await.unwrap();
    assert!(elsewhere.into_inner().operations.is_empty());
    for bad in [
        list("", "colour=red", 0, ""),
        list("", "done=perhaps", 0, ""),
        list("", "", -1, ""),
        list("", "", 0, "x"),
        list("main", "", 0, ""),
    ] {
        let error = operations.list_operations(bad).await.err().unwrap();
        assert_eq!(error.code(), Code::InvalidArgument);
    }
}

#[tokio::test(start_paused = true)]
async fn an_operation_can_be_got_waited_for_and_deleted() {
    let kiln = Kiln::in_memory(SchedulerConfig::default()).await;
    let mut client = kiln.execute(&kiln.simple().await).await;
    let name = client.update().await.name;
    let mut operations = kiln.operations();
    let get = GetOperationRequest { name: name.clone() };
    let operation = operations.get_operation(get.clone()).await.unwrap().into_inner();
    assert_eq!(understand(operation).stage, Stage::Queued);

    let seconds = |seconds| Some(kiln_protos::protobuf::Duration { seconds, nanos: 0 });
    let short = WaitOperationRequest { name: name.clone(), timeout: seconds(3) };
    let begun = tokio::time::Instant::now();
    let operation = operations.wait_operation(short).await.unwrap().into_inner();
    assert_eq!((understand(operation).stage, begun.elapsed().as_secs()), (Stage::Queued, 3));

    let mut waiting = operations.clone();
    let long = WaitOperationRequest { name: name.clone(), timeout: None };
    let waiting = tokio::spawn(async move { waiting.wait_operation(long).await });
    let mut worker = kiln.worker("w", 1, &[]).await;
    worker.succeed_next().await;
    let operation = waiting.await.unwrap().unwrap().into_inner();
    assert!(understand(operation).response.is_some());

    let delete = DeleteOperationRequest { name: name.clone() };
    operations.delete_operation(delete.clone()).await.unwrap();
    let gone = [
        operations.get_operation(get).await.err().unwrap(),
        operations.delete_operation(delete).await.err().unwrap(),
        kiln.wait(&name).await.err().unwrap(),
    ];
    assert!(gone.iter().all(|error| error.code() == Code::NotFound));
}

#[tokio::test(start_paused = true)]
async fn finished_operations_are_forgotten_in_time() {
    let kiln = Kiln::in_memory(SchedulerConfig::default()).await;
    let mut client = kiln.execute(&kiln.simple().await).await;
    let name = client.update().await.name;
    let mut worker = kiln.worker("w", 1, &[]).await;
    worker.succeed_next().await;
    client.until(Stage::Completed).await;
    tokio::time::sleep(std::time::Duration::from_secs(599)).await;
    assert!(kiln.wait(&name).await.is_ok());
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!(kiln.wait(&name).await.err().unwrap().code(), Code::NotFound);
}
