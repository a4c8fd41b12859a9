//! Weighted turns: an order over the ready members in which everybody's share is exact.
//!
//! Three forms, chosen by size, all read with one shared counter and no lock:
//! - equal weights: plain turns;
//! - a cycle of modest length: nginx's smooth weighted round robin, computed once per change;
//! - anything longer: a golden stride through the cycle (see [`Stride`]). nginx's own way, adding to
//!   every weight at each pick, is O(n) and needs a lock across workers.

use super::cursor::Cursor;

/// The longest stored cycle: 65,536 turns of 4 bytes fit an L2 cache.
const MAX_CYCLE: u64 = 1 << 16;

/// The most steps (members x turns) spent on computing a cycle: about 40 ms on the writer's thread.
const MAX_STEPS: u64 = 1 << 25;

/// A counter and the order it walks.
#[derive(Debug)]
pub(super) struct Schedule {
    cursor: Cursor,
    order: Order,
}

#[derive(Debug)]
enum Order {
    /// Positions 0, 1, .. n - 1.
    Turns(u64),
    /// One cycle of positions.
    Cycle(Box<[u32]>),
    /// Too long to store.
    Stride(Stride),
}

/// A cycle of `total` turns in closed form: turn `t` goes to the owner of the ticket
/// `t * step mod total`, where member `i` owns as many consecutive tickets as its weight.
///
/// With `step` prime to `total` every ticket comes exactly once a cycle, so shares are exact; with
/// `step` next to `total / golden ratio` the gaps between two turns of a member stay close to even
/// (three-distance theorem; the golden ratio is the number worst approximated by fractions).
#[derive(Debug)]
struct Stride {
    step: u64,
    total: u64,
    /// `ends[i]` = first ticket after those of position `i`.
    ends: Box<[u64]>,
    /// `first[b]` = position that owns ticket `b << shift`: narrows the search to one bucket.
    first: Box<[u32]>,
    shift: u32,
}

// === impl Schedule ===

impl Schedule {
    /// A schedule over positions with these weights (each above 0), starting `phase` (0.0 to 1.0)
    /// of a cycle in: 0.0 starts at nginx's first pick.
    pub(super) fn new(weights: &[u32], phase: f64) -> Self {
        let order = Order::new(weights);
        let start = (order.len() as f64 * phase).round() as u64;
        Self {
            cursor: Cursor::starting_at(start),
            order,
        }
    }

    /// Plain turns over `n` positions, starting at `start`.
    pub(super) fn turns(n: usize, start: usize) -> Self {
        Self {
            cursor: Cursor::starting_at(start as u64),
            order: Order::Turns(n.max(1) as u64),
        }
    }

    /// The position whose turn it is.
    #[inline]
    pub(super) fn take(&self) -> usize {
        self.order.at(self.cursor.take())
    }

    /// The position that [`Self::take`] would give now.
    pub(super) fn peek(&self) -> usize {
        self.order.at(self.cursor.peek())
    }

    /// How far into its cycle the schedule is, from 0.0 to below 1.0: what a successor starts with,
    /// so that a storm of changes does not send every first turn to the same member.
    pub(super) fn phase(&self) -> f64 {
        let len = self.order.len();
        (self.cursor.peek() % len) as f64 / len as f64
    }
}

// === impl Order ===

impl Order {
    fn new(weights: &[u32]) -> Self {
        let n = weights.len() as u64;
        let divisor = weights.iter().fold(0, |g, &w| gcd(g, u64::from(w))).max(1);
        let weights: Vec<u64> = weights.iter().map(|&w| u64::from(w) / divisor).collect();
        let total: u64 = weights.iter().sum();
        if total == n {
            return Self::Turns(n.max(1));
        }
        if total <= MAX_CYCLE && total * n <= MAX_STEPS {
            return Self::Cycle(smooth_cycle(&weights, total));
        }
        Self::Stride(Stride::new(weights, total))
    }

