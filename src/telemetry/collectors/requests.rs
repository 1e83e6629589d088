//! Metrics of requests and connections of clients.

use std::fmt::Error;

use super::families::Families;
use crate::telemetry::requests::{CODES, PLACES, ROUTES, Requests, STATUSES, method};

/// Connections and plain HTTP.
pub fn encode(families: &mut Families<'_>, requests: &Requests) -> Result<(), Error> {
    families.gauge("kiln_connections", "Open connections of clients.", requests.connections())?;
    let answers = ROUTES.iter().flat_map(|(route, name)| {
        (0..=STATUSES.len()).filter_map(move |place| {
            let count = requests.answers(*route, place);
            let status = STATUSES.get(place).map_or("other".to_owned(), u16::to_string);
            (count > 0).then(|| ([("route", (*name).to_owned()), ("status", status)], count))
        })
    });
    families.counters(
        "kiln_http_requests",
        "Plain HTTP requests that were answered, by class of route and status.",
        answers,
    )
}

/// Writes the series of calls that have counted something: most methods never answer most codes.
pub fn encode_calls(families: &mut Families<'_>, requests: &Requests) -> Result<(), Error> {
    families.gauge(
        "kiln_grpc_requests_in_flight",
        "gRPC calls that have begun and not ended, streams included.",
        requests.in_flight(),
    )?;
    let memory = requests.budget().snapshot();
    families.gauge(
        "kiln_request_memory_bytes",
        "Memory that requests under way are charged.",
        memory.used_bytes,
    )?;
    families.gauge(
        "kiln_request_memory_max_bytes",
        "Most memory of requests under way (server.request_memory).",
        memory.limit_bytes,
    )?;
    families.counter(
        "kiln_request_memory_refused",
        "Requests refused because they found no memory.",
        memory.refused_total,
    )?;
    let calls = (0..PLACES).flat_map(|place| {
        let method = method(place);
        CODES.iter().enumerate().filter_map(move |(code, name)| {
            let count = requests.calls(place, code);
            let labels = [("service", method.service), ("method", method.name), ("code", *name)];
            (count > 0).then_some((labels, count))
        })
    });
    families.counters(
        "kiln_grpc_requests",
        "gRPC calls that ended, by service, method and code.",
        calls,
    )?;
    let durations = (0..PLACES).filter_map(|place| {
        let (method, observed) = (method(place), requests.durations(place));
        let labels = [("service", method.service), ("method", method.name)];
        (observed.count() > 0).then_some((labels, observed))
    });
    families.histograms(
        "kiln_grpc_request_duration_seconds",
        "From the headers of a gRPC call to the end of its answer.",
        durations,
    )
}
