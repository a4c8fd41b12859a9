//! Adaptive concurrency: how much an endpoint bears, learnt from its latency.
//!
//! After Envoy's gradient controller ("Adaptive Concurrency" of its documentation, itself after
//! Netflix's concurrency-limits). Latency is summed up in windows as its 90th percentile, `sampleRTT`;
//! `minRTT` is the same without a queue at the endpoint; then
//!
//! `gradient = (minRTT + B) / sampleRTT`, in 0.5 to 2, and `limit' = gradient * limit + sqrt(limit)`.
//!
//! An endpoint with `k` servers and constant work holds `limit` exchanges for `limit / k` times
//! `minRTT`, so the limit settles where `limit / k = (1 + b) / (1 - 1 / sqrt(limit))`: at 1.2 to 2 k
//! (the fewer servers the more), and latency at as many times the unloaded one.
//!
//! Where this departs from Envoy:
//! - To measure `minRTT` Envoy pins concurrency to a small number, or (its newer mode) measures
//!   under the load that there is, and then takes a standing queue for the new minimum, time after
//!   time. Here a *probe* halves the limit for two windows (one to drain, one to measure), and halves it
//!   again only while that shows that there had been a queue. It costs an overloaded endpoint
//!   about half a percent of its work, one that is not half used nothing: then each window
//!   is a measurement.
//! - A window is as long as the latency, if that is above 100 ms: the effect of one change is seen
//!   before the next is made.
//! - A limit that is not half used stays as it is (Netflix's rule): its latency says nothing of it.
//! - A limit that has fallen to a quarter without bringing latency down is a sign that `minRTT` is
//!   outdated, as the minimum is to Envoy: a probe begins at once.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, TryLockError};
use std::time::Duration;

use crate::base::clock::Nanos;
use crate::base::rng::Rng;

/// The limit of one endpoint, shared by all workers.
#[derive(Debug)]
pub struct Gradient {
    limit: AtomicU32,
    learner: Mutex<Learner>,
}

/// What the limit is made from.
#[derive(Debug)]
struct Learner {
    least: f64,
    most: f64,
    limit: f64,
    /// `minRTT`; `None` before the first window.
    unloaded: Option<f64>,
    window: Window,
    probe: Option<Probe>,
    probe_at: Nanos,
    /// Whether that was seen without a queue, or in the first window, under whatever load there was.
    is_measured: bool,
    /// The highest limit since it was.
    highest: f64,
    /// Windows in a row in which a limit far below that was still too high.
    pressed: u32,
    rng: Rng,
}

/// A limit lowered to see whether there is a queue.
#[derive(Clone, Copy, Debug)]
struct Probe {
    level: f64,
    /// The latency to compare with: `minRTT` at first, then that of the level above.
    before: f64,
    step: Step,
    /// Whether what was in flight above the level has had a window to end.
    drained: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    First,
    Further,
}

#[derive(Debug)]
struct Window {
    start: Nanos,
    length: Nanos,
    /// Samples of the window; up to [`KEPT`] of them are kept, each with the same chance.
    seen: usize,
    samples: Box<[Nanos; KEPT]>,
    /// The most that was in flight.
    peak: u32,
}

/// A window's least length (Envoy's `concurrency_update_interval`).
const WINDOW: Nanos = Duration::from_millis(100).as_nanos() as Nanos;

/// A window's least number of samples: two of them are above the 90th percentile, so that one
/// straggler does not decide. Below 200 a second windows are longer for it.
const FEWEST: usize = 20;

/// A window's samples for the percentile: 2 kB. Of exponential latencies, wider than those of most
/// servers, the 90th percentile of 256 has a standard deviation of sqrt(0.9 * 0.1 / 256) / 0.1 means,
/// 8 % of its value; a third of the buffer.
const KEPT: usize = 256;

/// `B` over `minRTT` (Envoy's default, 25 %): what latency may vary without a cause.
const BUFFER: f64 = 0.25;

