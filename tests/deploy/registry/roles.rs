//! Which callers may pull, push and delete, and how clients log in.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_deploy::oci::MANIFEST_TYPE;

use crate::registry::client::{Registry, bytes};

const PEOPLE: [(&str, &str, &str); 6] = [
    ("reader", "read-cache", "team"),
    ("laptop", "execute", "team"),
    ("ci", "write-cache", "team"),
    ("releaser", "release-manager", "team"),
    ("other", "write-cache", "other"),
    ("boss", "admin", "*"),
];

/// Starts a registry whose access file has `more` and a token for each of the people. `environment` holds further
/// variables of the server.
pub fn guarded(more: &str, environment: &[(&str, &str)]) -> Registry {
    let mut file = more.to_owned();
    for (name, role, instances) in PEOPLE {
        let hash = kiln_cas::DigestFunction::Sha256.digest(token(name).as_bytes()).hex();
        file.push_str(&format!(
            "[[token]]\nname = \"{name}\"\nsha256 = \"{hash}\"\nroles = [\"{role}\"]\ninstances = [\"{instances}\"]\n"
        ));
    }
    Registry::configured(|dir, command| {
        let access = dir.join("access.toml");
        std::fs::write(&access, file).unwrap();
        command.arg("--access-file").arg(access).envs(environment.iter().copied());
    })
}

pub fn token(name: &str) -> String {
    format!("tok-{name}")
}

/// Makes the registry's client send the password of the person called `name`, or no credentials if `name` is empty.
fn as_one(registry: &mut Registry, name: &str) {
    let pair = STANDARD.encode(format!("anything:{}", token(name)));
    registry.authorization = (!name.is_empty()).then(|| format!("Basic {pair}"));
}

#[test]
fn a_client_changes_its_password_for_a_token() {
    let mut registry = guarded("", &[]);
    let refused = registry.get("/v2/").expect(401);
    let challenge = refused.header("www-authenticate").unwrap().to_owned();
    refused.refused(401, "UNAUTHORIZED");
    let realm = format!("Bearer realm=\"{}/v2/token\"", registry.server.url());
    assert!(challenge.starts_with(&realm), "{challenge}");
    // Kiln does not understand the login by a form. Clients then fall back to the GET that follows.
    let form = b"grant_type=password&service=kiln&username=ci&password=tok-ci";
    registry.send("POST", "/v2/token", &[], form).refused(405, "UNSUPPORTED");
    as_one(&mut registry, "ci");
    registry.get("/v2/").expect(200);
    let path = "/v2/token?service=kiln&scope=repository:team/app:pull,push&account=x";
    let answer = registry.get(path).expect(200);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let token = answer.json()["token"].as_str().unwrap().to_owned();
    registry.authorization = Some(format!("Bearer {token}"));
    registry.get("/v2/").expect(200);
    registry.push("team/app", b"data");
    registry.authorization = Some(format!("Basic {}", STANDARD.encode("ci:wrong")));
    let refused = registry.get("/v2/token?service=kiln").expect(401);
    assert!(refused.header("www-authenticate").unwrap().starts_with("Basic "));
    registry.authorization = Some("Bearer wrong".to_owned());
    registry.get("/v2/").expect(401);
}

#[test]
fn strangers_neither_pull_nor_push() {
    let mut registry = guarded("", &[]);
    as_one(&mut registry, "ci");
    let image = registry.push_image("team/app", "v1", &bytes(1, 100));
    for (name, status) in [("", 401), ("other", 403)] {
        as_one(&mut registry, name);
        for path in [
            "/v2/team/app/manifests/v1".to_owned(),
            format!("/v2/team/app/manifests/{image}"),
            "/v2/team/app/tags/list".to_owned(),
            format!("/v2/team/app/referrers/{image}"),
        ] {
            registry.get(&path).expect(status);
        }
        registry.send("POST", "/v2/team/app/blobs/uploads/", &[], &[]).expect(status);
        registry.put_manifest("team/app", "v1", MANIFEST_TYPE, b"{}").expect(status);
        registry.send("DELETE", "/v2/team/app/manifests/v1", &[], &[]).expect(status);
    }
}

