//! Requests to the targets themselves. The query is a path; what comes of it are counts of requests that failed, out of
//! all, as they are now. Who is asked are the addresses that targets have: they say so themselves, so no more than
//! whether a request failed is made of an answer, and addresses of this machine have to be allowed.

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt as _};
use kiln_net::counts::duration;
use kiln_net::http::{Client, header};
use kiln_net::{Reach, Url, urls};

use crate::judge::Counts;
use crate::rollouts::parts::{Asked, Cohort, Measured, Query, Signals, Target};
use crate::words::is_address;

/// Targets of a cohort that are asked: evenly spread where there are more.
const MAX_TARGETS: usize = 200;
/// Requests at a time.
const AT_ONCE: usize = 16;
const MAX_PATH: usize = 2_000;

pub struct Probe {
    pub client: Client,
    /// The scheme of the URLs that are probed: `https`, or `http` without TLS.
    pub scheme: &'static str,
    /// What is sent as the name of the host, where it is not the target's.
    pub host: Option<header::HeaderValue>,
    /// Statuses that are no failure.
    pub statuses: RangeInclusive<u16>,
    /// Requests to each target.
    pub samples: usize,
    /// How long one request may take.
    pub patience: Duration,
    /// How long all requests may take together.
    pub timeout: Duration,
    pub reach: Reach,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Probed {
    Well,
    /// An answer with another status.
    Unwell,
    /// The target gave no answer.
    Silent,
}

#[async_trait]
impl Signals for Probe {
    async fn measure(&self, asked: &Asked) -> Measured {
        let Query::Points(path) = &asked.query else {
            return Measured::Failed(
                "a probe's query is a path, as /healthz: it counts by itself".to_owned(),
            );
        };
        let cohorts = &asked.cohorts;
        let probing = async {
            let canary = self.probe(path, &cohorts.canary).await?;
            let baseline = self.probe(path, &cohorts.baseline).await?;
            Ok::<_, String>((canary, baseline))
        };
        match tokio::time::timeout(self.timeout, probing).await {
            Err(_) => {
                let limit = duration(self.timeout);
                Measured::Failed(format!("the probes took longer than {limit}"))
            }
            Ok(Err(why)) => Measured::Failed(why),
            Ok(Ok((canary, baseline))) => counted(&canary, &baseline),
        }
    }
}

/// Counts the probes that failed. Where all of them did, or all of the baseline, it is whoever probes that is in doubt.
fn counted(canary: &[Probed], baseline: &[Probed]) -> Measured {
    let counts = |of: &[Probed]| Counts {
        bad: of.iter().filter(|it| **it != Probed::Well).count() as u64,
        total: of.len() as u64,
    };
    let (asked, other) = (counts(canary), counts(baseline));
    if canary.iter().chain(baseline).all(|it| *it == Probed::Silent) {
        return Measured::Failed(format!(
            "none of {} probes was answered",
            asked.total + other.total
        ));
    }
    if other.total > 0 && other.bad == other.total {
        return Measured::Failed(format!(
            "all {} probes of the baseline failed as well",
            other.total
        ));
    }
    Measured::Counts { canary: asked, baseline: other }
}

impl Probe {
    async fn probe(&self, path: &str, cohort: &Cohort) -> Result<Vec<Probed>, String> {
        let targets = spread(&cohort.targets);
        let urls: Vec<Url> = targets.map(|it| self.url(it, path)).collect::<Result<_, _>>()?;
        let requests = (0..self.samples).flat_map(|_| urls.iter().cloned());
        let probes: Vec<_> = requests.map(|url| self.request(url)).collect();
        Ok(stream::iter(probes).buffer_unordered(AT_ONCE).collect().await)
    }

    fn url(&self, target: &Target, path: &str) -> Result<Url, String> {
        let name = &target.name;
        let address =
            target.address.as_deref().ok_or_else(|| format!("the target {name} has no address"))?;
        if !is_address(address) {
            return Err(format!("the target {name} has an address that is none"));
        }
        if !path.starts_with('/')
            || path.len() > MAX_PATH
            || path.contains(|it: char| it.is_control())
        {
            return Err("expected a path for a query, as /healthz".to_owned());
        }
        let url = urls::parse(&format!("{}://{address}{path}", self.scheme))
            .map_err(|error| error.to_string())?;
        match urls::literal_address(&url) {
            Some(address) if !self.reach.includes(address) => Err(out_of_reach(name, address)),
            _ => Ok(url),
        }
    }

    async fn request(&self, url: Url) -> Probed {
        let mut request = self.client.get(url).timeout(self.patience);
        if let Some(host) = &self.host {
            request = request.header(header::HOST, host.clone());
        }
        match request.send().await {
            Err(_) => Probed::Silent,
            Ok(answer) if self.statuses.contains(&answer.status().as_u16()) => Probed::Well,
            Ok(_) => Probed::Unwell,
        }
    }
}

fn out_of_reach(name: &str, address: IpAddr) -> String {
    let what = kiln_net::reach::described(address);
    format!("the target {name} is at {address}, {what}: `local = true` allows that")
}

fn spread(targets: &[Target]) -> impl Iterator<Item = &Target> {
    let part = targets.len().div_ceil(MAX_TARGETS).max(1);
    targets.iter().step_by(part)
}

#[cfg(test)]
mod tests {
    use super::Probed::{Silent, Unwell, Well};
    use super::*;

    #[test]
    fn who_probes_is_in_doubt_where_everything_fails() {
        let counts = |bad, total| Counts { bad, total };
        assert_eq!(
            counted(&[Well, Unwell, Silent], &[Well, Well]),
            Measured::Counts { canary: counts(2, 3), baseline: counts(0, 2) }
        );
        assert_eq!(
            counted(&[Unwell, Unwell], &[]),
            Measured::Counts { canary: counts(2, 2), baseline: counts(0, 0) }
        );
        for (canary, baseline) in [
            (&[Silent, Silent][..], &[][..]),
            (&[Silent], &[Silent]),
            (&[Well], &[Unwell, Silent]),
            (&[], &[]),
        ] {
            assert!(matches!(counted(canary, baseline), Measured::Failed(_)));
        }
    }

    #[test]
    fn many_targets_are_spread_evenly() {
        let target =
            |at: usize| Target { name: at.to_string(), address: None, labels: Default::default() };
        for (all, asked) in [(0, 0), (1, 1), (200, 200), (201, 101), (100_000, 200)] {
            let targets: Vec<_> = (0..all).map(target).collect();
            assert_eq!(spread(&targets).count(), asked);
        }
    }
}
