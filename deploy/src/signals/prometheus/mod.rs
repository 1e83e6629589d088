//! Prometheus, or what speaks its HTTP API: <https://prometheus.io/docs/prometheus/latest/querying/api/>.

mod answer;
mod grid;

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use kiln_net::counts::duration;
use kiln_net::http::{Client, collect, described, header};
use kiln_net::{Url, urls};
use tokio::sync::Semaphore;

use self::grid::Grid;
use super::template;
use crate::judge::{Counts, Points};
use crate::rollouts::parts::{Asked, Cohort, Measured, Query, Signals};

/// Bytes of an answer.
const MAX_ANSWER: usize = 8 << 20;
/// Queries at a time.
pub const AT_ONCE: usize = 8;
/// Events that floating point numbers still tell apart.
const MAX_EVENTS: f64 = 4.5e15;

pub struct Prometheus {
    pub client: Client,
    /// The base URL, which ends with a slash.
    pub url: Url,
    /// The longest time that all queries of one metric may take.
    pub timeout: Duration,
    /// The file with what is sent as a bearer token; read again each time. `None`: nothing is sent.
    pub token_file: Option<PathBuf>,
    pub at_once: Semaphore,
}

/// Why there is no value of a metric.
enum Lack {
    /// There is no series at all.
    Absent(String),
    Missing(String),
    Failed(String),
}

impl From<Lack> for Measured {
    fn from(lack: Lack) -> Self {
        match lack {
            Lack::Absent(why) | Lack::Missing(why) => Self::Missing(why),
            Lack::Failed(why) => Self::Failed(why),
        }
    }
}

#[async_trait]
impl Signals for Prometheus {
    async fn measure(&self, asked: &Asked) -> Measured {
        let measuring = async {
            match &asked.query {
                Query::Points(query) => self.points(asked, query).await,
                Query::Counts { bad, total } => self.counts(asked, bad, total).await,
            }
        };
        match tokio::time::timeout(self.timeout, measuring).await {
            Ok(Ok(measured)) => measured,
            Ok(Err(lack)) => lack.into(),
            Err(_) => Measured::Failed(format!(
                "{}: no answer within {}",
                urls::shown(&self.url),
                duration(self.timeout)
            )),
        }
    }

    fn secret_files(&self) -> Vec<PathBuf> {
        self.token_file.iter().cloned().collect()
    }
}

impl Prometheus {
    async fn points(&self, asked: &Asked, query: &str) -> Result<Measured, Lack> {
        let grid = Grid::of(&asked.window).map_err(Lack::Failed)?;
        let cohorts = &asked.cohorts;
        let (canary, baseline) = tokio::join!(
            self.points_of(asked, query, "canary", &cohorts.canary, grid),
            self.points_of(asked, query, "baseline", &cohorts.baseline, grid),
        );
        match (canary, baseline) {
            (Err(Lack::Absent(why)), Ok(points)) if points.iter().any(Option::is_some) => {
                Err(Lack::Missing(format!(
                    "{why}, while there is some of the baseline: are its labels the same?"
                )))
            }
            (canary, baseline) => Ok(Measured::Points { canary: canary?, baseline: baseline? }),
        }
    }

    async fn points_of(
        &self,
        asked: &Asked,
        query: &str,
        side: &str,
        cohort: &Cohort,
        grid: Grid,
    ) -> Result<Points, Lack> {
        if cohort.targets.is_empty() {
            return Ok(vec![None; grid.points]);
        }
        let query = template::query(query, asked, cohort).map_err(Lack::Failed)?;
        let times = [("start", grid.first), ("end", grid.last), ("step", grid.step)];
        let times = times.map(|(name, millis)| (name, seconds(millis)));
        let data = self.ask("query_range", &query, &times).await.map_err(Lack::Failed)?;
        let about = |why: String| Lack::Failed(format!("{}: {why}", urls::shown(&self.url)));
        let values = answer::range(&data).map_err(about)?;
        let values = values.filter(|values| !values.is_empty());
        let values =
            values.ok_or_else(|| Lack::Absent(format!("there is no series of the {side}")))?;
        let points = grid.place(&values).map_err(about)?;
        if points.iter().all(Option::is_none) {
            let count = values.len();
            let text =
                format!("all {count} values of the {side} are no numbers: is there traffic?");
            return Err(Lack::Missing(text));
        }
        match grid.stale(&points) {
            Some(age) => Err(Lack::Missing(format!(
                "the last value of the {side} is {} s old",
                age.as_secs()
            ))),
            None => Ok(points),
        }
    }

