use kiln_cas::access::Everybody;
use kiln_protos::reapi::{GetCapabilitiesRequest, compressor, digest_function};
use std::sync::Arc;
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::harness::{start, start_with};

fn request(instance: &str) -> GetCapabilitiesRequest {
    GetCapabilitiesRequest { instance_name: instance.into() }
}

#[tokio::test]
async fn clients_of_every_age_find_what_they_check() {
    let server = start().await;
    let answer = server.capabilities().get_capabilities(request("some/instance")).await.unwrap();
    let answer = answer.into_inner();

    let low = answer.low_api_version.unwrap();
    let high = answer.high_api_version.unwrap();
    assert_eq!((low.major, low.minor), (2, 0));
    assert_eq!((high.major, high.minor), (2, 13));

    let both = [digest_function::Value::Sha256 as i32, digest_function::Value::Blake3 as i32];
    let cache = answer.cache_capabilities.unwrap();
    assert_eq!(cache.digest_functions, both);
    assert!(cache.action_cache_update_capabilities.unwrap().update_enabled);
    let limit = cache.max_batch_total_size_bytes;
    assert!(((3 << 20)..(4 << 20)).contains(&limit), "{limit}");
    assert_eq!(cache.supported_compressors, [compressor::Value::Zstd as i32]);
    assert_eq!(cache.supported_batch_update_compressors, [compressor::Value::Zstd as i32]);
    assert!(cache.split_blob_support && cache.splice_blob_support);
    let chunking = cache.fast_cdc_2020_params.unwrap();
    assert_eq!((chunking.avg_chunk_size_bytes, chunking.seed), (512 << 10, 0));

    let execution = answer.execution_capabilities.unwrap();
    assert!(execution.exec_enabled);
    assert_eq!(execution.digest_function, digest_function::Value::Sha256 as i32);
    assert_eq!(execution.digest_functions, both);
    for priorities in [cache.cache_priority_capabilities, execution.execution_priority_capabilities]
    {
        let range = priorities.unwrap().priorities[0];
        assert_eq!((range.min_priority, range.max_priority), (i32::MIN, i32::MAX));
    }
}

#[tokio::test]
async fn a_cache_without_execution_and_writers_says_so() {
    let server = start_with(|config| {
        config.exec_enabled = false;
        config.access = Arc::new(Everybody { write_results: false });
        config.max_blob_size = 5000;
    })
    .await;
    let answer = server.capabilities().get_capabilities(request("")).await.unwrap().into_inner();
    assert!(!answer.execution_capabilities.unwrap().exec_enabled);
    let cache = answer.cache_capabilities.unwrap();
    assert!(!cache.action_cache_update_capabilities.unwrap().update_enabled);
    assert_eq!(cache.max_cas_blob_size_bytes, 5000);
}

#[tokio::test]
async fn health_follows_what_the_server_says_of_itself() {
    let server = start().await;
    let mut client = HealthClient::new(server.channel.clone());
    let request = HealthCheckRequest::default();
    let answer = client.check(request.clone()).await.unwrap().into_inner();
    assert_eq!(answer.status, ServingStatus::Serving as i32);
    server.health.set_service_status("", ServingStatus::NotServing).await;
    let answer = client.check(request).await.unwrap().into_inner();
    assert_eq!(answer.status, ServingStatus::NotServing as i32);
}
