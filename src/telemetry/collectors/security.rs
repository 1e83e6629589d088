//! Who was turned away, and how long the server can still prove who it is.

use std::fmt::Error;

use super::families::Families;
use crate::auth::failures::REASONS;
use crate::telemetry::observed::Security;

pub fn encode(families: &mut Families<'_>, security: &Security) -> Result<(), Error> {
    let failures = &security.failures;
    families.counters(
        "kiln_auth_failures",
        "Requests that were refused because of who sent them, by reason.",
        REASONS.iter().filter_map(|(reason, name)| {
            let count = failures.counted(*reason);
            (count > 0).then_some(([("reason", *name)], count))
        }),
    )?;
    families.counter(
        "kiln_tls_handshake_failures",
        "Connections that came to no TLS handshake.",
        failures.handshakes(),
    )?;
    let (name, help) = (
        "kiln_tls_certificate_end_seconds",
        "When the server's certificate ends, since the Unix epoch.",
    );
    match &security.certificate_end {
        Some(end) => families.gauge(name, help, end())?,
        None => families.gauges(name, help, std::iter::empty::<([(&str, &str); 0], i64)>())?,
    }
    families.gauges(
        "kiln_reload_failed",
        "1 while what is in force is older than the files, because they cannot be used.",
        security
            .reloads
            .all()
            .into_iter()
            .map(|(label, last)| ([("what", label)], u64::from(last.error.is_some()))),
    )
}
