//! Brings environments up and takes them down, on any of several servers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kiln_net::causes::chain;
use kiln_net::process::OutputListener;
use tokio::sync::{Notify, OnceCell, Semaphore};

use super::figures::PreviewFigures;
use super::kept::{Kept, MAX_KEPT};
use super::kinds::How;
use super::machine::{Claim, Phase, Preview};
use super::parity::DescriptionError;
use super::recipe::{Address, Recipe, Which, is_name};
use super::steps::{Given, StepError, run_steps};
use super::turns::{Turns, Working};
use crate::model::Time;
use crate::pipelines::TaskKey;
use crate::services::Clock;
use crate::stages::{Forms, Secret, SecretError, SecretList, forms};
use crate::storage::{Records, StorageError};

/// How much longer earlier versions leave one to whoever works on it than that may take.
pub(super) const SLACK: Duration = Duration::from_secs(30);
/// Looks at what differs that people ask for at the same time: each runs programs of the operator.
pub(super) const MAX_ASKED: usize = 2;
/// Bytes of an address.
const MAX_ADDRESS: usize = 2_000;

/// A kind of environments as the operator lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kind {
    pub how: How,
    /// How long bringing one up may take, and taking it down.
    pub up_limit: Duration,
    pub down_limit: Duration,
    /// How long one stays at most, and how many there may be at a time.
    pub longest: Duration,
    pub most: usize,
    pub env: Vec<String>,
    /// Variable -> the name of a secret.
    pub secrets: BTreeMap<String, String>,
    /// Pipelines that may; empty: all.
    pub pipelines: Vec<String>,
    /// A program that describes an environment by `KILN_PREVIEW`; and what it is called that all of the kind stand for.
    pub describe: Vec<String>,
    pub stands_for: String,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Ask<'a> {
    /// The attempt: it has one environment of a kind.
    pub key: &'a TaskKey,
    pub kind: &'a str,
    pub instance: &'a str,
    pub pipeline: &'a str,
    pub by: &'a str,
    pub keep: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum PreviewError {
    #[error("what is known of environments cannot be read or written")]
    Storage(#[from] StorageError),
    #[error("the operator of this server lists no environment {0:?}")]
    NoKind(String),
    #[error("{0}")]
    Refused(String),
    #[error("a secret of the environment cannot be had")]
    Secret(#[from] SecretError),
    #[error("{name} did not come up")]
    NotUp {
        name: String,
        #[source]
        source: StepError,
    },
    #[error("{name} does not answer")]
    Check {
        name: String,
        #[source]
        source: StepError,
    },
    #[error("{name} cannot be described")]
    Describe {
        name: String,
        #[source]
        source: StepError,
    },
    #[error("what {name} is said to be cannot be read")]
    Description {
        name: String,
        #[source]
        source: DescriptionError,
    },
    /// Another server brings the environment up, or did when it ended.
    #[error("{0} is being brought up by a server that may have ended")]
    Elsewhere(String),
}

/// Whoever is told of environments that are still up and should not be.
#[async_trait]
pub trait TellStuck: Send + Sync + 'static {
    /// Errors: in words, why nobody heard it. It is told again when it has failed twice as often.
    async fn stuck(&self, preview: &Preview) -> Result<(), String>;
}

/// What environments stand on.
pub struct PreviewParts {
    pub records: Arc<dyn Records>,
    pub clock: Arc<dyn Clock>,
    pub kinds: BTreeMap<String, Kind>,
    pub secrets: SecretList,
    /// A name of this process that no other one has.
    pub who: String,
    /// `None`: the log alone says it.
    pub teller: Option<Arc<dyn TellStuck>>,
    /// The counts of environments by phase, which metrics read.
    pub figures: Arc<PreviewFigures>,
}

/// The environments of a server.
pub struct Previews {
    pub(super) kept: Kept,
    pub(super) turns: Turns,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) kinds: BTreeMap<String, Kind>,
    secrets: SecretList,
    pub(super) who: String,
    pub(super) teller: Option<Arc<dyn TellStuck>>,
    pub(super) figures: Arc<PreviewFigures>,
    prefix: OnceCell<String>,
    /// Wakes what takes environments down: there may be something to do.
    pub(super) wake: Notify,
    /// Room for those who ask what differs.
    pub(super) asked: Semaphore,
}

