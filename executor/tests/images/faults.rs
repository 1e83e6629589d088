//! Registries that want credentials, send elsewhere, are slow, busy, broken, or lie.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use kiln_executor::images::{ImagesConfig, Problem};

use crate::build::{Item, TestImage};
use crate::registry::{Asked, RegistryResponse, TestRegistry, from_blobs};
use crate::{House, config, read};

fn image() -> TestImage {
    TestImage::simple(vec![Item::file("file", "content")])
}

fn is_passing(outcome: &Result<impl Sized, Problem>) -> bool {
    matches!(outcome, Err(Problem::Passing { .. }))
}

fn is_final(outcome: &Result<impl Sized, Problem>) -> bool {
    matches!(outcome, Err(Problem::Final(_)))
}

/// A store of images whose credentials for this registry are `user:pass`.
fn with_login(registry: &TestRegistry) -> House {
    let auth = tempfile::NamedTempFile::new().unwrap();
    let text = format!(r#"{{"auths": {{"{}": {{"auth": "dXNlcjpwYXNz"}}}}}}"#, registry.address);
    std::fs::write(auth.path(), text).unwrap();
    let (_, path) = auth.keep().unwrap();
    House::new(ImagesConfig { auth_file: Some(path), ..config(&["*"]) })
}

const BASIC: &str = "Basic dXNlcjpwYXNz";

fn challenge(asked: &Asked) -> RegistryResponse {
    let value = format!(r#"Bearer realm="http://{}/token?x=y",service="the registry""#, asked.host);
    RegistryResponse::status(401).header("www-authenticate", &value)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_got_with_the_credentials_once() {
    let image = image();
    let blobs = image.blobs.clone();
    let registry = TestRegistry::start(move |asked| match asked.authorization.as_deref() {
        _ if asked.path.starts_with("/token") => match asked.authorization.as_deref() {
            Some(BASIC) => RegistryResponse::ok(r#"{"token": "the-token"}"#),
            _ => RegistryResponse::status(401),
        },
        Some("Bearer the-token") => from_blobs(&blobs, asked),
        _ => challenge(asked),
    })
    .await;
    let house = with_login(&registry);
    assert_eq!(read(&house.get(&registry.name(&image)).await.unwrap(), "file"), "content");
    let tokens: Vec<Asked> =
        registry.asked().into_iter().filter(|asked| asked.path.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 1);
    assert_eq!(
        tokens[0].path,
        "/token?x=y&scope=repository%3Ateam%2Ftools%3Apull&service=the%20registry"
    );

    let stranger = House::open().get(&registry.name(&image)).await;
    assert!(is_final(&stranger));
    let text = stranger.unwrap_err().to_string();
    assert!(text.contains("images.auth_file") && !text.contains("the-token"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn basic_authentication() {
    let image = image();
    let blobs = image.blobs.clone();
    let registry = TestRegistry::start(move |asked| match asked.authorization.as_deref() {
        Some(BASIC) => from_blobs(&blobs, asked),
        _ => RegistryResponse::status(401).header("www-authenticate", "Basic realm=\"x\""),
    })
    .await;
    assert!(with_login(&registry).get(&registry.name(&image)).await.is_ok());
    assert!(is_final(&House::open().get(&registry.name(&image)).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_is_never_content_ends_it() {
    let image = image();
    let registry = TestRegistry::start(|asked| match asked.path.starts_with("/token") {
        true => RegistryResponse::ok(r#"{"token": "the-token"}"#),
        false => challenge(asked),
    })
    .await;
    let outcome = with_login(&registry).get(&registry.name(&image)).await;
    assert!(is_final(&outcome));
    assert_eq!(registry.count("/manifests/"), 2, "once before, once after the token");
    assert_eq!(registry.count("/token"), 1);

    let odd = TestRegistry::start(|_| {
        RegistryResponse::status(401).header("www-authenticate", "Negotiate")
    })
    .await;
    let text = House::open().get(&odd.name(&image)).await.err().unwrap().to_string();
    assert!(text.contains("neither Bearer nor Basic"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn redirections_do_not_carry_credentials_elsewhere() {
    let image = image();
    let blobs = image.blobs.clone();
    let storage = TestRegistry::start(move |asked| {
        // The signature is no part of the blob's name.
        let path = asked.path.strip_suffix("?signed=x").unwrap_or_default().to_owned();
        from_blobs(&blobs, &Asked { path, ..asked.clone() })
    })
    .await;
    let (blobs, elsewhere) = (image.blobs.clone(), storage.address);
    let registry = TestRegistry::start(move |asked| match asked.authorization.as_deref() {
        None => RegistryResponse::status(401).header("www-authenticate", "Basic realm=\"x\""),
        Some(_) if asked.path.starts_with("/v2/team/tools/blobs/") => RegistryResponse::status(307)
            .header("location", &format!("/moved{}", &asked.path["/v2/team/tools".len()..])),
        Some(_) if asked.path.starts_with("/moved/") => {
            let path = asked.path.strip_prefix("/moved").unwrap();
            RegistryResponse::status(302)
                .header("location", &format!("http://{elsewhere}{path}?signed=x"))
        }
        Some(_) => from_blobs(&blobs, asked),
    })
    .await;
    let house = with_login(&registry);
    assert_eq!(read(&house.get(&registry.name(&image)).await.unwrap(), "file"), "content");
    let moved: Vec<Asked> =
        registry.asked().into_iter().filter(|asked| asked.path.starts_with("/moved/")).collect();
    assert_eq!(moved.len(), 2, "configuration and layer");
    assert!(
        moved.iter().all(|asked| asked.authorization.as_deref() == Some(BASIC)),
        "its own host"
    );
    assert_eq!(storage.asked().len(), 2);
    assert!(
        storage.asked().iter().all(|asked| asked.authorization.is_none()),
        "{:?}",
        storage.asked()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn redirections_end_and_stay_secure() {
    let image = image();
    let round =
        TestRegistry::start(|asked| RegistryResponse::status(307).header("location", &asked.path))
            .await;
    assert!(is_final(&House::open().get(&round.name(&image)).await));
    assert!(round.asked().len() <= 8, "{}", round.asked().len());
    for (target, said) in [
        ("http://example.invalid/x", "images.insecure"),
        ("ftp://example.invalid/x", "only http://"),
        ("https://user:pass@example.invalid/", "user or a password"),
    ] {
        let registry =
            TestRegistry::start(move |_| RegistryResponse::status(307).header("location", target))
                .await;
        let error = House::open().get(&registry.name(&image)).await.err().unwrap();
        assert!(matches!(&error, Problem::Final(text) if text.contains(said)), "{error}");
    }
    let nowhere = TestRegistry::start(|_| RegistryResponse::status(307)).await;
    assert!(is_final(&House::open().get(&nowhere.name(&image)).await));
}

#[tokio::test(flavor = "multi_thread")]
async fn passing_faults_are_tried_again_and_not_for_ever() {
    for status in [429, 500, 502, 503, 504, 408] {
        let image = image();
        let blobs = image.blobs.clone();
        let registry = TestRegistry::start(move |asked| match asked.time {
            1 | 2 => RegistryResponse::status(status).header("retry-after", "1"),
            _ => from_blobs(&blobs, asked),
        })
        .await;
        assert!(House::open().get(&registry.name(&image)).await.is_ok(), "{status}");

        let registry = TestRegistry::start(move |_| RegistryResponse::status(status)).await;
        let outcome = House::open().get(&registry.name(&image)).await;
        assert!(is_passing(&outcome), "{status}");
        assert_eq!(registry.asked().len(), 3, "{status}");
        let text = outcome.err().unwrap().to_string();
        assert!(text.contains(&status.to_string()) && text.contains("team/tools"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn final_answers_are_not_tried_again() {
    for status in [400, 403, 404, 410, 451] {
        let registry = TestRegistry::start(move |_| RegistryResponse::status(status)).await;
        let outcome = House::open().get(&registry.name(&image())).await;
        assert!(is_final(&outcome), "{status}");
        assert_eq!(registry.asked().len(), 1, "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blob_that_breaks_off_is_fetched_again() {
    let image = image();
    let layer = image.layers[0].clone();
    for stalls in [false, true] {
        let (blobs, layer) = (image.blobs.clone(), layer.clone());
        let registry = TestRegistry::start(move |asked| {
            let mut answer = from_blobs(&blobs, asked);
            if asked.path.contains(&layer) && asked.time < 3 {
                let part = Some(answer.body.len() / 2);
                if stalls { answer.stall = part } else { answer.cut = part }
            }
            answer
        })
        .await;
        let mut config = config(&["*"]);
        // Long enough for whoever answers on a busy machine.
        config.timing.idle = Duration::from_secs(1);
        let house = House::new(config);
        assert_eq!(read(&house.get(&registry.name(&image)).await.unwrap(), "file"), "content");
        assert_eq!(registry.count(&image.layers[0]), 3);
    }
    let (blobs, short) = (image.blobs.clone(), layer.clone());
    let registry = TestRegistry::start(move |asked| {
        let mut answer = from_blobs(&blobs, asked);
        if asked.path.contains(&short) {
            answer.cut = Some(3);
        }
        answer
    })
    .await;
    let house = House::open();
    assert!(is_passing(&house.get(&registry.name(&image)).await));
    assert_eq!(registry.count(&layer), 3);
    house.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bytes_are_never_unpacked() {
    let image = image();
    let manifest = image.digest.clone();
    for victim in [&image.layers[0], &image.config, &manifest] {
        type Damage = fn(&mut RegistryResponse);
        let damages: [Damage; 3] = [
            |answer| *answer.body.last_mut().unwrap() ^= 1,
            |answer| answer.body.push(0),
            // Without a length: more than there should be only shows when it comes.
            |answer| {
                let mut body = format!("{:x}\r\n", answer.body.len() + 1).into_bytes();
                body.append(&mut answer.body);
                body.extend(b"x\r\n0\r\n\r\n");
                answer.body = body;
                answer.headers.push(("transfer-encoding".into(), "chunked".into()));
            },
        ];
        for damage in damages {
            let (blobs, name) = (image.blobs.clone(), victim.clone());
            let registry = TestRegistry::start(move |asked| {
                let mut answer = from_blobs(&blobs, asked);
                if asked.path.contains(&name) {
                    damage(&mut answer);
                }
                answer
            })
            .await;
            let house = House::open();
            let outcome = house.get(&registry.name(&image)).await;
            assert!(is_final(&outcome), "{:?}", outcome.err());
            assert_eq!(registry.count(victim), 1);
            house.assert_clean();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_registry_costs_the_time_that_is_given_to_it() {
    // A connection that nobody accepts from: the kernel takes it, and nothing answers.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let name = format!("{}/team/tools@sha256:{}", listener.local_addr().unwrap(), image().digest);
    let mut config = config(&["*"]);
    config.timing.connect = Duration::from_millis(100);
    config.timing.answer = Duration::from_millis(100);
    let begin = Instant::now();
    assert!(is_passing(&House::new(config.clone()).get(&name).await));
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    drop(listener);
    let refused = House::new(config.clone()).get(&name).await;
    assert!(is_passing(&refused), "nobody listens");

    config.timing.pull = Duration::from_millis(200);
    config.timing.idle = Duration::from_secs(60);
    let image = image();
    let blobs = image.blobs.clone();
    let registry = TestRegistry::start(move |asked| {
        let mut answer = from_blobs(&blobs, asked);
        answer.stall = asked.path.contains("/blobs/").then_some(1);
        answer
    })
    .await;
    let outcome = House::new(config).get(&registry.name(&image)).await;
    assert!(matches!(&outcome, Err(Problem::Passing { text, .. }) if text.contains("longer than")));
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_end_are_cut() {
    let digest = image().digest;
    let huge: Arc<OnceLock<Vec<u8>>> = Arc::default();
    let registry = TestRegistry::start(move |_| {
        RegistryResponse::ok(huge.get_or_init(|| vec![b' '; 5 << 20]).clone())
    })
    .await;
    let name = format!("{}/a@sha256:{digest}", registry.address);
    let error = House::open().get(&name).await.err().unwrap();
    assert!(
        matches!(&error, Problem::Final(text) if text.contains("more than 4194304 bytes")),
        "{error}"
    );
}