/// Where a limit begins (Netflix's `initialLimit`), within its bounds.
const INITIAL: f64 = 20.0;

/// From one probe to the next, and by how much that is drawn out, so that endpoints and proxies do
/// not probe together (Envoy's defaults, 60 s and up to 10 %).
const PROBE_EVERY: f64 = 60e9;
const JITTER: f64 = 0.1;

/// The first probe is early: the first window's `minRTT` may hold a queue.
const FIRST_PROBE: f64 = 5e9;

/// Windows in a row at a quarter of the highest limit, or at the minimum, before `minRTT` is doubted
/// (Envoy: five, at the minimum only). Each of them costs an endpoint that only became slower up to
/// half of its limit, and a needless probe costs two windows.
const PRESSED: u32 = 3;

// === impl Gradient ===

impl Gradient {
    /// A limit from `min` to `max` (at least 1 and `min`); `seed` for the times of probes and the
    /// choice of samples.
    pub fn new(min: u32, max: u32, seed: u64) -> Self {
        let learner = Learner::new(min, max, seed);
        Self {
            limit: AtomicU32::new(learner.in_force()),
            learner: Mutex::new(learner),
        }
    }

    /// How many exchanges the endpoint may have in flight.
    #[inline]
    pub fn limit(&self) -> u32 {
        // Relaxed: a number of its own; an exchange more or less does no harm.
        self.limit.load(Ordering::Relaxed)
    }

    /// Takes a response that the endpoint itself gave, `latency` after its request; `in_flight`
    /// were under way at the endpoint, this one included. Of a failure there is nothing to learn: a
    /// quick refusal is not a fast endpoint.
    ///
    /// While another worker is here the sample is lost: there are always more.
    pub fn observe(&self, latency: Nanos, in_flight: u32, now: Nanos) {
        let mut learner = match self.learner.try_lock() {
            Ok(learner) => learner,
            // Numbers within their bounds whatever a panic interrupted.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        if learner.observe(latency, in_flight, now) {
            self.limit.store(learner.in_force(), Ordering::Relaxed);
        }
    }
}

// === impl Learner ===

impl Learner {
    fn new(min: u32, max: u32, seed: u64) -> Self {
        let least = f64::from(min.max(1));
        let most = f64::from(max).max(least);
        let limit = INITIAL.clamp(least, most);
        Self {
            least,
            most,
            limit,
            unloaded: None,
            window: Window::new(),
            probe: None,
            probe_at: 0,
            is_measured: false,
            highest: limit,
            pressed: 0,
            rng: Rng::new(seed),
        }
    }

    /// The limit to publish; whole bounds keep it within them.
    fn in_force(&self) -> u32 {
        self.probe.map_or(self.limit, |probe| probe.level) as u32
    }

    /// Whether the limit may have changed.
    fn observe(&mut self, latency: Nanos, in_flight: u32, now: Nanos) -> bool {
        self.window.add(latency, in_flight, now, &mut self.rng);
        if !self.window.is_over(now) {
            return false;
        }
        let (sample, peak) = self.window.close();
        match self.probe {
            Some(probe) => self.step(probe, sample, now),
            None => self.update(sample, peak, now),
        }
        true
    }

    /// A window without a probe.
    fn update(&mut self, sample: f64, peak: u32, now: Nanos) {
        let Some(unloaded) = self.unloaded else {
            self.unloaded = Some(sample);
            self.probe_in(FIRST_PROBE, now);
            return;
        };
        let is_used = f64::from(peak) * 2.0 >= self.limit;
        if now >= self.probe_at {
            if is_used {
                self.begin_probe(unloaded);
            } else {
                // No more than a probe would let through: this was one.
                self.measured(sample, now);
            }
            return;
        }
        if !is_used {
            return;
        }

        let gradient = (unloaded * (1.0 + BUFFER) / sample).clamp(0.5, 2.0);
        let limit = gradient * self.limit + self.limit.sqrt();
        self.limit = limit.clamp(self.least, self.most);
        self.highest = self.highest.max(self.limit);

        let is_pressed = gradient < 1.0 && self.limit <= (self.highest / 4.0).max(self.least);
        self.pressed = if is_pressed { self.pressed + 1 } else { 0 };
        if self.pressed >= PRESSED {
            self.begin_probe(unloaded);
        }
    }

