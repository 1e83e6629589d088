//! Resource names of ByteStream: what is accepted, printed anew, means the same.
#![no_main]

use kiln_cas::services::resource::{Compression, ReadName, WriteName, parse_read, parse_write};
use libfuzzer_sys::fuzz_target;

fn join(instance: &str, rest: &str) -> String {
    let slash = if instance.is_empty() { "" } else { "/" };
    format!("{instance}{slash}{rest}")
}

fn kind(compression: Compression) -> &'static str {
    match compression {
        Compression::Identity => "blobs",
        Compression::Zstd => "compressed-blobs/zstd",
    }
}

fuzz_target!(|data: &[u8]| {
    if let Ok(name @ ReadName::Blob { instance, digest, compression }) = parse_read(data) {
        let again = join(instance, &format!("{}/{digest}", kind(compression)));
        assert_eq!(parse_read(again.as_bytes()), Ok(name));
    }
    match parse_write(data) {
        Ok(name @ WriteName::Blob { instance, uuid, digest, compression }) => {
            let again = join(instance, &format!("uploads/{uuid}/{}/{digest}", kind(compression)));
            assert_eq!(parse_write(again.as_bytes()), Ok(name));
        }
        Ok(WriteName::Log { name, token }) => {
            assert_eq!(format!("{name}/{token}").as_bytes(), data);
        }
        Err(_) => {}
    }
});
