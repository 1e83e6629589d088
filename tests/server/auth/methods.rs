//! A caller whose roles are in another instance calls every method that names an instance.

use futures_util::stream::iter;
use kiln_protos::asset::fetch_client::FetchClient;
use kiln_protos::asset::push_client::PushClient;
use kiln_protos::bes::publish_build_event_client::PublishBuildEventClient;
use kiln_protos::bytestream::byte_stream_client::ByteStreamClient;
use kiln_protos::hermeticity::hermeticity_client::HermeticityClient;
use kiln_protos::logstream::log_stream_service_client::LogStreamServiceClient;
use kiln_protos::longrunning::operations_client::OperationsClient;
use kiln_protos::reapi::action_cache_client::ActionCacheClient;
use kiln_protos::reapi::capabilities_client::CapabilitiesClient;
use kiln_protos::reapi::content_addressable_storage_client::ContentAddressableStorageClient as Cas;
use kiln_protos::reapi::execution_client::ExecutionClient;
use kiln_protos::{asset, bes, bytestream, hermeticity, logstream, longrunning, reapi};
use tonic::{Code, Status};

use crate::auth::roles::{bearer, guarded};
use crate::support::reapi::{Client, Spec};

type Asked = Vec<(&'static str, Result<(), Status>)>;

/// Makes each of the calls, and notes its method's name and its result in `$asked`.
macro_rules! ask {
    ($asked:ident, $client:expr, $($service:ident.$method:ident($request:expr);)*) => {
        $(
            let answer = $service::new($client.channel.clone()).$method($request).await;
            $asked.push((stringify!($method), answer.map(drop)));
        )*
    };
}

fn main() -> String {
    "main".to_owned()
}

fn digest() -> reapi::Digest {
    kiln_cas::DigestFunction::Sha256.digest(b"x").to_wire()
}

async fn cache(client: &Client, asked: &mut Asked) {
    let instance_name = main();
    let action_digest = Some(digest());
    ask!(asked, client,
        ActionCacheClient.get_action_result(reapi::GetActionResultRequest {
            instance_name: main(), action_digest: action_digest.clone(), ..Default::default()
        });
        ActionCacheClient.update_action_result(reapi::UpdateActionResultRequest {
            instance_name: main(), action_digest: action_digest.clone(), ..Default::default()
        });
        CapabilitiesClient.get_capabilities(reapi::GetCapabilitiesRequest { instance_name });
        ExecutionClient.execute(reapi::ExecuteRequest {
            instance_name: main(), action_digest, ..Default::default()
        });
        HermeticityClient.check(hermeticity::CheckRequest {
            instance_name: main(), target: "//...".into(), ..Default::default()
        });
    );
}

async fn blobs(client: &Client, asked: &mut Asked) {
    let instance_name = main();
    let blob_digest = Some(digest());
    ask!(asked, client,
        Cas.find_missing_blobs(reapi::FindMissingBlobsRequest {
            instance_name: main(), blob_digests: vec![digest()], ..Default::default()
        });
        Cas.batch_update_blobs(reapi::BatchUpdateBlobsRequest {
            instance_name: main(), ..Default::default()
        });
        Cas.batch_read_blobs(reapi::BatchReadBlobsRequest {
            instance_name: main(), ..Default::default()
        });
        Cas.get_tree(reapi::GetTreeRequest {
            instance_name: main(), root_digest: blob_digest.clone(), ..Default::default()
        });
        Cas.split_blob(reapi::SplitBlobRequest {
            instance_name: main(), blob_digest: blob_digest.clone(), ..Default::default()
        });
        Cas.splice_blob(reapi::SpliceBlobRequest {
            instance_name: main(), blob_digest: blob_digest.clone(), ..Default::default()
        });
        Cas.get_chunk_mapping(reapi::GetChunkMappingRequest {
            instance_name: main(), blob_digest: blob_digest.clone(), ..Default::default()
        });
        Cas.register_chunk_mapping(iter([reapi::RegisterChunkMappingRequest {
            instance_name, blob_digest, ..Default::default()
        }]));
    );
}

async fn streams(client: &Client, asked: &mut Asked) {
    let blob = format!("main/blobs/{}/1", digest().hash);
    let upload = format!("main/uploads/u/blobs/{}/1", digest().hash);
    let resource_name = "main/logstreams/id".to_owned();
    ask!(asked, client,
        ByteStreamClient.read(bytestream::ReadRequest { resource_name: blob, ..Default::default() });
        ByteStreamClient.read(bytestream::ReadRequest { resource_name, ..Default::default() });
        ByteStreamClient.query_write_status(bytestream::QueryWriteStatusRequest {
            resource_name: upload.clone()
        });
        ByteStreamClient.write(iter([bytestream::WriteRequest {
            resource_name: upload, data: b"x".to_vec(), finish_write: true, ..Default::default()
        }]));
        ByteStreamClient.write(iter([bytestream::WriteRequest {
            resource_name: "main/logstreams/id/token".into(), ..Default::default()
        }]));
        LogStreamServiceClient.create_log_stream(logstream::CreateLogStreamRequest {
            parent: main()
        });
        // The streams of build events are tested in events.rs, because the server refuses them only where it reads
        // their first event.
        PublishBuildEventClient.publish_lifecycle_event(bes::PublishLifecycleEventRequest {
            project_id: main(), ..Default::default()
        });
    );
}

async fn assets(client: &Client, asked: &mut Asked) {
    let uris = vec!["urn:x".to_owned()];
    ask!(asked, client,
        FetchClient.fetch_blob(asset::FetchBlobRequest {
            instance_name: main(), uris: uris.clone(), ..Default::default()
        });
        FetchClient.fetch_directory(asset::FetchDirectoryRequest {
            instance_name: main(), uris: uris.clone(), ..Default::default()
        });
        PushClient.push_blob(asset::PushBlobRequest {
            instance_name: main(), uris: uris.clone(), ..Default::default()
        });
        PushClient.push_directory(asset::PushDirectoryRequest {
            instance_name: main(), uris, ..Default::default()
        });
    );
}

async fn operations(client: &Client, name: String, asked: &mut Asked) {
    ask!(asked, client,
        ExecutionClient.wait_execution(reapi::WaitExecutionRequest { name: name.clone() });
        OperationsClient.get_operation(longrunning::GetOperationRequest { name: name.clone() });
        OperationsClient.wait_operation(longrunning::WaitOperationRequest {
            name: name.clone(), timeout: None
        });
        OperationsClient.cancel_operation(longrunning::CancelOperationRequest {
            name: name.clone()
        });
        OperationsClient.delete_operation(longrunning::DeleteOperationRequest { name });
    );
}

/// Runs an action in the instance `main` and returns the name of its operation.
async fn operation_in_main(boss: &Client) -> String {
    let action = boss.prepare(&Spec::shell("true", &[])).await;
    let request = reapi::ExecuteRequest {
        instance_name: main(),
        action_digest: Some(action),
        ..Default::default()
    };
    let mut execution = ExecutionClient::new(boss.channel.clone());
    let mut updates = execution.execute(request).await.unwrap().into_inner();
    let mut name = String::new();
    while let Some(operation) = updates.message().await.unwrap() {
        name = operation.name;
    }
    name
}

#[tokio::test(flavor = "multi_thread")]
async fn no_method_forgets_to_ask_for_the_instance() {
    let house = guarded(&[]);
    let boss = house.caller(bearer("tok-boss")).await;
    let name = operation_in_main(&boss).await;
    let client = house.caller(bearer("tok-elsewhere")).await;
    let mut asked = Asked::new();
    cache(&client, &mut asked).await;
    blobs(&client, &mut asked).await;
    streams(&client, &mut asked).await;
    assets(&client, &mut asked).await;
    operations(&client, name, &mut asked).await;
    assert_eq!(asked.len(), 29);
    for (method, result) in asked {
        let code = result.as_ref().err().map(Status::code);
        assert_eq!(code, Some(Code::PermissionDenied), "{method}: {result:?}");
    }
}
