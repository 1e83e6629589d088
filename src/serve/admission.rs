//! Who may connect, and what they may do: TLS, authentication and authorization, made from the settings.

use std::io;
use std::sync::Arc;

use kiln_cas::access::{Everybody, Right, SharedAuthorizer};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::options::{ServeError, ServeOptions};
use crate::auth::access::RoleAuthorizer;
use crate::auth::failures::Failures;
use crate::auth::local::LocalAuthorizer;
use crate::auth::permissions::{Door, Permission};
use crate::auth::{Auth, AuthOptions};
use crate::front::{Resolved, Tls, TlsOptions};
use crate::telemetry::{CertificateEnd, Security};
use kiln_net::reload::{self, Reload, Reloads};

/// The permission that a reader of metrics needs.
const METRICS: Permission = Permission::Closable(Door::Metrics, Right::Read);

/// Who may connect to one address.
pub struct Admission {
    /// Certificate and key of the address; `None`: it speaks plain HTTP.
    pub tls: Option<Arc<Tls>>,
    /// How callers prove who they are; `None`: nobody is asked.
    pub auth: Option<Arc<Auth>>,
    pub failures: Arc<Failures>,
    pub reloads: Reloads,
}

impl Admission {
    /// Reads every file that `tls` and `auth` name.
    pub fn load(
        listen: &Resolved,
        tls: Option<TlsOptions>,
        auth: Option<AuthOptions>,
    ) -> Result<Self, ServeError> {
        let failures = Arc::<Failures>::default();
        if auth.is_some() && tls.is_none() && !listen.is_loopback() {
            tracing::warn!(
                "without TLS, tokens can be read on their way: set tls.cert and tls.key"
            );
        }
        let certificates = tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
        let auth = match auth {
            None => None,
            Some(options) => {
                let secret = secret().map_err(ServeError::Random)?;
                Some(Arc::new(Auth::new(options, certificates, secret, failures.clone())?))
            }
        };
        let tls = tls.map(Tls::load).transpose()?.map(Arc::new);
        Ok(Self { tls, auth, failures, reloads: Reloads::default() })
    }

    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Who decides what callers of a server may do.
    pub fn authorizer(&self, options: &ServeOptions) -> SharedAuthorizer {
        let everybody = Everybody { write_results: options.allow_cache_updates };
        match &self.auth {
            Some(_) => Arc::new(RoleAuthorizer(self.failures.clone())),
            None if options.listen.is_loopback() && !options.insecure => {
                Arc::new(LocalAuthorizer::new(everybody))
            }
            None => Arc::new(everybody),
        }
    }

    /// Whether whoever reads metrics may read of builds as well.
    pub fn metrics_may_name_properties(&self) -> bool {
        self.auth.as_ref().is_none_or(|auth| !auth.opens(METRICS))
    }

    pub fn security(&self) -> Security {
        let end = |tls: Arc<Tls>| Arc::new(move || tls.not_after()) as CertificateEnd;
        Security {
            failures: self.failures.clone(),
            certificate_end: self.tls.clone().map(end),
            reloads: self.reloads.clone(),
        }
    }

    /// Reads files again when they change, and fetches keys, until `stop`.
    pub async fn keep_current(
        &self,
        stop: &CancellationToken,
    ) -> Result<Vec<JoinHandle<()>>, ServeError> {
        let tls = self.tls.iter().map(|tls| tls.clone() as Arc<dyn Reload>);
        let auth = self.auth.iter().map(|auth| auth.clone() as Arc<dyn Reload>);
        let items = tls.chain(auth).collect();
        let mut tasks = vec![reload::watch(items, &self.reloads, stop.clone())];
        if let Some(auth) = &self.auth {
            tasks.extend(auth.keep_keys(stop.clone()).await?);
        }
        Ok(tasks)
    }
}

/// Waits until what [`Admission::keep_current`] has started has ended.
pub async fn join_all(tasks: Vec<JoinHandle<()>>) {
    for task in tasks {
        if let Err(error) = task.await {
            tracing::error!(%error, "a task that keeps files or keys current failed");
        }
    }
}

/// Returns random bytes that nobody else knows, read from `/dev/urandom`.
pub fn secret() -> io::Result<[u8; 32]> {
    use std::io::Read;
    let mut secret = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut secret)?;
    Ok(secret)
}
