//! Releases are made and rejected.

use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_cas::services::account_of;
use kiln_deploy::catalog::{Asked, By, Form, Prepared, Wanted};
use kiln_deploy::promotion::Actor;
use kiln_deploy::provenance::{Revision, RevisionError};
use kiln_deploy::registry::instance_of;
use kiln_deploy::releases::{ReleaseName, named_release};
use kiln_deploy::signing::{KeyRing, PublicKey};

use super::{api, told};
use crate::error::{ApiError, WebError};
use crate::json::{
    Release, ReleaseDraft, ReleaseForm, ReleaseImport, ReleaseRejection, ReleaseRequest,
    ReleaseSignatures, ReleaseStatement,
};
use crate::state::WebState;
use crate::verdicts::{Caller, body};

/// Bytes of each text of a request, and how many outputs it names.
const MAX_TEXT: usize = 4_096;
const MAX_OUTPUTS: usize = 1_000;
const DOCS: &str = "docs/releases.md says how releases are made.";

pub async fn create(
    State(state): State<WebState>,
    caller: Caller,
    asked: Result<Json<ReleaseRequest>, JsonRejection>,
) -> Result<Json<Release>, ApiError> {
    let asked = body(asked)?;
    let who = may(&state, &caller, &asked.instance)?;
    may_show(&state, &caller, &asked.instance, &api::name(&asked.name)?)?;
    let asked = checked(&state, asked).await?;
    let releases = state.releases.clone();
    // Bounded like all that reads much: a few are made at once.
    let make = async move {
        match releases.prepare(asked, By::Server).await? {
            Prepared::Existing(entry) => Ok(*entry),
            Prepared::Draft(draft, _) => releases.sign_here(*draft, &who).await,
        }
    };
    Ok(Json(Release::from(&state.kept.beside(make).await??)))
}

pub async fn prepare(
    State(state): State<WebState>,
    caller: Caller,
    asked: Result<Json<ReleaseRequest>, JsonRejection>,
) -> Result<Json<ReleaseDraft>, ApiError> {
    let asked = body(asked)?;
    may(&state, &caller, &asked.instance)?;
    may_show(&state, &caller, &asked.instance, &api::name(&asked.name)?)?;
    let asked = checked(&state, asked).await?;
    let releases = state.releases.clone();
    let prepare = async move { releases.prepare(asked, By::Client).await };
    Ok(Json(match state.kept.beside(prepare).await?? {
        Prepared::Existing(entry) => ReleaseDraft {
            digest: entry.release.subject.digest.to_string(),
            existing: Some(Release::from(&*entry)),
            ..ReleaseDraft::default()
        },
        Prepared::Draft(draft, messages) => {
            let mut messages = messages;
            let image = messages.split_off(draft.statements.len().min(messages.len()));
            let statement = |(unsigned, message): (&kiln_deploy::catalog::Unsigned, Vec<u8>)| {
                let predicate_type = unsigned.predicate_type.clone();
                ReleaseStatement { predicate_type, message: STANDARD.encode(message) }
            };
            ReleaseDraft {
                digest: draft.release.subject.digest.to_string(),
                statements: draft.statements.iter().zip(messages).map(statement).collect(),
                image: image.first().map(|it| STANDARD.encode(it)),
                draft: Some(draft.id),
                existing: None,
            }
        }
    }))
}

pub async fn sign(
    State(state): State<WebState>,
    caller: Caller,
    signed: Result<Json<ReleaseSignatures>, JsonRejection>,
) -> Result<Json<Release>, ApiError> {
    let ReleaseSignatures { instance, draft, public_key, signatures } = body(signed)?;
    let who = may(&state, &caller, &instance)?;
    let key = PublicKey::from_pem(&public_key)
        .map_err(|error| WebError::invalid(kiln_net::causes::chain(&error), DOCS))?;
    let decoded: Result<Vec<_>, _> = signatures.iter().map(|it| STANDARD.decode(it)).collect();
    let decoded = decoded.map_err(|_| WebError::invalid("a signature is no base64", DOCS))?;
    // An hour may have passed since it was asked, and it may be somebody else.
    let name = state.releases.name_of_draft(&instance, &draft).await?;
    may_show(&state, &caller, &instance, &name)?;
    let made = state.releases.signed_elsewhere(&instance, &draft, (key, decoded), &who).await?;
    Ok(Json(Release::from(&made)))
}

pub async fn reject(
    State(state): State<WebState>,
    caller: Caller,
    rejection: Result<Json<ReleaseRejection>, JsonRejection>,
) -> Result<Json<Release>, ApiError> {
    let ReleaseRejection { instance, name, reason } = body(rejection)?;
    let who = may(&state, &caller, &instance)?;
    let name = api::name(&name)?;
    reject_everywhere(&state, &instance, &name, &reason, &who).await?;
    Ok(Json(Release::from(&state.releases.reject(&instance, &name, &reason, &who).await?)))
}

/// No environment takes its content any more. It comes first: a promotion that is under way fails on it.
async fn reject_everywhere(
    state: &WebState,
    instance: &str,
    name: &ReleaseName,
    reason: &str,
    who: &str,
) -> Result<(), WebError> {
    let Some(keeper) = &state.promotion else { return Ok(()) };
    if keeper.pipeline().instance != instance {
        return Ok(());
    }
    let by = Actor { name: who.to_owned(), automation: false };
    keeper.reject(name, &by, reason).await?;
    Ok(())
}

