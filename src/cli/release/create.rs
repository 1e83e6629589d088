//! `kiln release create`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, ValueHint};
use kiln_deploy::releases::ReleaseName;
use kiln_deploy::resource::DigestSet;
use kiln_deploy::signing::keys::KeySource;
use kiln_deploy::signing::{IN_TOTO_TYPE, Signer, SimpleSigning, Statement, pae};
use kiln_net::causes;

use super::keys;
use super::show::shown;
use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use kiln_web::json::{
    Release, ReleaseDraft, ReleaseForm, ReleaseRequest, ReleaseSignatures, ReleaseStatement,
};

/// Make a release of what a target left in an invocation.
///
/// The server takes the target's outputs: an image where they are an image layout, else files, which it packs
/// into a layer. It derives the provenance from what it executed, and signs with its key (releases.key); with --key what is to
/// be signed comes here, and the key never leaves this machine. The same content under the same name is the same release; other
/// content under that name is refused.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln release create team/app:1.4 --invocation 3fa2... --target //app:image
  kiln release create team/app:1.4 --invocation 3fa2... --target //app --source git+https://git.example/app@$(git rev-parse HEAD) --branch main
  kiln release create team/app:1.4 --invocation 3fa2... --target //app --output app/server --output app/config.json
  kiln release create team/app:1.4 --invocation 3fa2... --target //app --key release.pem
  KILN_RELEASE_PASSPHRASE=... kiln release create ... --key env:RELEASE_KEY

It takes the role release-manager or admin; on a loopback address without access files the server's own user or root.")]
pub struct Create {
    /// Repository and version, such as team/app:1.4
    #[arg(value_name = "NAME", value_hint = ValueHint::Other)]
    name: ReleaseName,

    /// The build that made it
    #[arg(long, value_name = "ID", value_hint = ValueHint::Other)]
    invocation: String,

    /// The label of what is released
    #[arg(long, value_name = "LABEL", value_hint = ValueHint::Other)]
    target: String,

    /// The commit that was built, which the server cannot see: git+URL@COMMIT, and ?ref=refs/heads/BRANCH behind it [default: as build
    /// events say]
    #[arg(long, value_name = "SOURCE", value_hint = ValueHint::Other)]
    source: Option<String>,

    /// The branch that was built [default: as build events say]
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Other)]
    branch: Option<String>,

    /// One of the target's outputs: a path, its end, or a directory above it [default: all]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::Other)]
    output: Vec<String>,

    /// Take nothing but an image
    #[arg(long, conflicts_with = "files")]
    image: bool,

    /// Pack the outputs, even where they are an image layout
    #[arg(long)]
    files: bool,

    /// What packed files run on
    #[arg(long, value_name = "OS/ARCHITECTURE", default_value = "linux/amd64", value_hint = ValueHint::Other)]
    platform: String,

    /// Sign here: a private key in PEM, or in JSON which program signs; or env:NAME [default: the server signs]
    #[arg(long, value_name = "FILE")]
    key: Option<KeySource>,

    /// For programs
    #[arg(long)]
    json: bool,
}

impl Create {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        // A key that cannot be used should cost the server nothing.
        let key = self.key.as_ref().map(keys::private).transpose()?;
        let server = Api::new(target)?.patient();
        let json = self.json;
        let request = self.request(target);
        let answer = match key {
            None => server.post("/releases", &request).await?,
            Some(key) => sign(&server, &request, &*key).await?,
        };
        api::print(answer, json, |it: &Release| format!("released {}", shown(it)))?;
        Ok(Exit::Done)
    }

    fn request(self, target: &Target) -> ReleaseRequest {
        ReleaseRequest {
            instance: target.instance.clone(),
            name: self.name.to_string(),
            invocation: self.invocation,
            target: self.target,
            source: self.source,
            branch: self.branch,
            outputs: self.output,
            form: match (self.image, self.files) {
                (true, _) => ReleaseForm::Image,
                (_, true) => ReleaseForm::Files,
                _ => ReleaseForm::Any,
            },
            platform: Some(self.platform),
        }
    }
}

