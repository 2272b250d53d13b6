//! SimCLR (Chen et al., ICML 2020, arXiv 2002.05709): the other view of an image is the positive, the batch's other images
//! are the negatives.

use crate::{
    model::Network,
    train::{
        compute::{differentiate, product_with_transpose},
        method::{At, Changed, Lap, Method, StepOutput},
        recipe::Recipe,
        trained::{Differentiated, Trained},
    },
};
use anyhow::Result;
use caco_kinds as kinds;
use tch::{Kind, Tensor};

/// SimCLR.
#[derive(Debug)]
pub struct SimCLR {
    state: Trained,
    temperature: f64,
}

impl SimCLR {
    /// Starts with this encoder.
    pub fn new(query: Network, parameters: &kinds::SimCLR, recipe: Recipe) -> Self {
        SimCLR { state: Trained::start(query, vec![], recipe), temperature: parameters.temperature }
    }
}

impl Method for SimCLR {
    fn step(&mut self, views: &[Tensor], at: At, lap: Lap) -> Result<StepOutput> {
        let temperature = self.temperature;
        self.state.step(views, at.epoch, lap, |embeddings| {
            let (loss, embeddings) = differentiate(embeddings, |z| cross_entropy(z, temperature));
            Differentiated { loss, metrics: vec![], embeddings, more: vec![], is_frozen: false }
        })
    }

    fn changed(&self) -> Vec<Changed> {
        self.state.changed()
    }

    fn encoder(&self) -> &Network {
        &self.state.query
    }
}

/// NT-Xent: the cross entropy of every embedding's positive among all 2N − 1 other embeddings, averaged.
fn cross_entropy(views: &[Tensor], temperature: f64) -> Tensor {
    let z = Tensor::cat(views, 0);
    let (all, batch) = (z.size()[0], views[0].size()[0]);
    let own = Tensor::eye(all, (Kind::Bool, z.device()));
    let logits = (product_with_transpose(&z, &z) / temperature).masked_fill(&own, f64::NEG_INFINITY);
    let positive = Tensor::arange(all, (Kind::Int64, z.device())).roll([batch], [0]);
    logits.log_softmax(1, None::<Kind>).nll_loss(&positive)
}
