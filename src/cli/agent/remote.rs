//! An agent's way to its server: JSON over HTTP, which every frontend of a fleet answers.

use std::io::{self, Read};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use kiln_deploy::agent::{Content, Link, LinkError, Order, Report, Speaker, Wanted, short};
use kiln_deploy::oci::ContentDigest;
use kiln_deploy::rollouts::machine::Generation;
use kiln_deploy::swarm::pieces::MAX_LIST;
use kiln_deploy::swarm::{Share, Shared};
use kiln_net::grpc::{AddressError, Token, address};
use kiln_net::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use kiln_net::http::{Client, Options, Response, StatusCode, client, collect, described};
use kiln_net::tls::{TlsFiles, client_config, without_trust};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::cli::error::CliError;
use crate::cli::release::{described_release, sizes};
use crate::cli::target::Target;
use kiln_web::json::{
    AgentAnswer, AgentFetch, AgentHeard, AgentQuestion, AgentReport, AgentShare, AgentShared,
    ErrorBody, Release,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an answer may take that is not waited with on purpose, and the next bytes of one.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the answer to a report may take: when a server is gone, the next one gets the report
/// before this agent counts as silent.
const REPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a server may take to cut a release.
const PIECES_TIMEOUT: Duration = Duration::from_secs(300);
/// Largest answer that is read as a whole, in bytes: what a release is made of has many lines.
const MAX_ANSWER: usize = 64 << 20;

/// A client for a server, or for a probe.
pub fn http(tls: &TlsFiles, secure: bool, connect: Duration) -> Result<Client, CliError> {
    let tls = match secure {
        true => client_config(tls).map_err(AddressError::from)?,
        false => without_trust().map_err(AddressError::from)?,
    };
    client(Options::new(tls, connect)).map_err(|error| CliError::of_machine(&error))
}

struct Server {
    base: String,
    client: Client,
}

pub struct Remote {
    servers: Vec<Server>,
    /// The one that is asked.
    current: AtomicUsize,
    token: Option<Token>,
    runtime: Handle,
    stop: CancellationToken,
}

impl Remote {
    /// Must be called within a Tokio runtime. `stop` ends what is waited for.
    pub fn new(target: &Target, stop: CancellationToken) -> Result<Self, CliError> {
        let server = |url: &str| {
            let (base, secure) = address(url.trim_end_matches('/'))?;
            let client = http(&target.credentials.tls, secure, CONNECT_TIMEOUT)?;
            Ok::<_, CliError>(Server { base, client })
        };
        Ok(Self {
            servers: target.urls().map(server).collect::<Result<_, _>>()?,
            current: AtomicUsize::new(0),
            token: target.credentials.token.clone(),
            runtime: Handle::current(),
            stop,
        })
    }

    /// Asks one server; where it is not heard within `limit`, the next call goes to the next one.
    async fn ask(
        &self,
        path: &str,
        body: &impl Serialize,
        limit: Duration,
    ) -> Result<Response, LinkError> {
        let body =
            serde_json::to_vec(body).map_err(|error| LinkError::Refused(error.to_string()))?;
        let place = self.current.load(Ordering::Relaxed);
        let server = self.servers.get(place % self.servers.len().max(1));
        let server =
            server.ok_or_else(|| LinkError::Unreachable("there is no server".to_owned()))?;
        let url = format!("{}/api/v1/fleet/agent/{path}", server.base);
        let url = kiln_net::urls::parse(&url)
            .map_err(|error| LinkError::Unreachable(error.to_string()))?;
        let mut request =
            server.client.post(url).header(CONTENT_TYPE, "application/json").body(body);
        if let Some(token) = &self.token {
            let value = HeaderValue::try_from(token.authorization());
            let mut value = value.map_err(|error| LinkError::Refused(error.to_string()))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let answer = tokio::select! {
            answer = tokio::time::timeout(limit, request.send()) => answer,
            () = self.stop.cancelled() => return Err(LinkError::Unreachable("the agent ends".to_owned())),
        };
        let turn = |why: String| {
            self.current.store(place.wrapping_add(1), Ordering::Relaxed);
            LinkError::Unreachable(format!("{}: {why}", server.base))
        };
        let answer = answer.map_err(|_| turn("it does not answer".to_owned()))?;
        let answer = answer.map_err(|error| turn(described(error)))?;
        match answer.status() {
            StatusCode::OK => Ok(answer),
            status if status.is_server_error() => Err(turn(said(status, answer).await)),
            status => Err(LinkError::Refused(said(status, answer).await)),
        }
    }

    async fn bytes(answer: Response, most: usize) -> Result<Vec<u8>, LinkError> {
        let body = tokio::time::timeout(ANSWER_TIMEOUT, collect(answer, most)).await;
        let body = body.map_err(|error| unread(&error))?;
        body.map_err(|error| unread(&error))
    }

    async fn read<T: DeserializeOwned>(answer: Response) -> Result<T, LinkError> {
        let body = Self::bytes(answer, MAX_ANSWER).await?;
        serde_json::from_slice(&body).map_err(|error| unread(&error))
    }

    fn call<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
        limit: Duration,
    ) -> Result<T, LinkError> {
        self.runtime.block_on(async { Self::read(self.ask(path, body, limit).await?).await })
    }
}

fn unread(error: &dyn std::fmt::Display) -> LinkError {
    LinkError::Unreachable(format!("its answer is not understood: {error}"))
}

async fn said(status: StatusCode, answer: Response) -> String {
    // A server that does not end its answer must not hold up whoever asks.
    let body = tokio::time::timeout(ANSWER_TIMEOUT, collect(answer, 1 << 20)).await;
    let body = body.ok().and_then(Result::ok).unwrap_or_default();
    match serde_json::from_slice::<ErrorBody>(&body) {
        Ok(ErrorBody { error }) => short(&format!("{} ({})", error.message, error.hint)),
        Err(_) => format!("it answered {status}"),
    }
}

fn fetch(speaker: &Speaker, version: &ContentDigest, wanted: Option<&Wanted<'_>>) -> AgentFetch {
    AgentFetch {
        from: speaker.into(),
        version: version.to_string(),
        blob: wanted.map(|it| it.blob.to_string()),
        start: wanted.map_or(0, |it| it.start),
        length: wanted.and_then(|it| it.length),
    }
}

impl Link for Remote {
    fn report(&self, report: &Report) -> Result<(), LinkError> {
        let said = AgentReport::from(report);
        self.call::<AgentHeard>("report", &said, REPORT_TIMEOUT).map(drop)
    }

    fn order(
        &self,
        speaker: &Speaker,
        known: Generation,
        wait: Duration,
    ) -> Result<Option<Order>, LinkError> {
        let (from, known) = (speaker.into(), known.into());
        let question = AgentQuestion { from, known, wait_s: wait.as_secs() };
        let answer: AgentAnswer = self.call("order", &question, wait + ANSWER_TIMEOUT)?;
        let order = answer.order.map(Order::try_from).transpose();
        order.map_err(|error| LinkError::Refused(error.to_string()))
    }

    fn content(&self, speaker: &Speaker, version: &ContentDigest) -> Result<Content, LinkError> {
        let asked = fetch(speaker, version, None);
        let release: Release = self.call("content", &asked, ANSWER_TIMEOUT)?;
        let refused = |error: CliError| LinkError::Refused(error.message);
        let name = release.name.parse::<kiln_deploy::releases::ReleaseName>();
        let name = name.map_err(|_| LinkError::Refused("the release has no name".to_owned()))?;
        let blobs = sizes(&release).map_err(refused)?;
        Ok(Content { release: described_release(&release, &name).map_err(refused)?, blobs })
    }

    fn blob(
        &self,
        speaker: &Speaker,
        version: &ContentDigest,
        wanted: &Wanted<'_>,
    ) -> Result<Box<dyn Read>, LinkError> {
        let asked = fetch(speaker, version, Some(wanted));
        let answer = self.runtime.block_on(self.ask("blob", &asked, ANSWER_TIMEOUT))?;
        let (runtime, stop) = (self.runtime.clone(), self.stop.clone());
        Ok(Box::new(Body { runtime, stop, answer, current: Bytes::new() }))
    }

    fn pieces(&self, speaker: &Speaker, version: &ContentDigest) -> Result<Vec<u8>, LinkError> {
        let asked = fetch(speaker, version, None);
        self.runtime.block_on(async {
            // Who asks first waits until the server has read all of it.
            let answer = self.ask("pieces", &asked, PIECES_TIMEOUT).await?;
            Self::bytes(answer, MAX_LIST).await
        })
    }

    fn share(&self, speaker: &Speaker, share: &Share) -> Result<Shared, LinkError> {
        let said = AgentShare::new(speaker.into(), share);
        let shared: AgentShared = self.call("share", &said, REPORT_TIMEOUT)?;
        Ok(shared.into())
    }
}

/// The bytes of an answer, as they come.
struct Body {
    runtime: Handle,
    stop: CancellationToken,
    answer: Response,
    current: Bytes,
}

impl Body {
    fn next(&mut self) -> io::Result<Option<Bytes>> {
        let (runtime, stop) = (self.runtime.clone(), self.stop.clone());
        runtime.block_on(async {
            let chunk = tokio::select! {
                chunk = tokio::time::timeout(ANSWER_TIMEOUT, self.answer.chunk()) => chunk,
                () = stop.cancelled() => return Err(io::Error::other("the agent ends")),
            };
            let late = |_| io::Error::from(io::ErrorKind::TimedOut);
            chunk.map_err(late)?.map_err(|error| io::Error::other(described(error)))
        })
    }
}

impl Read for Body {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.next()? {
                None => return Ok(0),
                Some(chunk) => self.current = chunk,
            }
        }
        let length = into.len().min(self.current.len());
        let read = self.current.split_to(length);
        into.get_mut(..length).unwrap_or_default().copy_from_slice(&read);
        Ok(length)
    }
}