async fn sign(
    server: &Api,
    request: &ReleaseRequest,
    key: &dyn Signer,
) -> Result<serde_json::Value, CliError> {
    let prepared: ReleaseDraft = api::read(server.post("/releases/prepare", request).await?)?;
    let Some(draft) = prepared.draft else {
        check_key(prepared.existing.as_ref(), key)?;
        return serde_json::to_value(&prepared.existing)
            .map_err(|error| CliError::machine(error.to_string()));
    };
    let failed = |error: &(dyn std::error::Error + 'static)| {
        CliError::machine(format!("cannot sign: {}", causes::chain(error)))
    };
    let mut signatures = Vec::new();
    for statement in &prepared.statements {
        let message = checked(statement, &prepared.digest)?;
        let signature = key.sign(&message).map_err(|error| failed(&error))?;
        signatures.push(STANDARD.encode(signature));
    }
    if let Some(image) = &prepared.image {
        let document = checked_image(image, &prepared.digest)?;
        let signature = key.sign(&document).map_err(|error| failed(&error))?;
        signatures.push(STANDARD.encode(signature));
    }
    let signed = ReleaseSignatures {
        instance: request.instance.clone(),
        draft,
        public_key: key.public_key().to_pem().map_err(|error| failed(&error))?,
        signatures,
    };
    server.post("/releases/sign", &signed).await
}

/// The document of cosign's older signature: it names the manifest that is said, and says nothing beside.
fn checked_image(image: &str, digest: &str) -> Result<Vec<u8>, CliError> {
    let refused = |why: String| {
        CliError::answered(format!("the server wants something else to be signed: {why}"))
            .hint("nothing was signed")
    };
    let document = STANDARD.decode(image).map_err(|_| refused("it is no base64".to_owned()))?;
    match SimpleSigning::check(&document, digest) {
        Ok(beside) if beside.is_empty() => Ok(document),
        Ok(_) => Err(refused("it says more of the image".to_owned())),
        Err(error) => Err(refused(causes::chain(&error))),
    }
}

/// Refuses to go on where a release of this name is there already and signed by another key: nobody
/// is to think that this key has signed it.
fn check_key(existing: Option<&Release>, key: &dyn Signer) -> Result<(), CliError> {
    let own = key.public_key().to_pem().unwrap_or_default();
    match existing.filter(|it| it.public_key.trim() != own.trim()) {
        None => Ok(()),
        Some(it) => {
            let message = format!("{} is there already, and signed by another key", it.name);
            Err(CliError::answered(message)
                .hint("nothing was signed; give this one another version"))
        }
    }
}

/// The bytes to be signed: nothing is signed but a statement of the kind that is said, about the manifest that is said.
fn checked(statement: &ReleaseStatement, digest: &str) -> Result<Vec<u8>, CliError> {
    let refused = |why: &str| {
        CliError::answered(format!("the server wants something else to be signed: {why}"))
            .hint("nothing was signed")
    };
    let message = STANDARD.decode(&statement.message).map_err(|_| refused("it is no base64"))?;
    let begins = message.iter().position(|it| *it == b'{').ok_or_else(|| refused("no JSON"))?;
    let payload = message.get(begins..).unwrap_or_default();
    if pae(IN_TOTO_TYPE, payload) != message {
        return Err(refused("it is no in-toto statement"));
    }
    let read = Statement::read(payload).map_err(|error| refused(&causes::chain(&error)))?;
    let (function, hex) = digest.split_once(':').unwrap_or_default();
    let content = DigestSet::from([(function.to_owned(), hex.to_owned())]);
    let is_it = read.is_about(&content) && read.predicate_type == statement.predicate_type;
    is_it.then_some(message).ok_or_else(|| refused("it is about something else"))
}
