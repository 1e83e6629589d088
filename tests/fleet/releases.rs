//! A release of a fleet that is made at one frontend is the same at another.

use std::path::Path;

use kiln_deploy::oci::ContentDigest;
use kiln_deploy::signing::{Scheme, Signer as _, SigningKey};
use kiln_protos::reapi;

use crate::rig::Shared;
use crate::support::reapi::{Client, Spec};
use crate::support::said::kiln;
use crate::support::server::{Server, get_json, get_status, get_text};

const BUILD: &str = "3b1d5a52-70ab-4e1c-9d0f-6c86a5a2e0f1";
const SOURCE: &str = "git+https://git.example/app@1234567890123456789012345678901234567890";
const NAME: &str = "team/app:1.0";

/// Writes a private key to `key.pem`, and its public key to `key.pub`.
fn keys(dir: &Path) {
    let (key, pem) = SigningKey::generate(Scheme::EcdsaP256).unwrap();
    std::fs::write(dir.join("key.pem"), pem).unwrap();
    std::fs::write(dir.join("key.pub"), key.public_key().to_pem().unwrap()).unwrap();
}

/// Runs an action with the metadata of a build, as a client would.
fn build(server: &Server) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = Client { instance: String::new(), ..Client::connect(&server.url()).await };
        let spec = Spec::shell("printf program > bazel-out/bin/app", &["bazel-out/bin/app"]);
        let action = client.prepare(&spec).await;
        let metadata = reapi::RequestMetadata {
            tool_invocation_id: BUILD.to_owned(),
            target_id: "//:app".to_owned(),
            action_mnemonic: "Genrule".to_owned(),
            ..Default::default()
        };
        let ran = client.execute_with(action, &metadata).await.unwrap();
        assert_eq!(ran.result.unwrap().exit_code, 0);
    });
}

#[test]
fn a_release_that_was_made_at_one_frontend_is_there_at_another() {
    let Some(mut shared) = Shared::start() else { return };
    let dir = shared.dir.path().to_owned();
    keys(&dir);
    shared.settings.push(("KILN_RELEASES_KEY", dir.join("key.pem")));
    let one = shared.serve("one", &["--workers", "1"]);
    let two = shared.frontend("two");
    build(&one);
    let create = ["release", "create", NAME, "--invocation", BUILD, "--target", "//:app"];
    let create = [&create[..], &["--source", SOURCE, "--json"]].concat();
    let made = kiln(Some(&one), &dir, &create).ends_with(0).json();

    let listed = kiln(Some(&two), &dir, &["release", "list"]).ends_with(0).stdout;
    assert!(listed.contains(NAME), "{listed}");
    let shown = kiln(Some(&two), &dir, &["release", "show", NAME, "--json"]).ends_with(0).json();
    assert_eq!(
        (&shown["digest"], &shown["attestations"]),
        (&made["digest"], &made["attestations"])
    );
    let pulled = get_text(&two.address, "/v2/team/app/manifests/1.0");
    assert_eq!(ContentDigest::of(pulled.as_bytes()).to_string(), made["digest"]);
    let manifest: serde_json::Value = serde_json::from_str(&pulled).unwrap();
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    assert_eq!(get_status(&two.address, &format!("/v2/team/app/blobs/{layer}")), 200);
    let about = format!("/v2/team/app/referrers/{}", made["digest"].as_str().unwrap());
    let about = get_json(&two.address, &about);
    assert!(about["manifests"].as_array().is_some_and(|it| it.len() >= 4), "{about:#}");
    // The other frontend has all that is needed to verify the release, and makes the same release there.
    let verify = ["release", "verify", NAME, "--key", "key.pub"];
    kiln(Some(&two), &dir, &verify).ends_with(0);
    let again = kiln(Some(&two), &dir, &create).ends_with(0).json();
    assert_eq!(again["digest"], made["digest"]);
    let reject = ["release", "reject", NAME, "--reason", "it loses data"];
    kiln(Some(&two), &dir, &reject).ends_with(0);
    assert_eq!(get_status(&one.address, "/v2/team/app/manifests/1.0"), 404);
    let rejected = kiln(Some(&one), &dir, &["release", "show", NAME, "--json"]).ends_with(0).json();
    assert_eq!(rejected["rejected"]["reason"], "it loses data", "{rejected:#}");
}
