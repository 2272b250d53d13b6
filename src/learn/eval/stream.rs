//! Features of the batches of an image set, one batch after the other. Several processes compute whole batches in turns and
//! exchange the features, so that every process has all of them and no bit depends on the number of processes.

use crate::{
    model::Encoder,
    train::collective,
    transfer::{Arriving, Transfer},
};
use anyhow::{Context as _, Result};
use caco_data::batch::Source;
use caco_kinds::Precision;
use std::collections::VecDeque;
use tch::{Device, Kind, Tensor, no_grad};

/// The encoder that is evaluated: frozen, with running statistics.
#[derive(Clone, Copy, Debug)]
pub struct Backbone<'a> {
    /// The network, which is not changed.
    pub encoder: &'a Encoder,
    /// Its floating-point precision.
    pub precision: Precision,
    /// Its device.
    pub device: Device,
}

/// A batch whose features have been computed.
#[derive(Debug)]
pub struct Computed {
    /// Class numbers, one per image.
    pub labels: Vec<i64>,
    /// Features [N, d], f32, of the first view, on the device.
    pub features: Tensor,
}

/// Features of the rest of an epoch.
pub struct Stream<'a> {
    backbone: Backbone<'a>,
    own: Transfer<'a>,
    /// Batches that no process has computed.
    left: u64,
    ready: VecDeque<Computed>,
}

impl<'a> Stream<'a> {
    /// Features of an epoch from batch `first` on. Of several processes, `source` has the batches whose turn is this one's.
    pub fn new(backbone: Backbone<'a>, source: &'a dyn Source, epoch: u64, first: u64) -> Result<Self> {
        let own = Transfer::new(source.epoch(epoch, first)?, 1, backbone.device);
        Ok(Stream { backbone, own, left: source.batches().saturating_sub(first), ready: VecDeque::new() })
    }

    /// As [`Transfer::look_ahead`].
    pub fn look_ahead(&mut self) {
        self.own.look_ahead();
    }

    /// The next batch of this process.
    fn compute(&mut self) -> Option<Result<Computed>> {
        let Backbone { encoder, precision, .. } = self.backbone;
        let compute = |Arriving { labels, views }: Arriving| {
            let views = views.first()?;
            Ok(Computed { labels, features: no_grad(|| encoder.features(&views, precision)) })
        };
        Some(self.own.next()?.and_then(compute))
    }

    /// One batch of every process, as long as there are any.
    fn round(&mut self) -> Result<()> {
        let together = collective::here();
        let batches = self.left.min(together.size() as u64);
        if batches == 0 {
            return Ok(());
        }
        self.left -= batches;
        let own = match (together.rank() as u64) < batches {
            true => Some(self.compute().context("an epoch ends before its last batch")??),
            false => None,
        };
        let counts = together.all(own.as_ref().map_or(0, |own| own.labels.len() as i64))?;
        let most = counts.iter().max().copied().unwrap_or_default();
        let (d, device) = (self.backbone.encoder.network.features(), self.backbone.device);
        // Exchanged tensors must have the same shapes.
        let features = Tensor::zeros([most, d], (Kind::Float, device));
        let labels = Tensor::zeros([most], (Kind::Int64, Device::Cpu));
        if let Some(own) = own {
            features.narrow(0, 0, own.features.size()[0]).copy_(&own.features);
            labels.narrow(0, 0, own.labels.len() as i64).copy_(&Tensor::from_slice(&own.labels));
        }
        let (features, labels) = (together.gather(vec![features])?.remove(0), together.gather(vec![labels])?.remove(0));
        for (process, count) in (0..).zip(counts).take(batches as usize) {
            self.ready.push_back(Computed {
                labels: Vec::try_from(labels.narrow(0, process * most, count))?,
                features: features.narrow(0, process * most, count),
            });
        }
        Ok(())
    }
}

/// Several processes must take each item together.
impl Iterator for Stream<'_> {
    type Item = Result<Computed>;

    fn next(&mut self) -> Option<Self::Item> {
        if collective::here().size() == 1 {
            return self.compute();
        }
        if self.ready.is_empty()
            && let Err(error) = self.round()
        {
            return Some(Err(error));
        }
        self.ready.pop_front().map(Ok)
    }
}
