//! How what the shards of a batch have computed becomes what the whole batch has.
//!
//! A batch is always cut into the same shards, and these are the only places where they meet, besides batch norm and the
//! gradient of a weight, which `bridge/norm.cpp` and `bridge/layer.cpp` sum in the same tree. So no bit depends on who
//! computes which shard.

use tch::Tensor;

/// Where the shards of a batch meet.
pub trait Collective {
    /// The sum of the shards' terms, nearest neighbours first. `None` if there are none.
    fn sum(&self, terms: Vec<Tensor>) -> Option<Tensor>;
}

/// One process that has all shards.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Collective for Alone {
    fn sum(&self, mut terms: Vec<Tensor>) -> Option<Tensor> {
        let mut step = 1;
        while step < terms.len() {
            for i in (0..terms.len() - step).step_by(2 * step) {
                let next = terms[i + step].shallow_clone();
                let _ = terms[i].g_add_(&next);
            }
            step *= 2;
        }
        terms.into_iter().next()
    }
}