    async fn counts(&self, asked: &Asked, bad: &str, total: &str) -> Result<Measured, Lack> {
        let cohorts = &asked.cohorts;
        let (canary, baseline) = tokio::join!(
            self.counts_of(asked, (bad, total), "canary", &cohorts.canary),
            self.counts_of(asked, (bad, total), "baseline", &cohorts.baseline),
        );
        Ok(Measured::Counts { canary: canary?, baseline: baseline? })
    }

    async fn counts_of(
        &self,
        asked: &Asked,
        (bad, total): (&str, &str),
        side: &str,
        cohort: &Cohort,
    ) -> Result<Counts, Lack> {
        if cohort.targets.is_empty() {
            return Ok(Counts::default());
        }
        let (bad, total) =
            tokio::join!(self.count(asked, bad, cohort), self.count(asked, total, cohort));
        let none =
            || Lack::Missing(format!("nothing is counted of the {side}: no series, or no number"));
        let total = total?.filter(|count| !count.is_nan()).ok_or_else(none)?;
        // Counters of what never happened are often not there.
        let bad = bad?.unwrap_or(0.0);
        if bad.is_nan() {
            return Err(none());
        }
        // Prometheus extrapolates.
        let (bad, total) = (bad.round(), total.round());
        if !(0.0..=MAX_EVENTS).contains(&total) || !(0.0..=total).contains(&bad) {
            let text = format!("{bad} bad of {total} events of the {side} cannot be");
            return Err(Lack::Failed(text));
        }
        Ok(Counts { bad: bad as u64, total: total as u64 })
    }

    async fn count(
        &self,
        asked: &Asked,
        query: &str,
        cohort: &Cohort,
    ) -> Result<Option<f64>, Lack> {
        let query = template::query(query, asked, cohort).map_err(Lack::Failed)?;
        let time = [("time", seconds(asked.window.to))];
        let data = self.ask("query", &query, &time).await.map_err(Lack::Failed)?;
        answer::instant(&data)
            .map_err(|why| Lack::Failed(format!("{}: {why}", urls::shown(&self.url))))
    }

    /// Asks a question and reads the answer, whatever it says.
    async fn ask(
        &self,
        what: &str,
        query: &str,
        times: &[(&str, String)],
    ) -> Result<Vec<u8>, String> {
        let shown = urls::shown(&self.url);
        let _turn = self.at_once.acquire().await.map_err(|error| error.to_string())?;
        let url = self.url.join(&format!("api/v1/{what}")).map_err(|error| error.to_string())?;
        let mut form = format!("query={}", urls::component(query));
        for (name, value) in times {
            form.push_str(&format!("&{name}={value}"));
        }
        let mut request = self
            .client
            .post(url)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .timeout(self.timeout)
            .body(form);
        if let Some(file) = &self.token_file {
            request = request.header(header::AUTHORIZATION, bearer(file)?);
        }
        let answer =
            request.send().await.map_err(|error| format!("{shown}: {}", described(error)))?;
        let status = answer.status();
        if status.is_redirection() {
            return Err(format!(
                "{shown}: it answered {status}, and leads elsewhere: name that address"
            ));
        }
        let body =
            collect(answer, MAX_ANSWER).await.map_err(|error| format!("{shown}: {error}"))?;
        // Errors have a body that says more, in its format.
        if !status.is_success() && !body.starts_with(b"{") {
            return Err(format!("{shown}: it answered {status}"));
        }
        Ok(body)
    }
}

fn bearer(file: &std::path::Path) -> Result<header::HeaderValue, String> {
    let shown = file.display();
    let failed = |error: &dyn std::fmt::Display| format!("{shown}: {error}");
    let token = kiln_net::files::read_text(file).map_err(|error| failed(&error))?;
    let mut value = header::HeaderValue::from_str(&format!("Bearer {}", token.trim()))
        .map_err(|_| failed(&"it has no token in it"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn seconds(millis: u64) -> String {
    format!("{}.{:03}", millis / 1000, millis % 1000)
}
