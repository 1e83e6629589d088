//! A Build Event Service that keeps everything in memory and says what it made of each build:
//! `cargo run -p kiln-ci --example bes -- [ADDRESS]`, then `bazel test --bes_backend=grpc://ADDRESS ...`.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kiln_ci::attempts::Attempt;
use kiln_ci::events::{EventLog, FileRef};
use kiln_ci::history::{History, Policy};
use kiln_ci::model::Time;
use kiln_ci::services::{Admit, BuildEvents, Charge, Clock, Reports};
use kiln_ci::storage::memory::Memory;
use kiln_protos::bes::publish_build_event_server::PublishBuildEventServer;
use tokio_util::sync::CancellationToken;
use tonic::{Extensions, Status};

struct Anybody;

impl Admit for Anybody {
    fn admit(&self, _: &Extensions, project: &str) -> Result<String, Status> {
        Ok(project.to_owned())
    }

    fn charge(&self, _: &Extensions) -> Box<dyn Charge> {
        Box::new(Self)
    }
}

impl Charge for Anybody {
    fn hold(&mut self, _: u64) -> Result<(), Status> {
        Ok(())
    }
}

impl Clock for Anybody {
    fn now(&self) -> Time {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Time(u64::try_from(now.as_millis()).unwrap_or(0))
    }
}

impl Reports for Anybody {
    fn offer(&self, attempt: Attempt, report: FileRef) {
        println!("{:?} {:?} {}", attempt.test.label, attempt.outcome, report.uri);
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8981".to_owned());
    let memory = || Arc::new(Memory::default());
    let records = memory();
    let service = BuildEvents {
        log: Arc::new(EventLog::new(memory(), records.clone())),
        history: Arc::new(History::new(memory(), records, Policy::default())),
        admit: Arc::new(Anybody),
        clock: Arc::new(Anybody),
        reports: Arc::new(Anybody),
        records: true,
        stop: CancellationToken::default(),
    };
    println!("listening on {address}");
    let server = PublishBuildEventServer::new(service);
    tonic::transport::Server::builder().add_service(server).serve(address.parse()?).await?;
    Ok(())
}
