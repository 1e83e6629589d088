//! The address of a server: it is taken first of all, and opened last.

use axum::Router;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::admission::{Admission, join_all};
use super::options::{ServeError, ServeOptions};
use crate::front::{Front, FrontParts, Reserved, Site};
use crate::telemetry::requests::Requests;

/// An address that is taken, with the rules of who may connect. Nobody can connect yet.
pub struct Entrance {
    /// The address as the configuration names it.
    asked: String,
    reserved: Reserved,
    pub admission: Admission,
}

/// An address at which requests are answered.
pub struct Opened {
    front: Front,
    /// Tasks that read changed files and fetch keys again.
    background: Vec<JoinHandle<()>>,
    stop: CancellationToken,
}

impl Entrance {
    /// Reads every file that says who may connect.
    pub fn reserve(options: &ServeOptions) -> Result<Self, ServeError> {
        let asked = options.listen.listen().to_string();
        let refused = |source| ServeError::Listen { address: asked.clone(), source };
        let reserved = options.listen.reserve().map_err(refused)?;
        let admission =
            Admission::load(&options.listen, options.tls.clone(), options.auth.clone())?;
        Ok(Self { asked, reserved, admission })
    }

    /// The address as `HOST:PORT`, with the port that was free where any was asked for.
    pub fn address(&self) -> String {
        self.reserved.authority()
    }

    /// Opens the address: requests are answered from now on. Must be called within a Tokio runtime.
    pub async fn open(
        self,
        options: &ServeOptions,
        base_url: &str,
        router: Router,
        requests: &Requests,
    ) -> Result<Opened, ServeError> {
        let Self { asked, reserved, admission } = self;
        let stop = CancellationToken::new();
        let background = admission.keep_current(&stop).await?;
        let site = Site::new(base_url, options.hosts.clone(), admission.tls.is_some());
        let parts = FrontParts {
            router,
            site: site.following_callers(options.follows_callers()),
            tls: admission.tls,
            auth: admission.auth,
            failures: admission.failures,
            limits: options.limits.clone(),
            requests,
            drain: options.drain,
        };
        let refused = |source| ServeError::Listen { address: asked, source };
        let listeners = reserved.listen().map_err(refused)?;
        let front = Front::start(listeners, parts, &stop).map_err(ServeError::Front)?;
        Ok(Opened { front, background, stop })
    }
}

impl Opened {
    /// Closes connections, within the time that they have to drain.
    pub async fn close(self) {
        self.stop.cancel();
        self.front.join().await;
        join_all(self.background).await;
    }
}