#[test]
fn roles_say_who_pushes_what() {
    let mut registry = guarded("", &[]);
    as_one(&mut registry, "ci");
    let data = registry.image("team/app", &bytes(2, 100));
    registry.put_manifest("team/app", "v1", MANIFEST_TYPE, &data).expect(201);
    let pushes = |registry: &Registry| {
        let blob = registry.send("POST", "/v2/team/app/blobs/uploads/", &[], &[]).status;
        (blob, registry.put_manifest("team/app", "v2", MANIFEST_TYPE, &data).status)
    };
    for (name, expected) in [
        ("reader", (403, 403)),
        ("laptop", (202, 403)),
        ("releaser", (202, 201)),
        ("ci", (202, 201)),
    ] {
        as_one(&mut registry, name);
        assert_eq!(pushes(&registry), expected, "{name}");
        registry.get("/v2/team/app/manifests/v1").expect(200);
        registry.send("DELETE", "/v2/team/app/manifests/v1", &[], &[]).refused(403, "DENIED");
    }
    as_one(&mut registry, "boss");
    registry.send("DELETE", "/v2/team/app/manifests/v1", &[], &[]).expect(202);
}

/// To mount a blob, the caller has to be allowed to read it in the repository that it comes from.
#[test]
fn a_blob_is_mounted_from_where_the_caller_may_read_alone() {
    let mut registry = guarded("", &[]);
    as_one(&mut registry, "other");
    let digest = registry.push("other/app", &bytes(3, 100));
    as_one(&mut registry, "ci");
    for from in ["&from=other/app", ""] {
        let path = format!("/v2/team/app/blobs/uploads/?mount={digest}{from}");
        registry.send("POST", &path, &[], &[]).expect(202);
    }
    registry.get(&format!("/v2/team/app/blobs/{digest}")).refused(404, "BLOB_UNKNOWN");
    as_one(&mut registry, "boss");
    let path = format!("/v2/team/app/blobs/uploads/?mount={digest}&from=other/app");
    registry.send("POST", &path, &[], &[]).expect(201);
}

/// Clients ask the root of the API whether they need a token. Those without a password get one that stands for
/// anybody.
#[test]
fn whoever_grants_reading_to_everybody_lets_clients_pull_without_a_password() {
    let anybody = "[[grant]]\nanonymous = true\nroles = [\"read-cache\"]\ninstances = [\"team\"]\n";
    let mut registry = guarded(anybody, &[]);
    as_one(&mut registry, "ci");
    registry.push_image("team/app", "v1", &bytes(4, 100));
    as_one(&mut registry, "");
    registry.get("/v2/").expect(401);
    let token = registry.get("/v2/token?service=kiln").expect(200).json()["token"].clone();
    registry.authorization = Some(format!("Bearer {}", token.as_str().unwrap()));
    registry.get("/v2/").expect(200);
    registry.get("/v2/team/app/manifests/v1").expect(200);
    registry.send("POST", "/v2/team/app/blobs/uploads/", &[], &[]).expect(401);
    registry.get("/v2/other/app/manifests/v1").expect(401);
}

#[test]
fn protected_tags_are_not_for_pushes() {
    let registry = Registry::configured(|_, command| {
        command.env("KILN_REGISTRY_PROTECTED_TAGS", "stable,team/app:v*");
    });
    let data = registry.image("team/app", &bytes(5, 100));
    for tag in ["stable", "v1"] {
        registry.put_manifest("team/app", tag, MANIFEST_TYPE, &data).refused(403, "DENIED");
        let path = format!("/v2/team/app/manifests/{tag}");
        registry.send("DELETE", &path, &[], &[]).refused(403, "DENIED");
    }
    let digest = kiln_deploy::oci::ContentDigest::of(&data);
    let reference = format!("{digest}?tag=stable");
    registry.put_manifest("team/app", &reference, MANIFEST_TYPE, &data).refused(403, "DENIED");
    registry.put_manifest("team/app", "latest", MANIFEST_TYPE, &data).expect(201);
}