/// The name of the caller. Errors: they may not release in the instance.
fn may(state: &WebState, caller: &Caller, instance: &str) -> Result<String, WebError> {
    caller.may_release(&*state.access, instance)?;
    Ok(account_of(&*state.access, &caller.0).to_string())
}

/// Whether they may have it served under its name: repositories of the registry have an instance of their own, which readers
/// and writers have rights in. A version that is called as an environment is would take its tag.
fn may_show(
    state: &WebState,
    caller: &Caller,
    instance: &str,
    name: &ReleaseName,
) -> Result<(), WebError> {
    caller.may_release(&*state.access, instance_of(&name.repository))?;
    let keeper = state.promotion.as_ref().map(|it| it.pipeline());
    let environments = keeper
        .filter(|it| it.instance == instance)
        .map(|it| it.environments.keys().any(|environment| environment == name.version.as_str()));
    match environments {
        Some(true) => {
            let message = format!("{} is the name of an environment", name.version);
            Err(WebError::invalid(message, "Give the release another version."))
        }
        _ => Ok(()),
    }
}

/// The first part of a request that is too much, or nothing.
fn odd(asked: &ReleaseRequest) -> Option<&'static str> {
    if asked.outputs.len() > MAX_OUTPUTS {
        return Some("outputs");
    }
    let texts = [("invocation", &asked.invocation), ("target", &asked.target)].into_iter();
    let texts = texts.chain(asked.outputs.iter().map(|it| ("outputs", it)));
    let texts = texts.chain(asked.source.iter().map(|it| ("source", it)));
    let mut texts = texts.chain(asked.branch.iter().map(|it| ("branch", it)));
    texts.find(|(_, it)| it.is_empty() || it.len() > MAX_TEXT).map(|(what, _)| what)
}

fn unsaid(error: RevisionError) -> WebError {
    let hint = match error {
        RevisionError::Source => {
            "Write git+URL@COMMIT, with all 40 digits of the commit, and no password, token or query in the URL."
        }
        RevisionError::Branch | RevisionError::Branches => {
            "Write --branch NAME as Git has it, such as main, or ?ref=refs/heads/NAME behind the commit."
        }
        RevisionError::Differs { .. } => {
            "Release the build of that commit and branch; or build with --build_metadata=COMMIT_SHA=... and BRANCH_NAME=..., \
             which count before what a script found out."
        }
    };
    WebError::invalid(error.to_string(), hint)
}

/// What is asked, in the words of the catalog. What was executed until now is recorded first.
async fn checked(state: &WebState, asked: ReleaseRequest) -> Result<Asked, WebError> {
    let Some(executions) = &state.executions else {
        let hint = "Set releases.record at the server, and build again.";
        return Err(WebError::invalid("this server records no executions", hint));
    };
    if let Some(what) = odd(&asked) {
        return Err(WebError::invalid(format!("{what} is empty or too long"), DOCS));
    }
    let platform = asked.platform.as_deref().unwrap_or("linux/amd64");
    let is_word = |it: &str| {
        !it.is_empty() && it.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit())
    };
    let parts = platform.split_once('/').filter(|(os, rest)| is_word(os) && is_word(rest));
    let (os, architecture) = parts.ok_or_else(|| {
        let hint =
            "Write OS/ARCHITECTURE, such as linux/amd64 or linux/arm64; there are no variants.";
        WebError::invalid(format!("{platform:?} is no platform"), hint)
    })?;
    executions.flush().await;
    let told = told::told(state, &asked.instance, &asked.invocation, &asked.target).await?;
    let (source, branch) = (asked.source.as_deref(), asked.branch.as_deref());
    let revision = Revision::of(source, branch, &told.revision).map_err(unsaid)?;
    Ok(Asked {
        name: api::name(&asked.name)?,
        revision,
        platform: (os.to_owned(), architecture.to_owned()),
        form: match asked.form {
            ReleaseForm::Any => Form::Any,
            ReleaseForm::Image => Form::Image,
            ReleaseForm::Files => Form::Files,
        },
        outputs: Wanted {
            target: asked.target,
            told: told.files,
            paths: asked.outputs,
            action: None,
        },
        instance: asked.instance,
        invocation: asked.invocation,
    })
}

pub async fn import(
    State(state): State<WebState>,
    caller: Caller,
    asked: Result<Json<ReleaseImport>, JsonRejection>,
) -> Result<Json<Release>, ApiError> {
    let ReleaseImport { instance, index, public_key } = body(asked)?;
    let who = may(&state, &caller, &instance)?;
    let keys = KeyRing::read("given", &public_key)
        .map_err(|error| WebError::invalid(kiln_net::causes::chain(&error), DOCS))?;
    let index =
        STANDARD.decode(index).map_err(|_| WebError::invalid("the index is no base64", DOCS))?;
    // One that names no release is refused below.
    if let Some(name) = named_release(&index) {
        may_show(&state, &caller, &instance, &name)?;
    }
    let releases = state.releases.clone();
    let import = async move { releases.import(&instance, index, keys, &who).await };
    Ok(Json(Release::from(&state.kept.beside(import).await??)))
}
