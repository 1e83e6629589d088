//! Calls of Capabilities, health, ContentAddressableStorage, ByteStream and ActionCache.

use kiln_cas::DigestFunction;
use kiln_protos::bytestream::QueryWriteStatusRequest;
use kiln_protos::reapi;
use kiln_protos::reapi::action_cache_client::ActionCacheClient;
use kiln_protos::reapi::capabilities_client::CapabilitiesClient;
use kiln_protos::reapi::{chunking_function, compressor, digest_function};
use tonic::Code;

use crate::sdk::house::{Caller, House, noise, parse};

#[tokio::test(flavor = "multi_thread")]
async fn every_instance_has_the_same_capabilities() {
    let house = House::new().await;
    for instance_name in ["", "main", "projects/a.b/main"].map(str::to_owned) {
        let request = reapi::GetCapabilitiesRequest { instance_name };
        let mut client = CapabilitiesClient::new(house.channel.clone());
        let all = client.get_capabilities(request).await.unwrap().into_inner();
        assert_eq!(all.low_api_version.unwrap().major, 2);
        assert!(all.high_api_version.unwrap().minor >= 3);
        let cache = all.cache_capabilities.unwrap();
        for function in [digest_function::Value::Sha256, digest_function::Value::Blake3] {
            assert!(cache.digest_functions.contains(&(function as i32)), "{function:?}");
        }
        assert!(cache.action_cache_update_capabilities.unwrap().update_enabled);
        assert!(cache.supported_compressors.contains(&(compressor::Value::Zstd as i32)));
        assert!(cache.split_blob_support && cache.splice_blob_support);
        let execution = all.execution_capabilities.unwrap();
        assert!(execution.exec_enabled);
        assert_eq!(execution.digest_function, digest_function::Value::Sha256 as i32);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blobs_go_in_and_come_out_in_every_way() {
    let house = House::new().await;
    for caller in house.callers() {
        let seed = caller.instance.len() as u64;
        batches(&caller).await;
        streams(&caller, &noise(1_500_000, 3 + seed)).await;
        resumed(&caller, &noise(900_000, 4 + seed)).await;
        trees(&caller).await;
        chunks(&caller, &noise(5_000_000, 5 + seed)).await;
    }
}

async fn batches(caller: &Caller) {
    let (here, absent) = (caller.digest(b"small"), caller.digest(b"absent"));
    caller.put(b"small").await;
    let missing = caller.missing(&[here.clone(), absent.clone()]).await;
    assert_eq!(missing, std::slice::from_ref(&absent));
    let request = reapi::BatchReadBlobsRequest {
        instance_name: caller.instance(),
        digests: vec![here, absent],
        acceptable_compressors: vec![compressor::Value::Identity as i32],
        digest_function: caller.number(),
    };
    let answer = caller.cas().batch_read_blobs(request).await.unwrap().into_inner();
    assert_eq!(answer.responses[0].data, b"small");
    let status = answer.responses[1].status.clone().unwrap();
    assert_eq!(status.code, Code::NotFound as i32);
}

/// Reads a blob compressed, writes the compressed bytes back under the other digest function, and reads that plainly.
async fn streams(caller: &Caller, data: &[u8]) {
    let digest = caller.digest(data);
    let name = caller.name("uploads/1b4e28ba-2fa1-11d2-883f-0016d3cca427/blobs", &digest);
    assert_eq!(caller.write(&name, data, 0, true).await, data.len() as i64);
    assert!(caller.blob(&digest).await == data);
    let part = caller.read(&caller.name("blobs", &digest), 1_499_990).await.unwrap();
    assert!(part == data[1_499_990..]);

    let compressed = caller.read(&caller.name("compressed-blobs/zstd", &digest), 0).await.unwrap();
    assert_eq!(compressed[..4], [0x28, 0xb5, 0x2f, 0xfd], "a zstd frame");
    let function = match caller.function {
        DigestFunction::Sha256 => DigestFunction::Blake3,
        DigestFunction::Blake3 => DigestFunction::Sha256,
    };
    let other = Caller { function, ..caller.clone() };
    let digest = other.digest(data);
    let name = other.name("uploads/zstd-1/compressed-blobs/zstd", &digest);
    let committed = other.write(&name, &compressed, 0, true).await;
    // The server answers -1 instead of the size if it has the blob already.
    assert!([compressed.len() as i64, -1].contains(&committed), "{committed}");
    assert!(other.blob(&digest).await == data);
}

async fn resumed(caller: &Caller, data: &[u8]) {
    let digest = caller.digest(data);
    let name = caller.name("uploads/resumed/blobs", &digest);
    let requests = crate::sdk::house::write_requests(&name, &data[..400_000], 0, false);
    // The stream ends before the blob does. The server may answer with the size so far or with an error; both are
    // fine here.
    let _ = caller.byte_stream().write(crate::sdk::house::in_order(requests)).await;
    let request = QueryWriteStatusRequest { resource_name: name.clone() };
    let status = caller.byte_stream().query_write_status(request.clone()).await.unwrap();
    let status = status.into_inner();
    assert_eq!((status.committed_size, status.complete), (400_000, false));
    assert_eq!(caller.missing(std::slice::from_ref(&digest)).await.len(), 1);
    assert_eq!(caller.write(&name, data, 400_000, true).await, data.len() as i64);
    let status = caller.byte_stream().query_write_status(request).await.unwrap().into_inner();
    assert_eq!((status.committed_size, status.complete), (data.len() as i64, true));
    assert!(caller.blob(&digest).await == data);
}

async fn trees(caller: &Caller) {
    let leaf = reapi::Directory {
        files: vec![reapi::FileNode {
            name: "f".into(),
            digest: Some(caller.put(b"leaf").await),
            ..Default::default()
        }],
        ..Default::default()
    };
    let node =
        reapi::DirectoryNode { name: "d".into(), digest: Some(caller.put_message(&leaf).await) };
    let root = reapi::Directory { directories: vec![node], ..Default::default() };
    let request = reapi::GetTreeRequest {
        instance_name: caller.instance(),
        root_digest: Some(caller.put_message(&root).await),
        digest_function: caller.number(),
        ..Default::default()
    };
    let mut pages = caller.cas().get_tree(request).await.unwrap().into_inner();
    let mut all = Vec::new();
    while let Some(page) = pages.message().await.unwrap() {
        all.extend(page.directories);
    }
    assert_eq!(all, [root, leaf]);
}

async fn chunks(caller: &Caller, data: &[u8]) {
    let whole = caller.digest(data);
    let name = caller.name("uploads/split/blobs", &whole);
    caller.write(&name, data, 0, true).await;
    let request = reapi::SplitBlobRequest {
        instance_name: caller.instance(),
        blob_digest: Some(whole),
        digest_function: caller.number(),
        chunking_function: chunking_function::Value::FastCdc2020 as i32,
    };
    let split = caller.cas().split_blob(request).await.unwrap().into_inner();
    assert!(split.chunk_digests.len() > 1);
    let size: i64 = split.chunk_digests.iter().map(|chunk| chunk.size_bytes).sum();
    assert_eq!(size, data.len() as i64);

    // The same chunks in another order make another blob, which no client has sent.
    let mut chunk_digests = split.chunk_digests;
    chunk_digests.reverse();
    let mut reversed = Vec::new();
    for chunk in &chunk_digests {
        reversed.extend(caller.blob(chunk).await);
    }
    let request = reapi::SpliceBlobRequest {
        instance_name: caller.instance(),
        blob_digest: Some(caller.digest(&reversed)),
        chunk_digests,
        digest_function: caller.number(),
        ..Default::default()
    };
    let spliced = caller.cas().splice_blob(request).await.unwrap().into_inner().blob_digest;
    let spliced = spliced.expect("the digest of the blob");
    parse(&spliced, caller.function);
    assert!(caller.blob(&spliced).await == reversed);
}

#[tokio::test(flavor = "multi_thread")]
async fn results_belong_to_their_instance_and_digest_function() {
    let house = House::new().await;
    let mut client = ActionCacheClient::new(house.channel.clone());
    for caller in house.callers() {
        let action = Some(caller.digest(b"an action that only its name is known of"));
        let get = reapi::GetActionResultRequest {
            instance_name: caller.instance(),
            action_digest: action.clone(),
            digest_function: caller.number(),
            ..Default::default()
        };
        let unknown = client.get_action_result(get.clone()).await.unwrap_err();
        assert_eq!(unknown.code(), Code::NotFound, "{unknown}");
        let output = reapi::OutputFile {
            path: "out".into(),
            digest: Some(caller.put(caller.instance.as_bytes()).await),
            ..Default::default()
        };
        let result = reapi::ActionResult {
            output_files: vec![output],
            exit_code: 0,
            stdout_raw: b"said".to_vec(),
            ..Default::default()
        };
        let update = reapi::UpdateActionResultRequest {
            instance_name: caller.instance(),
            action_digest: action,
            action_result: Some(result.clone()),
            digest_function: caller.number(),
            ..Default::default()
        };
        let written = client.update_action_result(update).await.unwrap().into_inner();
        assert!(written.execution_metadata.is_some(), "Buck2 fails without");
        let found = client.get_action_result(get).await.unwrap().into_inner();
        assert_eq!(found.output_files, result.output_files);
        assert_eq!(found.stdout_raw, b"said");
    }
}
