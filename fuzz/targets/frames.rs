//! gRPC frames cut anywhere, and the messages that are decoded by hand, against the generated
//! ones.
#![no_main]

use bytes::Bytes;
use kiln_cas::services::wire::{
    Assembler, BatchReadBlobsRequest, BatchUpdateBlobsRequest, FrameError, GetActionResultRequest,
    ReadRequest, FindMissing, WriteRequest, decode_find_missing, encode_missing,
};
use kiln_cas::{Digest, DigestFunction};
use kiln_protos::{bytestream, reapi};
use libfuzzer_sys::fuzz_target;
use prost::Message;

const LIMIT: usize = 4096;

/// The messages of a body that arrives in pieces of this length, and how it ends.
fn frames(body: &[u8], piece: usize) -> (Vec<Bytes>, Result<(), FrameError>) {
    let mut assembler = Assembler::new(LIMIT);
    let mut messages = Vec::new();
    for chunk in body.chunks(piece.max(1)) {
        assembler.push(Bytes::copy_from_slice(chunk));
        loop {
            match assembler.next_message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(error) => return (messages, Err(error)),
            }
        }
    }
    let end = assembler.finish();
    (messages, end)
}

/// What the generated message decodes, ours decodes to the same; and ours decodes no more than
/// strings that are not UTF-8, which it leaves to whoever reads them.
fn agree<Ours: Message + Default, Theirs: Message + Default>(wire: &Bytes) {
    match (Ours::decode(wire.clone()), Theirs::decode(wire.clone())) {
        (Ok(ours), Ok(theirs)) => assert_eq!(ours.encode_to_vec(), theirs.encode_to_vec()),
        (Ok(_), Err(error)) => assert!(error.to_string().contains("UTF-8"), "{error}"),
        (Err(error), Ok(_)) => panic!("only the generated message takes it: {error}"),
        (Err(_), Err(_)) => {}
    }
}

/// What the generated message says, by the same rules.
fn reference(data: &[u8]) -> Option<Vec<Digest>> {
    let request = reapi::FindMissingBlobsRequest::decode(data).ok()?;
    let function = DigestFunction::from_wire(request.digest_function).ok()?;
    request.blob_digests.iter().map(|digest| Digest::from_wire(digest, function).ok()).collect()
}

fn find_missing(message: &Bytes) {
    let expected = reference(message);
    let Ok(FindMissing { digests, .. }) = decode_find_missing(message) else { return assert_eq!(expected, None) };
    let missing_blob_digests = digests.iter().map(Digest::to_wire).collect();
    let answer = reapi::FindMissingBlobsResponse { missing_blob_digests };
    assert_eq!(encode_missing(&digests), answer.encode_to_vec());
    match expected {
        Some(expected) => assert_eq!(digests, expected),
        None => {
            let error = reapi::FindMissingBlobsRequest::decode(message.clone());
            assert!(error.is_err_and(|error| error.to_string().contains("UTF-8")));
        }
    }
}

fn check(message: &Bytes) {
    find_missing(message);
    agree::<ReadRequest, bytestream::ReadRequest>(message);
    agree::<WriteRequest, bytestream::WriteRequest>(message);
    agree::<GetActionResultRequest, reapi::GetActionResultRequest>(message);
    agree::<BatchUpdateBlobsRequest, reapi::BatchUpdateBlobsRequest>(message);
    agree::<BatchReadBlobsRequest, reapi::BatchReadBlobsRequest>(message);
}

// The first byte says how long the pieces are, the rest is the body.
fuzz_target!(|data: &[u8]| {
    let Some((&piece, body)) = data.split_first() else { return };
    let whole = frames(body, usize::MAX);
    assert_eq!(frames(body, piece.into()), whole, "it matters where the body is cut");
    whole.0.iter().for_each(check);
    check(&Bytes::copy_from_slice(body));
});
