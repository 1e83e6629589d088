//! A collector that speaks OTLP over gRPC and keeps what it is sent.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use kiln_net::tls::{certified_key, provider};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use rustls::ServerConfig;
use rustls::sign::SingleCertAndKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::support::pki::Pair;

const PATIENCE: Duration = Duration::from_secs(20);

pub struct Collector {
    pub address: SocketAddr,
    requests: mpsc::UnboundedReceiver<ExportTraceServiceRequest>,
    pub spans: Vec<Span>,
    /// The attributes that the sender, which is the server, gives of itself.
    pub resource: BTreeMap<String, String>,
}

struct Service {
    requests: mpsc::UnboundedSender<ExportTraceServiceRequest>,
}

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let sent = self.requests.send(request.into_inner());
        sent.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (sender, requests) = mpsc::unbounded_channel();
        let service = TraceServiceServer::new(Service { requests: sender });
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(TcpIncoming::from(listener)),
        );
        Self { address, requests, spans: Vec::new(), resource: BTreeMap::new() }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Opens a second port of the collector with TLS and this certificate. Returns its address.
    pub async fn behind_tls(&self, pair: &Pair) -> SocketAddr {
        let key = certified_key(&pair.certificate, &pair.key).expect("a pair");
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(key)));
        config.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let (address, target) = (listener.local_addr().expect("an address"), self.address);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut outer) = acceptor.accept(stream).await else { continue };
                tokio::spawn(async move {
                    let mut inner = TcpStream::connect(target).await.expect("it listens");
                    let _ = tokio::io::copy_bidirectional(&mut outer, &mut inner).await;
                });
            }
        });
        address
    }

    /// Waits until a span of this name has come, and returns it. Panics, listing the spans, if none comes in time.
    pub async fn span(&mut self, name: &str) -> Span {
        loop {
            if let Some(span) = self.spans.iter().find(|span| span.name == name) {
                return span.clone();
            }
            let request = tokio::time::timeout(PATIENCE, self.requests.recv())
                .await
                .unwrap_or_else(|_| panic!("no span {name:?} came: {:?}", self.spans))
                .expect("the collector runs");
            for group in request.resource_spans {
                self.resource = attributes(&group.resource.unwrap_or_default().attributes);
                self.spans.extend(group.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        }
    }
}

/// Returns the attributes by their keys, with each value as text.
pub fn attributes(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    attributes
        .iter()
        .map(|attribute| {
            let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
            let text = match value {
                Some(Value::StringValue(text)) => text.clone(),
                Some(Value::IntValue(number)) => number.to_string(),
                Some(Value::BoolValue(flag)) => flag.to_string(),
                other => format!("{other:?}"),
            };
            (attribute.key.clone(), text)
        })
        .collect()
}
