//! What a persistent worker may print, and the command lines that it is started with: however the
//! bytes are cut, the first response is the same one.
#![no_main]

use kiln_executor::persistent::protocol::{Protocol, Responses};
use kiln_executor::persistent::{is_flag_file, lines, split};
use kiln_protos::persistent::WorkResponse;
use libfuzzer_sys::fuzz_target;

const LIMIT: usize = 1 << 12;

/// `None`: what came was no response.
fn first(protocol: Protocol, data: &[u8], cut: usize) -> Option<WorkResponse> {
    let mut responses = Responses::new(protocol, LIMIT);
    for piece in data.chunks(cut.max(1)) {
        match responses.push(piece) {
            Ok(None) => {}
            Ok(response) => {
                assert!(responses.is_between());
                return response;
            }
            Err(error) => {
                assert!(error.head.len() <= 3 * 200, "{}", error.head.len());
                return None;
            }
        }
    }
    None
}

fuzz_target!(|data: &[u8]| {
    let Some((&cut, data)) = data.split_first() else { return };
    for protocol in [Protocol::Json, Protocol::Protobuf] {
        if let Some(response) = first(protocol, data, usize::from(cut)) {
            assert_eq!(response.request_id, 0);
            assert!(!response.was_cancelled);
            assert_eq!(first(protocol, data, 1), Some(response));
        }
    }
    let arguments: Vec<Vec<u8>> = data.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
    if let Some(command) = split(&arguments) {
        assert_eq!(command.startup.len() + command.flag_files.len(), arguments.len() + 1);
        assert!(command.flag_files.iter().all(|argument| is_flag_file(argument)));
    }
    if let Ok(text) = std::str::from_utf8(data) {
        assert!(lines(text).iter().all(|line| !line.contains(['\n', '\r'])));
    }
});
