//! What methods without keys share: a network that is trained by a loss over the embeddings of a whole batch.

use super::{
    collective,
    compute::{Compute, back_propagate, parameters},
    method::{self, Changed, Lap, Part, StepOutput},
    optimizer::Optimizer,
    recipe::Recipe,
};
use crate::model::{Network, Shards};
use anyhow::Result;
use tch::Tensor;

/// A network that is trained, and more weights with it.
#[derive(Debug)]
pub struct Trained {
    /// The encoder.
    pub query: Network,
    /// More trained tensors, by name.
    pub more: Vec<(String, Tensor)>,
    /// How it is trained.
    pub recipe: Recipe,
    optimizer: Optimizer,
}

/// A loss over the embeddings of all views, and its gradients.
pub struct Differentiated {
    /// The loss.
    pub loss: Tensor,
    /// Other metrics.
    pub metrics: Vec<(&'static str, Tensor)>,
    /// The gradients with respect to the embeddings [N, C] of every view.
    pub embeddings: Vec<Tensor>,
    /// The gradients with respect to the other trained tensors that autograd does not track.
    pub more: Vec<Tensor>,
    /// Whether those tensors stay as they are in this step.
    pub is_frozen: bool,
}

/// The outputs of every view for the whole batch, of which this process has `outputs`, without autograd.
pub fn whole(outputs: &Shards) -> Result<Vec<Tensor>> {
    collective::here().gather(outputs.join().iter().map(Tensor::detach).collect())
}

impl Trained {
    /// A network that has taken no step.
    pub fn start(query: Network, more: Vec<(String, Tensor)>, recipe: Recipe) -> Self {
        let query = query.trainable(true);
        let mut trained = parameters(&query);
        trained.extend(more.iter().map(|(_, tensor)| tensor.shallow_clone()));
        let optimizer = Optimizer::at_rest(&trained);
        Trained { query, more, recipe, optimizer }
    }

    /// Embeddings of unit length of every view, in shards.
    pub fn embed(&self, views: &[Tensor]) -> Result<Shards> {
        let Compute { precision, activations, .. } = self.recipe.compute;
        Ok(self.query.pass(precision, true).keeping(activations).embed(&self.recipe.compute.cut(views)?))
    }

    /// One step: the forward passes, `loss` of the joined embeddings, which do not track gradients, and the update.
    pub fn step(
        &mut self,
        views: &[Tensor],
        epoch: u64,
        lap: Lap,
        loss: impl FnOnce(&[Tensor]) -> Differentiated,
    ) -> Result<StepOutput> {
        let shards = self.embed(views)?;
        lap(Part::Forward);
        let embeddings = whole(&shards)?;
        let differentiated = loss(&embeddings);
        lap(Part::Bank);
        self.learn(&shards, &embeddings[0], differentiated, epoch, lap)
    }

    /// The rest of a step, whose outputs are `outputs`: back-propagation and the update. Of the other trained tensors,
    /// those that autograd tracks get their gradient here. `first` is the first view of the whole batch.
    pub fn learn(
        &mut self,
        outputs: &Shards,
        first: &Tensor,
        differentiated: Differentiated,
        epoch: u64,
        lap: Lap,
    ) -> Result<StepOutput> {
        let Differentiated { loss, metrics, embeddings, more, is_frozen } = differentiated;
        let mut tracked = parameters(&self.query);
        tracked.extend(self.more.iter().map(|(_, tensor)| tensor.shallow_clone()).filter(Tensor::requires_grad));
        let own: Vec<Tensor> = embeddings.iter().map(|gradient| collective::here().own(gradient)).collect();
        let own = Shards::cut(&own, outputs.per_view())?;
        let mut gradients = back_propagate(outputs, own.tensors(), &tracked)?;
        lap(Part::Backward);
        let tracked = gradients.len();
        gradients.extend(more);
        let updated = if is_frozen { tracked } else { gradients.len() };
        let rate = self.recipe.rate(epoch);
        let (names, tensors): (Vec<String>, Vec<Tensor>) = self.trained().into_iter().unzip();
        let rule = self.recipe.rule;
        let gradient_norm = self.optimizer.update(&tensors[..updated], &gradients[..updated], rate, rule)?;
        lap(Part::Optimizer);
        let spread = method::spread(first);
        let rates = vec![("rate", rate)];
        let gradients = names.into_iter().zip(gradients).collect();
        Ok(StepOutput { loss, metrics, gradient_norm, spread, rates, positives: vec![], gradients })
    }

    /// All trained tensors with their names.
    fn trained(&self) -> Vec<(String, Tensor)> {
        let query = self.query.weights().parameters();
        let query = query.map(|(name, tensor)| (format!("query.{name}"), tensor.shallow_clone()));
        query.chain(self.more.iter().map(|(name, tensor)| (name.clone(), tensor.shallow_clone()))).collect()
    }

    /// All tensors that a step changes.
    pub fn changed(&self) -> Vec<Changed> {
        let mut changed = method::network("query", &self.query, true);
        changed.extend(self.more.iter().map(|(name, tensor)| Changed::updated(name, tensor)));
        let names = self.query.weights().parameters().map(|(name, _)| name);
        changed.extend(self.optimizer.changed(names.chain(self.more.iter().map(|(name, _)| name.as_str()))));
        changed
    }
}