/// The secrets of a kind, and what is not to be seen of them.
pub struct Unlocked {
    pub secrets: BTreeMap<String, Secret>,
    pub forms: Forms,
}

fn hash(text: &str, length: usize) -> String {
    let hash = blake3::derive_key("kiln 2026 name of an environment", text.as_bytes());
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    hex.chars().take(length).collect()
}

impl Previews {
    pub fn new(parts: PreviewParts) -> Arc<Self> {
        let PreviewParts { records, clock, kinds, secrets, who, teller, figures } = parts;
        Arc::new(Self {
            kept: Kept::new(records.clone()),
            turns: Turns::new(records, who.clone()),
            clock,
            kinds,
            secrets,
            who,
            teller,
            figures,
            prefix: OnceCell::new(),
            wake: Notify::new(),
            asked: Semaphore::new(MAX_ASKED),
        })
    }

    pub(super) fn now(&self) -> Time {
        self.clock.now()
    }

    pub(super) fn kind(&self, name: &str) -> Result<&Kind, PreviewError> {
        let unknown = || PreviewError::NoKind(name.chars().take(80).collect());
        self.kinds.get(name).ok_or_else(unknown)
    }

    /// How the names of all environments of these records begin.
    pub async fn prefix(&self) -> Result<&str, StorageError> {
        let made = || async {
            let owner = self.kept.owner(&hash(&self.who, 8)).await?;
            Ok::<_, StorageError>(format!("kiln-{owner}-"))
        };
        self.prefix.get_or_try_init(made).await.map(String::as_str)
    }

    /// All environments that are not gone, and those that went lately.
    pub async fn list(&self) -> Result<Vec<Preview>, StorageError> {
        self.kept.all().await
    }

    /// An environment by its name; `None`: there is none.
    pub async fn get(&self, name: &str) -> Result<Option<Preview>, StorageError> {
        if is_name(name) { self.kept.get(name).await } else { Ok(None) }
    }

    pub async fn unlocked(&self, kind: &str) -> Result<Unlocked, PreviewError> {
        let secrets = self.secrets.read(&self.kind(kind)?.secrets).await?;
        let forms = forms(&secrets)?;
        Ok(Unlocked { secrets, forms })
    }

    /// Brings one up, or finds the one that this attempt brought up before. Dropping the future leaves it to be taken down.
    pub async fn up(
        &self,
        ask: &Ask<'_>,
        unlocked: &Unlocked,
        told: &OutputListener<'_>,
    ) -> Result<Preview, PreviewError> {
        let kind = self.kind(ask.kind)?;
        let name = self.name(ask).await?;
        if let Some(known) = self.kept.get(&name).await? {
            return match known.phase {
                Phase::Up => Ok(known),
                Phase::Coming => Err(PreviewError::Elsewhere(name)),
                Phase::Going | Phase::Gone => {
                    Err(PreviewError::Refused(format!("{name} was taken down: {}", known.why)))
                }
            };
        }
        let preview = self.planned(ask, kind, name).await?;
        // Before it is noted: whoever finds it leaves it to this server.
        let Some(working) = self.turns.take(&preview.name).await? else {
            return Err(PreviewError::Elsewhere(preview.name));
        };
        let brought = self.brought_up(&preview, kind, (unlocked, told), &working).await;
        working.end().await;
        brought
    }

