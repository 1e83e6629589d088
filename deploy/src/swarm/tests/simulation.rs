//! How long a release takes to come to all hosts, and what the origin sends, by the production downloader and tracker over a
//! model of a network. A seed is printed for each run; `KILN_SIMULATION_SEED` repeats one.

use std::time::Instant;

use super::network::{Model, Network, Outcome};

fn seed() -> u64 {
    let given = std::env::var("KILN_SIMULATION_SEED").ok();
    given.map_or_else(|| fastrand::u64(..), |it| it.parse().unwrap())
}

fn run(what: &str, model: Model) -> Outcome {
    let (begun, seed) = (Instant::now(), model.seed);
    println!("{what}: KILN_SIMULATION_SEED={seed}");
    let (hosts, pieces) = (model.hosts, model.pieces);
    let outcome = Network::run(model);
    println!(
        "{what}: {hosts} hosts, {pieces} pieces: p50 {:.3}, p99 {:.3}, worst {:.3} F/B, egress {:.3} F, \
         {} lies, {} dropped as slow, {} near, {} far, {} connections a host, simulated in {:?}",
        outcome.at(50),
        outcome.at(99),
        outcome.at(100),
        outcome.egress,
        outcome.lied,
        outcome.dropped_as_slow,
        outcome.near,
        outcome.far,
        outcome.connections / hosts,
        begun.elapsed()
    );
    // No download can be faster than the origin sends all pieces once and a host receives them.
    assert!(outcome.times[0] >= 0.99 && outcome.egress >= 1.0, "{outcome:?}");
    outcome
}

fn calm(hosts: usize, pieces: usize) {
    let outcome = run("without churn", Model::new(hosts, pieces, seed()));
    assert!(outcome.at(99) <= 1.3, "p99 {}", outcome.at(99));
    assert!(outcome.egress <= 2.0, "egress {}", outcome.egress);
}

fn rough(hosts: usize, pieces: usize) {
    let model = Model { churn: 50, liars: 20, slow: 20, ..Model::new(hosts, pieces, seed()) };
    let outcome = run("churn, liars and slow hosts", model);
    assert!(outcome.at(99) <= 1.6, "p99 {}", outcome.at(99));
    assert!(outcome.at(100) <= 2.0, "worst {}", outcome.at(100));
    assert!(outcome.egress <= 5.0, "egress {}", outcome.egress);
    assert!(outcome.lied > 0, "liars are found out");
}

#[test]
fn many_hosts_take_little_longer_than_one_and_the_origin_sends_little_more_than_once() {
    calm(500, 128);
}

/// The pieces from the origin have to come over the links of several hosts, even if there are few: no host
/// may fetch all of them for the others.
#[test]
fn few_hosts_take_little_longer_than_one_as_well() {
    for (hosts, pieces, origin, most) in [(40, 56, 10, 1.45), (5, 40, 10, 1.3), (4, 40, 2, 1.25)] {
        let model = Model { origin, ..Model::new(hosts, pieces, seed()) };
        let outcome = run("few hosts", model);
        assert!(outcome.at(100) <= most, "worst {} of {hosts}", outcome.at(100));
        assert!(outcome.egress <= 2.0, "egress {}", outcome.egress);
    }
}

/// A piece takes seconds there, and so does a connection: who has one keeps it, and waits for what others are about to have
/// instead of taking it from the origin.
#[test]
fn slow_links_have_few_connections_and_the_origin_sends_little_more_than_once() {
    let model = Model { piece: 4_200, origin: 50, ..Model::new(100, 60, seed()) };
    let outcome = run("slow links", model);
    assert!(outcome.at(100) <= 1.45, "worst {}", outcome.at(100));
    assert!(outcome.egress <= 2.0, "egress {}", outcome.egress);
    assert!(outcome.connections <= 200 * 100, "{} connections", outcome.connections);
}

#[test]
fn churn_lies_and_slowness_cost_little() {
    rough(300, 128);
}

#[test]
fn near_peers_send_most() {
    let model = Model { zones: 4, ..Model::new(120, 48, seed()) };
    let outcome = run("four zones", model);
    // If hosts chose their peers by chance, a quarter of the pieces would come from the same zone.
    assert!(outcome.near > outcome.far, "{} near, {} far", outcome.near, outcome.far);
}

/// `cargo nextest run -p kiln-deploy --release --run-ignored only ten_thousand --no-capture` prints the figures.
#[test]
#[ignore = "takes minutes"]
fn ten_thousand_hosts_without_churn() {
    calm(10_000, 256);
}

#[test]
#[ignore = "takes minutes"]
fn ten_thousand_hosts_with_churn() {
    rough(10_000, 256);
}
