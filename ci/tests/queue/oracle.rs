//! Who knows every outcome in advance and has the same workers: tests good changes alone, all that are there at once.

use fastrand::Rng;

use crate::world::{MINUTE, Truth};

/// Minutes that good changes wait, in order. They come at the times given (milliseconds).
pub fn waits(truth: &Truth, workers: usize, arrivals: &[u64]) -> Vec<f64> {
    let mut rng = Rng::with_seed(truth.seed);
    let mut free = vec![0_u64; workers];
    let mut waits = Vec::new();
    let mut pending: Vec<u64> = Vec::new();
    let good: Vec<u64> = arrivals.iter().copied().filter(|_| rng.f64() >= truth.bad).collect();
    let mut next = good.iter().copied().peekable();
    while let Some(first) = pending.first().copied().or_else(|| next.peek().copied()) {
        let Some(worker) = free.iter_mut().min() else { return waits };
        let begins = first.max(*worker);
        while let Some(at) = next.next_if(|it| *it <= begins) {
            pending.push(at);
        }
        let spread = truth.takes / 10;
        let ends = begins + truth.takes - spread / 2 + rng.u64(..=spread);
        *worker = ends;
        waits.extend(pending.drain(..).map(|at| (ends - at) as f64 / MINUTE as f64));
    }
    waits.sort_by(f64::total_cmp);
    waits
}

pub fn quantile(sorted: &[f64], at: f64) -> f64 {
    let place = (sorted.len() as f64 * at) as usize;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}