    async fn brought_up(
        &self,
        preview: &Preview,
        kind: &Kind,
        (unlocked, told): (&Unlocked, &OutputListener<'_>),
        working: &Working,
    ) -> Result<Preview, PreviewError> {
        let name = preview.name.clone();
        // Written down before there is one.
        if !self.kept.add(preview).await? {
            return Err(PreviewError::Elsewhere(name));
        }
        let which = self.which(preview).await?;
        let recipe = kind.how.recipe(&which);
        let given = given(preview, kind, which, unlocked);
        let up = Box::pin(run_steps(&recipe.up, &given, kind.up_limit, told));
        match working.doing(up).await {
            None => Err(PreviewError::Elsewhere(name)),
            Some(Ok(printed)) => self.came(preview, &recipe, &printed).await,
            Some(Err(source)) => {
                let error = PreviewError::NotUp { name, source };
                self.give_up(&preview.name, &chain(&error)).await?;
                Err(error)
            }
        }
    }

    async fn name(&self, ask: &Ask<'_>) -> Result<String, PreviewError> {
        let key = format!("{}/{}", ask.key, ask.kind);
        Ok(format!("{}{}-{}", self.prefix().await?, ask.kind, hash(&key, 10)))
    }

    /// What is to be written down of it.
    async fn planned(
        &self,
        ask: &Ask<'_>,
        kind: &Kind,
        name: String,
    ) -> Result<Preview, PreviewError> {
        let refused = |why: String| Err(PreviewError::Refused(why));
        if !kind.pipelines.is_empty() && !kind.pipelines.iter().any(|it| it == ask.pipeline) {
            return refused(format!("the operator lets other pipelines have {:?}", ask.kind));
        }
        if ask.keep > kind.longest || ask.keep.is_zero() {
            let most = kind.longest.as_secs();
            return refused(format!("{:?} stays from a second to {most} s", ask.kind));
        }
        let all = self.kept.all().await?;
        let there = all.iter().filter(|it| it.kind == ask.kind && it.phase != Phase::Gone).count();
        if there >= kind.most || all.len() >= MAX_KEPT {
            return refused(format!("there are {there} of {:?}, and no more may be", ask.kind));
        }
        let now = self.now();
        Ok(Preview {
            name,
            kind: ask.kind.to_owned(),
            instance: ask.instance.to_owned(),
            pipeline: ask.pipeline.to_owned(),
            run: ask.key.run.clone(),
            by: ask.by.to_owned(),
            made: now,
            // Its time begins when it is there.
            expires: now.plus(ask.keep).plus(kind.up_limit),
            phase: Phase::Coming,
            address: None,
            claim: Some(Claim {
                holder: self.who.clone(),
                until: now.plus(kind.up_limit).plus(SLACK),
                leased: true,
            }),
            failures: 0,
            not_before: Time(0),
            why: String::new(),
            changed: now,
        })
    }

    async fn came(
        &self,
        preview: &Preview,
        recipe: &Recipe,
        printed: &str,
    ) -> Result<Preview, PreviewError> {
        let address = match &recipe.address {
            Address::LastLine => {
                printed.trim_end().lines().last().unwrap_or_default().trim().to_owned()
            }
            Address::Template(text) => text.replace("{name}", &preview.name),
        };
        let fits = address.len() <= MAX_ADDRESS && !address.chars().any(char::is_control);
        if address.is_empty() || !fits {
            let why = "bringing it up printed no address as its last line";
            self.give_up(&preview.name, why).await?;
            return Err(PreviewError::Refused(format!("{}: {why}", preview.name)));
        }
        let now = self.now();
        let came = |it: &mut Preview| it.came(&self.who, &address, now);
        match self.kept.change(&preview.name, came).await? {
            Some((preview, Ok(()))) => {
                // Whoever sweeps here hears of its time.
                self.wake.notify_one();
                Ok(preview)
            }
            Some((_, Err(late))) => {
                self.give_up(&preview.name, &late.to_string()).await?;
                Err(PreviewError::Refused(format!("{}: {late}", preview.name)))
            }
            None => Err(PreviewError::Refused(format!("{} is not known any more", preview.name))),
        }
    }

    pub(super) async fn which<'p>(
        &'p self,
        preview: &'p Preview,
    ) -> Result<Which<'p>, StorageError> {
        let (name, run, expires) = (&preview.name, &preview.run, preview.expires);
        Ok(Which { name, prefix: self.prefix().await?, run, expires })
    }
}

/// What the steps of one are given.
pub(super) fn given<'p>(
    preview: &'p Preview,
    kind: &'p Kind,
    which: Which<'p>,
    unlocked: &'p Unlocked,
) -> Given<'p> {
    let Unlocked { secrets, forms } = unlocked;
    Given { which, kind: &preview.kind, env: &kind.env, secrets, forms }
}
