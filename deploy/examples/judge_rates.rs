//! How often the judge reverts good canaries and notices bad ones, on drawn ones: the figures in
//! docs/judge.md. `cargo run --release -p kiln-deploy --example judge_rates [ROUNDS]`

use kiln_deploy::judge::{self, Case, Class, Verdict};

const SEED: u64 = 20_260_101;

/// A value of the standard normal distribution.
fn normal(random: &mut fastrand::Rng) -> f64 {
    let (a, b) = (1.0 - random.f64(), random.f64());
    (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

/// What a series is drawn from.
#[derive(Clone, Copy)]
enum Shape {
    /// Normal, with this coefficient of variation.
    Normal(f64),
    /// Log-normal with this sigma: a long tail, as latencies have it.
    Tailed(f64),
}

/// How canaries are drawn: the mean of the canary over that of the baseline, and how much of the
/// deviation of a point the next one has.
#[derive(Clone, Copy)]
struct Draw {
    shape: Shape,
    points: usize,
    change: f64,
    correlation: f64,
    metrics: usize,
}

fn series(random: &mut fastrand::Rng, draw: &Draw, mean: f64) -> String {
    let mut last = normal(random);
    let share = draw.correlation;
    let mut next = || {
        last = share * last + (1.0 - share * share).sqrt() * normal(random);
        let value = match draw.shape {
            Shape::Normal(deviation) => 1.0 + deviation * last,
            Shape::Tailed(sigma) => (sigma * last).exp(),
        };
        (mean * value).to_string()
    };
    (0..draw.points).map(|_| next()).collect::<Vec<_>>().join(",")
}

/// Read as users' cases are.
fn case(random: &mut fastrand::Rng, draw: &Draw) -> Case {
    let metrics: Vec<String> = (0..draw.metrics)
        .map(|at| {
            let canary = series(random, draw, 100.0 * draw.change);
            let baseline = series(random, draw, 100.0);
            format!(r#"{{"name":"m{at}","experiment":[{canary}],"control":[{baseline}]}}"#)
        })
        .collect();
    let text = format!(r#"{{"metrics":[{}]}}"#, metrics.join(","));
    judge::read(text.as_bytes()).expect("it is a case")
}

fn main() {
    let rounds: u32 = std::env::args().nth(1).and_then(|it| it.parse().ok()).unwrap_or(20_000);
    println!("seed {SEED}, {rounds} canaries a line");
    println!(
        "points change correlation metrics shape: promoted, held, rolled back; by Kayenta's rules: worse"
    );
    let line = |shape, points, change, correlation, metrics| {
        let draw = Draw { shape, points, change, correlation, metrics };
        let mut random = fastrand::Rng::with_seed(SEED);
        let mut counts = [0_u32; 4];
        for _ in 0..rounds {
            let case = case(&mut random, &draw);
            counts[match judge::judge(&case).verdict {
                Verdict::Promote => 0,
                Verdict::Hold => 1,
                Verdict::Rollback => 2,
            }] += 1;
            let worse = |class| matches!(class, Class::High | Class::Low);
            let kayenta = judge::judge_as_kayenta(&case);
            counts[3] += u32::from(kayenta.metrics.iter().any(|it| worse(it.classification)));
        }
        let [promoted, held, reverted, kayenta] =
            counts.map(|count| format!("{:.2} %", 100.0 * f64::from(count) / f64::from(rounds)));
        let shape = match shape {
            Shape::Normal(deviation) => format!("normal {deviation}"),
            Shape::Tailed(sigma) => format!("log-normal {sigma}"),
        };
        println!(
            "{points:>4} {change} {correlation} {metrics:>2} {shape}: {promoted}, {held}, {reverted}; {kayenta}"
        );
    };
    for (points, correlation) in
        [(50, 0.0), (100, 0.0), (200, 0.0), (60, 0.5), (100, 0.5), (200, 0.5), (400, 0.8)]
    {
        line(Shape::Normal(0.1), points, 1.0, correlation, 1);
    }
    line(Shape::Normal(0.5), 50, 1.0, 0.0, 1);
    line(Shape::Tailed(1.0), 100, 1.0, 0.0, 1);
    line(Shape::Tailed(1.0), 100, 1.0, 0.5, 1);
    line(Shape::Normal(0.1), 50, 1.0, 0.0, 20);
    for (points, change, correlation) in [
        (50, 1.1, 0.0),
        (50, 0.9, 0.0),
        (60, 1.1, 0.5),
        (100, 1.1, 0.5),
        (200, 1.1, 0.5),
        (50, 1.05, 0.0),
    ] {
        line(Shape::Normal(0.1), points, change, correlation, 1);
    }
    line(Shape::Tailed(1.0), 200, 1.5, 0.0, 1);
}
