//! The SDK's clients, set up for stores of any make.

use std::sync::Arc;
use std::time::Duration;

use aws_config::environment::region::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::region::ProfileFileRegionProvider;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::{RetryPartition, TokenBucket};
use aws_sdk_s3::config::{
    AppName, Builder, Credentials, RequestChecksumCalculation, ResponseChecksumValidation,
};
use aws_smithy_http_client::tls;
use kiln_net::Url;

use super::checks::{self, ENDPOINT_VARIABLES};
use super::config::S3Config;
use super::counts::{Counting, Counts};
use crate::error::{Reason, StoreError};

/// Attempts of one request, the first included.
const ATTEMPTS: u32 = 6;
/// The first pause between attempts and the longest, as shares of the time of an attempt. Each
/// is drawn at random up to twice as long as the one before.
const FIRST_BACKOFF: u32 = 50;
const LONGEST_BACKOFF: u32 = 2;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A request with all its attempts may take this many times as long as one attempt.
pub const WHOLE_REQUEST: u32 = 4;
/// An attempt that carries a part of a blob may take this many times as long as another.
const UPLOAD: u32 = 6;
/// The region that requests to an endpoint are signed for when nothing names one: stores other than AWS
/// have a single region, and accept this name for it.
const DEFAULT_REGION: &str = "us-east-1";

pub struct Clients {
    /// Sends requests that carry little.
    pub usual: Client,
    /// Sends requests that carry bytes of blobs, and gives them more time.
    pub uploads: Client,
    /// The endpoint as messages name it.
    pub endpoint: String,
    pub counts: Arc<Counts>,
}

impl Clients {
    /// Errors: `Config`.
    pub async fn new(config: &S3Config) -> Result<Self, StoreError> {
        let sdk = load(config).await?;
        let custom = checks::endpoint(config, &sdk)?;
        checks::region(config, &sdk)?;
        let counts = Arc::<Counts>::default();
        // The SDK shares a quota of repetitions between all requests of a process: an outage of a
        // few seconds uses it up, and from then on each first failure is the last. Repetitions
        // are bounded by their number and time here.
        let repetitions =
            RetryPartition::custom("kiln").token_bucket(TokenBucket::unlimited()).build();
        let client = |attempt: Duration| {
            let mut builder = Builder::from(&sdk)
                .retry_partition(repetitions.clone())
                .timeout_config(timeouts(attempt))
                .interceptor(Counting(counts.clone()))
                .force_path_style(config.path_style.unwrap_or(custom.is_some()));
            if let Some(endpoint) = &custom {
                builder = builder.endpoint_url(endpoint.as_str());
            }
            if let Some(keys) = &config.credentials {
                let (access, secret) = (&keys.access_key, &keys.secret_key);
                let keys = Credentials::new(access, secret, None, None, "the configuration");
                builder = builder.credentials_provider(keys);
            }
            Client::from_conf(builder.build())
        };
        let region = sdk.region().map_or("an unknown region", Region::as_ref);
        Ok(Self {
            usual: client(config.timeout),
            uploads: client(config.timeout * UPLOAD),
            counts: counts.clone(),
            endpoint: custom.as_ref().map_or_else(|| format!("AWS ({region})"), Url::to_string),
        })
    }
}

async fn load(config: &S3Config) -> Result<SdkConfig, StoreError> {
    let trusted = checks::authorities(config)?;
    let trusted = tls::TlsContext::builder().with_trust_store(trusted).build();
    let trusted = trusted.map_err(|error| {
        StoreError::config(Reason::caused(format!("TLS to S3: {error}"), error))
    })?;
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring))
        .tls_context(trusted)
        .build_https();
    let retries = RetryConfig::standard()
        .with_max_attempts(ATTEMPTS)
        .with_initial_backoff(config.timeout / FIRST_BACKOFF)
        .with_max_backoff(config.timeout / LONGEST_BACKOFF);
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .retry_config(retries)
        .timeout_config(timeouts(config.timeout))
        // Reads have a time limit of their own and go on where they broke off.
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        // The SDK would add checksums to uploads as trailers of aws-chunked bodies, and expect
        // them with downloads. Many other stores refuse or mangle those; here they protect
        // nothing more: blobs are named by a hash that is checked where they are read.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired);
    if let Ok(name) = AppName::new("kiln") {
        loader = loader.app_name(name);
    }
    if let Some(profile) = &config.profile {
        loader = loader.profile_name(profile);
    }
    Ok(with_region(loader, config).load().await)
}

/// Where an endpoint is set, a region that nothing names is not looked for in EC2's metadata
/// service, which takes seconds to be not there.
fn with_region(loader: ConfigLoader, config: &S3Config) -> ConfigLoader {
    let custom = config.endpoint.is_some()
        || ENDPOINT_VARIABLES.iter().any(|name| std::env::var_os(name).is_some());
    match &config.region {
        Some(region) => loader.region(Region::new(region.clone())),
        None if !custom => loader,
        None => {
            let mut profile = ProfileFileRegionProvider::builder();
            if let Some(name) = &config.profile {
                profile = profile.profile_name(name);
            }
            let chain = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
                .or_else(profile.build())
                .or_else(Region::from_static(DEFAULT_REGION));
            loader.region(chain)
        }
    }
}

fn timeouts(attempt: Duration) -> TimeoutConfig {
    TimeoutConfig::builder()
        .connect_timeout(CONNECT_TIMEOUT.min(attempt))
        .operation_attempt_timeout(attempt)
        .operation_timeout(attempt * WHOLE_REQUEST)
        .build()
}
