//! A release for other people's verifiers: written to the directory that `KILN_RELEASE_EXPORT` names, with its
//! key. `deploy/tests/verifiers.sh` hands it to them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::super::{DirectoryExport, Exporter as _};
use super::made::Made;
use crate::oci::Descriptor;
use crate::provenance::{Describes, SLSA_PREDICATE, SignedBy, cyclonedx, spdx};
use crate::resource::ResourceDescriptor;
use crate::signing::{Attestation, Scheme, Signer as _, SigningKey, SimpleSigning, Statement};
use crate::timestamp::Timestamp;

#[test]
#[ignore = "writes for the verifiers of others"]
fn a_release_for_the_verifiers_of_others() {
    let root = std::env::var_os("KILN_RELEASE_EXPORT").expect("KILN_RELEASE_EXPORT is set");
    for (name, scheme) in [("p256", Scheme::EcdsaP256), ("ed25519", Scheme::Ed25519)] {
        write(PathBuf::from(&root).join(name), scheme);
    }
}

fn write(root: PathBuf, scheme: Scheme) {
    let (key, _) = SigningKey::generate(scheme).unwrap();
    let (mut made, subject) = Made::complete(&key);
    let (directory, _) = made.export(&subject);
    let mut out = DirectoryExport::new(&root);
    let mut put = |path: &str, data: &[u8]| out.put(path, &mut &*data).unwrap();
    put("release.pub", key.public_key().to_pem().unwrap().as_bytes());
    put("subject", subject.digest.to_string().as_bytes());
    put("artifact", b"hello kiln\n");
    put("artifact.sigstore.json", &artifact(&mut made, &key));
    let signed =
        SimpleSigning::sign("localhost/app", &subject.digest.to_string(), &BTreeMap::new(), &key);
    let signed = signed.unwrap();
    put("simple.json", &signed.payload);
    put("simple.sig", signed.signature.as_bytes());
    let of = made.provenance(SignedBy::Server);
    let describes = Describes {
        name: "app",
        sha256: subject.digest.hex(),
        created: Timestamp::from_unix(60),
        tool: "kiln",
    };
    put("app.spdx.json", &spdx(&describes, &of.packages).unwrap());
    put("app.cdx.json", &cyclonedx(&describes, &of.packages).unwrap());
    let mut copy = std::process::Command::new("cp");
    copy.arg("-r").arg(directory.path()).arg(root.join("layout"));
    assert!(copy.status().unwrap().success());
}

/// A bundle about a file instead of an image.
fn artifact(made: &mut Made, key: &SigningKey) -> Vec<u8> {
    let file = Descriptor::of("", b"hello kiln\n");
    let resource = ResourceDescriptor::new("artifact", "sha256", file.digest.hex());
    let claim = made.provenance(SignedBy::Server).predicate;
    Attestation::sign(&Statement::new(vec![resource], SLSA_PREDICATE, claim).unwrap(), key).unwrap()
}
