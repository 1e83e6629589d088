//! Signed documents and keys: whatever they hold, they are read within their limits or refused, nothing is accepted
//! that nobody signed, and what was read can be written and read again.
#![no_main]

use kiln_deploy::provenance::{read_index, read_part, Part};
use kiln_deploy::signing::{
    Attestation, Bundle, Envelope, KeyRing, PublicKey, SigningKey, SimpleSigning, Statement,
};
use libfuzzer_sys::fuzz_target;

/// A key that signed nothing of what is tried here.
const KEY: &str = "-----BEGIN PUBLIC KEY-----
MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEJ45CH3NaCR4r6c8P2Bd8I/4WFrNe
8IA8yVk+Bd5HrmyhSM2SSnE+ROW4DTXShDFLL8cJ6oHlij3n/Nx8wV916A==
-----END PUBLIC KEY-----
";

fuzz_target!(|data: &[u8]| {
    let keys = KeyRing::read("key", KEY).expect("it is one");
    assert!(Attestation::from_bundle(data, &keys).is_err());
    if let Ok(bundle) = Bundle::read(data) {
        let written = bundle.write().expect("what was read can be written");
        assert!(Bundle::read(&written).is_ok());
    }
    if let Ok(envelope) = Envelope::read(data) {
        let written = envelope.write().expect("what was read can be written");
        assert_eq!(Envelope::read(&written).expect("what was written can be read"), envelope);
    }
    if let Ok(statement) = Statement::read(data) {
        let written = statement.write().expect("what was read can be written");
        assert!(Statement::read(&written).is_ok());
    }
    let simple = SimpleSigning { payload: data.to_owned(), signature: String::new() };
    assert!(simple.verify("sha256:", &keys).is_err());
    if let Ok(index) = read_index(data) {
        assert!(index.parts.len() < data.len());
    }
    let part = Part { digest: String::new(), size: data.len(), entries: 0 };
    assert!(read_part(data, &part, &mut |_| {}).is_err());
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = KeyRing::read("key", text);
        let _ = SigningKey::from_pem(text, None);
        if let Ok(key) = PublicKey::from_pem(text) {
            let written = key.to_pem().expect("what was read can be written");
            assert_eq!(PublicKey::from_pem(&written).expect("what was written can be read"), key);
        }
    }
});