    /// Turns in one cycle; at least 1.
    fn len(&self) -> u64 {
        match self {
            Self::Turns(n) => *n,
            Self::Cycle(cycle) => cycle.len() as u64,
            Self::Stride(stride) => stride.total,
        }
    }

    #[inline]
    fn at(&self, turn: u64) -> usize {
        match self {
            Self::Turns(n) => (turn % n) as usize,
            Self::Cycle(cycle) => cycle[(turn % cycle.len() as u64) as usize] as usize,
            Self::Stride(stride) => stride.at(turn),
        }
    }
}

/// One cycle of nginx's smooth weighted round robin (commit 52327e0627f4, 2012): at each turn every
/// current weight grows by its weight; the greatest, the first of equals, is picked and loses the
/// sum. The state is all zeros again after `total` turns, so a cycle is the whole behaviour.
fn smooth_cycle(weights: &[u64], total: u64) -> Box<[u32]> {
    let mut current = vec![0i64; weights.len()];
    (0..total)
        .map(|_| {
            for (c, &w) in current.iter_mut().zip(weights) {
                *c += w as i64;
            }
            let mut best = 0;
            for i in 1..current.len() {
                if current[i] > current[best] {
                    best = i;
                }
            }
            current[best] -= total as i64;
            best as u32
        })
        .collect()
}

// === impl Stride ===

impl Stride {
    fn new(mut weights: Vec<u64>, mut total: u64) -> Self {
        // Tickets are 32-bit so that `ticket * step` fits 64 bits. Only sums above 2^32 with no
        // common divisor are rounded: by less than one part in 2^31 of the whole.
        if total > u64::from(u32::MAX) {
            for w in &mut weights {
                *w = ((u128::from(*w) << 31) / u128::from(total)).max(1) as u64;
            }
            total = weights.iter().sum();
        }
        let ends: Box<[u64]> = weights
            .iter()
            .scan(0, |end, w| {
                *end += w;
                Some(*end)
            })
            .collect();
        // As many buckets as members, or up to twice that.
        let shift = (total / weights.len() as u64).ilog2();
        let buckets = (total >> shift) + 1;
        let first = (0..=buckets)
            .map(|b| {
                ends.partition_point(|&end| end <= b << shift)
                    .min(ends.len() - 1) as u32
            })
            .collect();
        Self {
            step: golden_step(total),
            total,
            ends,
            first,
            shift,
        }
    }

    #[inline]
    fn at(&self, turn: u64) -> usize {
        let ticket = (turn % self.total) * self.step % self.total;
        let bucket = (ticket >> self.shift) as usize;
        let (low, high) = (self.first[bucket] as usize, self.first[bucket + 1] as usize);
        low + self.ends[low..high].partition_point(|&end| end <= ticket)
    }
}