    fn begin_probe(&mut self, unloaded: f64) {
        self.pressed = 0;
        self.probe = Some(Probe {
            level: (self.limit / 2.0).max(self.least),
            // Nothing to hold the first probe against: it goes down until latency does not.
            before: if self.is_measured {
                unloaded
            } else {
                f64::INFINITY
            },
            step: Step::First,
            drained: false,
        });
    }

    /// A window of a probe.
    fn step(&mut self, mut probe: Probe, sample: f64, now: Nanos) {
        if !probe.drained {
            probe.drained = true;
            self.probe = Some(probe);
            return;
        }
        let fell = sample * (1.0 + BUFFER) < probe.before;
        let rose = sample > probe.before * (1.0 + BUFFER);
        let is_unloaded = match probe.step {
            // As before: the known minimum still holds. Below: it was learnt under a queue, and
            // half of the queue may still be there. Above: the same, or the endpoint is slower.
            Step::First => !fell && !rose,
            // Half as many in flight, and no faster: nothing was waiting.
            Step::Further => !fell,
        };
        if !is_unloaded && probe.level > self.least {
            self.probe = Some(Probe {
                level: (probe.level / 2.0).max(self.least),
                before: sample,
                step: Step::Further,
                drained: false,
            });
            return;
        }
        // The level above this one; after one step that is the limit as it was.
        self.limit = self.limit.min(probe.level * 2.0);
        self.probe = None;
        // Two measurements of the same vary less than one.
        let unloaded = if is_unloaded {
            f64::midpoint(sample, probe.before)
        } else {
            sample
        };
        self.measured(unloaded, now);
    }

    fn measured(&mut self, unloaded: f64, now: Nanos) {
        self.unloaded = Some(unloaded);
        self.is_measured = true;
        self.highest = self.limit;
        self.probe_in(PROBE_EVERY, now);
    }

    fn probe_in(&mut self, time: f64, now: Nanos) {
        let time = time * (1.0 + JITTER * self.rng.unit());
        self.probe_at = now.saturating_add(time as Nanos);
    }
}

// === impl Window ===

impl Window {
    fn new() -> Self {
        Self {
            start: 0,
            length: WINDOW,
            seen: 0,
            samples: Box::new([0; KEPT]),
            peak: 0,
        }
    }

    /// Begins with its first sample: a rest is not a part of it.
    fn add(&mut self, latency: Nanos, in_flight: u32, now: Nanos, rng: &mut Rng) {
        if self.seen == 0 {
            self.start = now;
            self.peak = 0;
        }
        self.seen += 1;
        self.peak = self.peak.max(in_flight);
        // Vitter's algorithm R: the n-th sample takes a place with a chance of KEPT / n.
        let place = if self.seen <= KEPT {
            self.seen - 1
        } else {
            rng.below(self.seen)
        };
        if let Some(sample) = self.samples.get_mut(place) {
            *sample = latency;
        }
    }

    fn is_over(&self, now: Nanos) -> bool {
        self.seen >= FEWEST && now.saturating_sub(self.start) >= self.length
    }

    /// The 90th percentile, at least 1, and the most in flight; the next sample begins another
    /// window. Only of a window that has a sample.
    fn close(&mut self) -> (f64, u32) {
        let kept = &mut self.samples[..self.seen.min(KEPT)];
        let rank = kept.len() * 9 / 10;
        let (_, sample, _) = kept.select_nth_unstable(rank);
        let sample = (*sample).max(1);
        self.length = sample.max(WINDOW);
        self.seen = 0;
        (sample as f64, self.peak)
    }
}

#[cfg(test)]
mod tests;
