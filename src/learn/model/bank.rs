//! The bank: K columns of dimension C that are trained together with the encoder (Wang et al., TPAMI 2023). The method
//! uses only their directions.

use caco_measure::rng::Rng;
use tch::{Device, Kind, Tensor};

/// The bank and the velocity of its update. Neither is part of autograd.
#[derive(Debug)]
pub struct Bank {
    /// W [C, K]. Never renormalised: as its norm grows, the effective learning rate decays.
    pub columns: Tensor,
    /// V [C, K].
    pub velocity: Tensor,
}

/// The bank as seen by one step.
#[derive(Debug)]
pub struct Directions {
    /// D [C, K]: the columns scaled to unit length.
    pub unit: Tensor,
    /// The columns' lengths [1, K].
    pub norm: Tensor,
}

impl Bank {
    /// Columns drawn from N(0, 1) by `seed`, with zero velocity.
    pub fn draw(dim: i64, size: i64, seed: u64, kind: Kind, device: Device) -> Self {
        let mut rng = Rng::new(seed, "bank", 0, 0);
        let values: Vec<f64> = (0..dim * size).map(|_| rng.normal()).collect();
        Self::at_rest(Tensor::from_slice(&values).view([dim, size]).to_kind(kind).to_device(device))
    }

    /// A bank of these columns [C, K], with zero velocity.
    pub fn at_rest(columns: Tensor) -> Self {
        let velocity = columns.zeros_like();
        Bank { columns, velocity }
    }

    /// K.
    pub fn size(&self) -> i64 {
        self.columns.size()[1]
    }

    /// The columns' directions and lengths.
    pub fn directions(&self) -> Directions {
        let norm = self.columns.norm_scalaropt_dim(2, [0i64].as_slice(), true).clamp_min(1e-12);
        Directions { unit: &self.columns / &norm, norm }
    }

    /// One update. `push` [C, K] is qᵀw/N summed over all pairs; the gradient is its component tangent to the sphere,
    ///
    ///   G = (push − D ⊙ Σ_c(D ⊙ push)) / ‖W‖ / `temperature`
    ///
    /// where Σ_c(D ⊙ push) is the mean over the batch of w ⊙ s, because s = q·D: K sums over C, instead of an N × K and
    /// a C × K product for each pair. Then V ← `momentum`·V − G and W ← W − `rate`·V.
    pub fn update(&mut self, at: &Directions, push: &Tensor, temperature: f64, rate: f64, momentum: f64) {
        let radial = (&at.unit * push).sum_dim_intlist([0i64].as_slice(), true, None);
        let mut tangent = push.addcmul(&at.unit, &(radial * -1.0));
        let _ = tangent.divide_(&(&at.norm * temperature));
        self.velocity *= momentum;
        self.velocity -= tangent;
        let step = &self.velocity * rate;
        self.columns -= step;
    }

    /// Writes the unit-length keys of batch number `number`, from 0, over the oldest ones: the bank is a queue.
    pub fn enqueue_batch(&mut self, number: u64, keys: &[Tensor]) {
        let keys = Tensor::cat(keys, 0);
        self.enqueue((number as i64 * keys.size()[0]) % self.size(), &keys);
    }

    /// Writes unit-length `keys` [N, C] into the columns starting at `start`, wrapping around at the end; of more than
    /// K keys the last K are kept.
    pub fn enqueue(&mut self, start: i64, keys: &Tensor) {
        let (size, count) = (self.size(), keys.size()[0]);
        for first in (0..count).step_by(size as usize) {
            let length = size.min(count - first);
            let begin = (start + first) % size;
            let before_end = length.min(size - begin);
            let put = |to: i64, from: i64, length: i64| {
                self.columns.narrow(1, to, length).copy_(&keys.narrow(0, from, length).tr());
            };
            put(begin, first, before_end);
            if before_end < length {
                put(0, first + before_end, length - before_end);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::unit;

    fn cpu(values: &[f64], size: [i64; 2]) -> Tensor {
        Tensor::from_slice(values).view(size)
    }

    #[test]
    fn an_update_is_tangential_and_follows_the_formula() {
        let mut bank = Bank::draw(3, 5, 1, Kind::Double, Device::Cpu);
        let before = bank.columns.copy();
        let at = bank.directions();
        let q = unit(&Bank::draw(4, 3, 2, Kind::Double, Device::Cpu).columns, 1);
        let w = Bank::draw(4, 5, 3, Kind::Double, Device::Cpu).columns;
        bank.update(&at, &(q.tr().matmul(&w) / 4.0), 0.08, 3.0, 0.9);
        // As in the paper: G = (qᵀw/N − D ⊙ mean(w ⊙ s)) / ‖W‖ / τ.
        let s = q.matmul(&at.unit);
        let mean = (&w * s).mean_dim([0i64].as_slice(), true, None);
        let gradient: Tensor = (q.tr().matmul(&w) / 4.0 - &at.unit * mean) / &at.norm / 0.08;
        let expected: Tensor = &before + gradient * 3.0;
        assert!(f64::try_from((&bank.columns - &expected).abs().max()).unwrap() < 1e-12);
        let along = ((&bank.columns - before) * at.unit).sum_dim_intlist([0i64].as_slice(), false, None);
        assert!(f64::try_from(along.abs().max()).unwrap() < 1e-12);
    }

    #[test]
    fn a_queue_wraps_around() {
        let mut bank = Bank::at_rest(cpu(&[0.0; 5], [1, 5]));
        let row = |bank: &Bank| Vec::<f64>::try_from(bank.columns.view(-1)).unwrap();
        bank.enqueue(0, &cpu(&[1.0, 2.0, 3.0], [3, 1]));
        assert_eq!(row(&bank), [1.0, 2.0, 3.0, 0.0, 0.0]);
        bank.enqueue(3, &cpu(&[4.0, 5.0, 6.0], [3, 1]));
        assert_eq!(row(&bank), [6.0, 2.0, 3.0, 4.0, 5.0]);
        bank.enqueue(1, &cpu(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], [7, 1]));
        assert_eq!(row(&bank), [5.0, 6.0, 7.0, 3.0, 4.0]);
    }
}