/// The number nearest to `total / 1.618…` that shares no divisor with `total`.
fn golden_step(total: u64) -> u64 {
    let near = (total as f64 * 0.618_033_988_749_894_9) as u64;
    (0..total)
        .flat_map(|d| [near.saturating_sub(d), near + d])
        .find(|&s| s > 0 && gcd(s, total) == 1)
        .unwrap_or(1)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::rng::Rng;

    /// nginx's loop, kept as it runs there: state carried from pick to pick, weights unreduced.
    struct Reference {
        weight: Vec<i64>,
        current: Vec<i64>,
    }

    impl Reference {
        fn new(weights: &[u32]) -> Self {
            let weight = weights.iter().map(|&w| i64::from(w)).collect();
            Self {
                weight,
                current: vec![0; weights.len()],
            }
        }

        fn pick(&mut self) -> usize {
            let mut total = 0;
            let mut best: Option<usize> = None;
            for i in 0..self.weight.len() {
                self.current[i] += self.weight[i];
                total += self.weight[i];
                if best.is_none_or(|b| self.current[i] > self.current[b]) {
                    best = Some(i);
                }
            }
            let best = best.unwrap();
            self.current[best] -= total;
            best
        }
    }

    fn letters(weights: &[u32], turns: usize) -> String {
        let schedule = Schedule::new(weights, 0.0);
        (0..turns)
            .map(|_| char::from(b'a' + schedule.take() as u8))
            .collect()
    }

    #[test]
    fn five_one_one_is_the_sequence_nginx_documents() {
        assert_eq!(letters(&[5, 1, 1], 14), "aabacaaaabacaa");
    }

    #[test]
    fn sequences_equal_the_reference_over_two_cycles() {
        let seed = 7;
        let mut rng = Rng::new(seed);
        let mut cases = vec![
            vec![1],
            vec![1, 1, 1],
            vec![2, 1],
            vec![4, 3, 2, 1],
            vec![10, 20, 30],
        ];
        for _ in 0..60 {
            let n = 1 + rng.below(12);
            cases.push((0..n).map(|_| 1 + rng.below(40) as u32).collect());
        }
        for weights in cases {
            let schedule = Schedule::new(&weights, 0.0);
            let mut reference = Reference::new(&weights);
            for turn in 0..2 * weights.iter().sum::<u32>() {
                let expected = reference.pick();
                assert_eq!(
                    schedule.take(),
                    expected,
                    "{weights:?} turn {turn} seed {seed}"
                );
            }
        }
    }

    #[test]
    fn stored_cycles_are_reduced_by_the_common_divisor() {
        assert_eq!(Order::new(&[50_000, 10_000, 10_000]).len(), 7);
        assert!(matches!(Order::new(&[300, 300]), Order::Turns(2)));
    }

    #[test]
    fn a_cycle_too_long_to_store_still_gives_exact_shares_evenly_spread() {
        let weights = [100_003, 50_021, 7, 1, 20_011];
        let total: u32 = weights.iter().sum();
        let schedule = Schedule::new(&weights, 0.0);
        assert!(matches!(schedule.order, Order::Stride(_)));
        let mut counts = [0u32; 5];
        let mut last = [None::<u32>; 5];
        let mut widest = [0u32; 5];
        for turn in 0..total {
            let i = schedule.take();
            counts[i] += 1;
            if let Some(before) = last[i].replace(turn) {
                widest[i] = widest[i].max(turn - before);
            }
        }
        assert_eq!(counts, weights);
        for (gap, w) in widest.iter().zip(weights) {
            // The three-distance theorem: no gap above 1 + golden ratio times the mean one, and one
            // turn of rounding.
            assert!(
                f64::from(*gap) <= 2.62 * f64::from(total) / f64::from(w) + 1.0,
                "{gap} {w}"
            );
        }
    }

    #[test]
    fn the_stride_finds_owners_among_very_uneven_weights() {
        let mut weights = vec![1; 999];
        weights.push(u32::MAX);
        let Order::Stride(stride) = Order::new(&weights) else {
            panic!("a stride")
        };
        for turn in 0..10_000 {
            let position = stride.at(turn);
            let ticket = turn % stride.total * stride.step % stride.total;
            assert!(stride.ends[position] > ticket);
            assert!(position == 0 || stride.ends[position - 1] <= ticket);
        }
    }

    #[test]
    fn sums_beyond_32_bits_are_scaled_and_nobody_is_lost() {
        let weights = [u32::MAX, u32::MAX - 1, u32::MAX - 2, 1];
        let Order::Stride(stride) = Order::new(&weights) else {
            panic!("a stride")
        };
        assert!(stride.total < 1 << 32);
        assert_eq!(stride.ends[3] - stride.ends[2], 1);
    }

    #[test]
    fn a_successor_goes_on_at_the_same_phase() {
        let first = Schedule::new(&[5, 1, 1], 0.0);
        for _ in 0..3 {
            first.take();
        }
        let second = Schedule::new(&[5, 1, 1], first.phase());
        assert_eq!((second.take(), second.take()), (0, 2));
    }
}
