//! State that answers to the requests of one thread need.

use std::sync::Arc;

use axum::Router;
use kiln_cas::budget::Budget;

use super::gate::Gate;
use super::limits::FrontLimits;
use super::site::Site;
use super::tls::Tls;
use crate::auth::failures::Failures;
use crate::telemetry::requests::Lane;

/// State that the connections of one thread share.
pub struct Service {
    pub router: Router,
    pub counters: Arc<Lane>,
    pub tls: Option<Arc<Tls>>,
    /// `None`: everybody may do everything.
    pub gate: Option<Gate>,
    pub site: Arc<Site>,
    pub limits: FrontLimits,
    pub failures: Arc<Failures>,
    pub budget: Budget,
}
