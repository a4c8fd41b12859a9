//! Weighted random draws in constant time: Walker's alias method.
//!
//! A. J. Walker, "An Efficient Method for Generating Discrete Random Variables with General
//! Distributions", 1977; built as in M. Vose, "A Linear Algorithm for Generating Random Numbers
//! with a Given Distribution", 1991, in integers, so that no rounding shifts a share by more than
//! 2^-64.

use crate::base::rng::Rng;

/// A table of columns of equal chance, each split between at most two positions.
#[derive(Debug)]
pub(super) struct Alias {
    columns: Box<[Column]>,
}

#[derive(Clone, Copy, Debug)]
struct Column {
    /// The column's own position is drawn when the fraction is at most this.
    keep: u64,
    /// Drawn otherwise.
    other: u32,
}

// === impl Alias ===

impl Alias {
    /// A table that draws position `i` with chance `weights[i] / sum`. Every weight is above 0.
    pub(super) fn new(weights: &[u32]) -> Self {
        let n = weights.len() as u128;
        let total: u128 = weights.iter().map(|&w| u128::from(w)).sum();
        // Scaled by n, the mean column holds exactly `total`.
        let mut mass: Vec<u128> = weights.iter().map(|&w| u128::from(w) * n).collect();
        let mut columns: Vec<Column> = (0..weights.len())
            .map(|i| Column {
                keep: u64::MAX,
                other: i as u32,
            })
            .collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..weights.len()).partition(|&i| mass[i] < total);
        while let (Some(poor), Some(&rich)) = (small.pop(), large.last()) {
            columns[poor] = Column {
                keep: fraction(mass[poor], total),
                other: rich as u32,
            };
            mass[rich] -= total - mass[poor];
            if mass[rich] < total {
                large.pop();
                small.push(rich);
            }
        }
        Self {
            columns: columns.into(),
        }
    }

    /// A position; 0 for an empty table.
    #[inline]
    pub(super) fn draw(&self, rng: &mut Rng) -> usize {
        // One random word is both: the high half of the product is the column, the low half is
        // uniform inside it.
        let product = u128::from(rng.next_u64()) * self.columns.len() as u128;
        let column = (product >> 64) as usize;
        match self.columns.get(column) {
            Some(c) if (product as u64) > c.keep => c.other as usize,
            _ => column,
        }
    }
}

/// `part / whole` in units of 2^-64, for `part < whole`; in two steps of 32 bits, because a sum of
/// u32 weights has up to 64 bits and must not leave u128.
fn fraction(part: u128, whole: u128) -> u64 {
    let high = (part << 32) / whole;
    let rest = (part << 32) % whole;
    ((high << 32) | ((rest << 32) / whole)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exact chance of each position, from the columns.
    fn chances(weights: &[u32]) -> Vec<f64> {
        let table = Alias::new(weights);
        let mut chance = vec![0.0; weights.len()];
        for (i, column) in table.columns.iter().enumerate() {
            let keep = column.keep as f64 / 2f64.powi(64);
            chance[i] += keep / weights.len() as f64;
            chance[column.other as usize] += (1.0 - keep) / weights.len() as f64;
        }
        chance
    }

    #[test]
    fn chances_are_the_weights() {
        for weights in [
            &[1][..],
            &[1, 1],
            &[5, 1, 1],
            &[1, u32::MAX],
            &[7, 0x8000_0000, 3, 9, 9],
        ] {
            let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
            for (chance, &w) in chances(weights).iter().zip(weights) {
                assert!((chance - f64::from(w) / total).abs() < 1e-15, "{weights:?}");
            }
        }
    }

    #[test]
    fn draws_follow_the_weights_by_chi_square() {
        let weights: Vec<u32> = (1..=20).collect();
        let total: u32 = weights.iter().sum();
        let table = Alias::new(&weights);
        let seed = 42;
        let mut rng = Rng::new(seed);
        let draws = 1_000_000;
        let mut counts = [0u32; 20];
        for _ in 0..draws {
            counts[table.draw(&mut rng)] += 1;
        }
        let chi2: f64 = counts
            .iter()
            .zip(&weights)
            .map(|(&count, &w)| {
                let expected = f64::from(draws) * f64::from(w) / f64::from(total);
                (f64::from(count) - expected).powi(2) / expected
            })
            .sum();
        // 19 degrees of freedom: the 99.9 % point is 43.82.
        assert!(chi2 < 43.82, "chi-square {chi2:.1}, seed {seed}");
    }
}
