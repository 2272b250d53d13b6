//! How what the shards of a batch have computed becomes what the whole batch has.
//!
//! A batch is always cut into the same shards, and these are the only places where they meet, besides batch norm and the
//! gradient of a weight, which `bridge/norm.cpp` and `bridge/layer.cpp` sum in the same tree. So no bit depends on who
//! computes which shard.

use crate::bridge::team;
use anyhow::{Result, ensure};
use tch::Tensor;

/// Where the shards of a batch meet. Several processes must call the same functions in the same order.
pub trait Collective {
    /// Number of processes. Each has as many neighbouring shards.
    fn size(&self) -> usize;
    /// Number of this process, from 0.
    fn rank(&self) -> usize;
    /// Of each quantity the sum of the shards' terms, nearest neighbours first. A quantity has a term for every shard of
    /// this process.
    fn sum(&self, quantities: Vec<Vec<Tensor>>) -> Result<Vec<Tensor>>;
    /// Completes the gradients that a backward pass has computed from the shards of this process.
    fn complete(&self) -> Result<()>;
    /// Tensors of the whole batch, given their parts [n, …] of this process.
    fn gather(&self, own: Vec<Tensor>) -> Result<Vec<Tensor>>;
    /// Whether `flag` is set in any process.
    fn any(&self, flag: bool) -> Result<bool>;

    /// The values of all processes.
    fn all(&self, value: i64) -> Result<Vec<i64>> {
        Ok(Vec::try_from(&self.gather(vec![Tensor::from_slice(&[value])])?[0])?)
    }

    /// An error if the processes do not all resume after the same step, because one could not read what another did.
    fn ensure_together(&self, done: u64) -> Result<()> {
        let all = self.all(done as i64)?;
        ensure!(all.iter().all(|other| *other == all[0]), "the processes start after different steps: {all:?}");
        Ok(())
    }

    /// The first process whose value is not that of process 0.
    fn differing(&self, value: i64) -> Result<Option<usize>> {
        let all = self.all(value)?;
        Ok(all.iter().position(|other| *other != all[0]))
    }

    /// The part of this process in a tensor [N, …] of the whole batch.
    fn own(&self, whole: &Tensor) -> Tensor {
        match self.size() as i64 {
            1 => whole.shallow_clone(),
            size => {
                let length = whole.size()[0] / size;
                whole.narrow(0, self.rank() as i64 * length, length)
            }
        }
    }
}

/// The processes that train together with this one.
pub fn here() -> &'static dyn Collective {
    match team::size() {
        1 => &Alone,
        _ => &Group,
    }
}

/// One process that has all shards.
#[derive(Clone, Copy, Debug)]
pub struct Alone;

impl Collective for Alone {
    fn size(&self) -> usize {
        1
    }

    fn rank(&self) -> usize {
        0
    }

    fn sum(&self, quantities: Vec<Vec<Tensor>>) -> Result<Vec<Tensor>> {
        Ok(quantities.into_iter().map(in_a_tree).collect())
    }

    fn complete(&self) -> Result<()> {
        Ok(())
    }

    fn gather(&self, own: Vec<Tensor>) -> Result<Vec<Tensor>> {
        Ok(own)
    }

    fn any(&self, flag: bool) -> Result<bool> {
        Ok(flag)
    }
}

/// Several processes, see [`team`].
#[derive(Clone, Copy, Debug)]
pub struct Group;

impl Collective for Group {
    fn size(&self) -> usize {
        team::size()
    }

    fn rank(&self) -> usize {
        team::rank()
    }

    fn sum(&self, quantities: Vec<Vec<Tensor>>) -> Result<Vec<Tensor>> {
        // What a process sums itself are the lower levels of the tree.
        let sums: Vec<Tensor> = quantities.into_iter().map(in_a_tree).collect();
        team::sum(&sums)?;
        Ok(sums)
    }

    fn complete(&self) -> Result<()> {
        team::sum_partial()
    }

    fn gather(&self, own: Vec<Tensor>) -> Result<Vec<Tensor>> {
        team::gather(&own)
    }

    fn any(&self, flag: bool) -> Result<bool> {
        team::any(flag)
    }
}

fn in_a_tree(mut terms: Vec<Tensor>) -> Tensor {
    let mut step = 1;
    while step < terms.len() {
        for i in (0..terms.len() - step).step_by(2 * step) {
            let next = terms[i + step].shallow_clone();
            let _ = terms[i].g_add_(&next);
        }
        step *= 2;
    }
    terms.into_iter().next().expect("a batch has a shard")
}
