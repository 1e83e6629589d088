//! gRPC frames cut anywhere, and the messages that are decoded by hand.
#![no_main]

use bytes::Bytes;
use kiln_cas::services::wire::{
    Assembler, BatchReadBlobsRequest, BatchUpdateBlobsRequest, GetActionResultRequest, ReadRequest,
    WriteRequest, decode_find_missing, encode_missing,
};
use kiln_cas::{Digest, DigestFunction};
use kiln_protos::reapi;
use libfuzzer_sys::fuzz_target;
use prost::Message;

const LIMIT: usize = 4096;

/// The first byte says how long the pieces are, the rest is the body.
fn frames(data: &[u8]) -> Vec<Bytes> {
    let Some((&piece, body)) = data.split_first() else { return Vec::new() };
    let mut assembler = Assembler::new(LIMIT);
    let mut messages = Vec::new();
    for chunk in body.chunks(usize::from(piece).max(1)) {
        assembler.push(Bytes::copy_from_slice(chunk));
        loop {
            match assembler.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return messages,
            }
        }
    }
    let _ = assembler.finish();
    messages
}

/// What prost's generated message says, by the same rules.
fn reference(data: &[u8]) -> Option<Vec<Digest>> {
    let request = reapi::FindMissingBlobsRequest::decode(data).ok()?;
    let function = DigestFunction::from_wire(request.digest_function).ok()?;
    request.blob_digests.iter().map(|digest| Digest::from_wire(digest, function).ok()).collect()
}

fn check(message: &Bytes) {
    if let Ok(digests) = decode_find_missing(message) {
        if let Some(expected) = reference(message) {
            assert_eq!(digests, expected);
        }
        let answer = reapi::FindMissingBlobsResponse::decode(&*encode_missing(&digests));
        assert_eq!(answer.map(|answer| answer.missing_blob_digests.len()), Ok(digests.len()));
    } else {
        assert_eq!(reference(message), None);
    }
    let _ = ReadRequest::decode(message.clone());
    let _ = WriteRequest::decode(message.clone());
    let _ = GetActionResultRequest::decode(message.clone());
    let _ = BatchUpdateBlobsRequest::decode(message.clone());
    let _ = BatchReadBlobsRequest::decode(message.clone());
}

fuzz_target!(|data: &[u8]| {
    let messages = frames(data);
    // However the body is cut, the same messages come out of it.
    if let Some((_, body)) = data.split_first() {
        let whole: Vec<u8> = [&[u8::MAX], body].concat();
        assert_eq!(messages, frames(&whole));
    }
    messages.iter().for_each(check);
    check(&Bytes::copy_from_slice(data));
});
