//! A small set of images and a small encoder, for tests.

use crate::model::Encoder;
use anyhow::Result;
use caco_data::batch::{Batch, Batches, Pixels, Source};
use caco_kinds::{Arch, Model, Stem};
use caco_measure::rng::Rng;
use tch::Device;

/// Images of noise around the colour of their class; if `seed` > 0, the noise differs in every epoch.
#[derive(Clone, Debug)]
pub struct Drawn {
    /// Number of images.
    pub images: usize,
    /// Classes.
    pub classes: usize,
    /// Images per batch; the last may have fewer.
    pub batch: usize,
    /// Side, in pixels.
    pub size: usize,
    /// Seed of the noise.
    pub seed: u64,
}

impl Drawn {
    /// The class of each image.
    pub fn labels(&self) -> Vec<i64> {
        (0..self.images).map(|image| (image % self.classes) as i64).collect()
    }

    fn draw(&self, epoch: u64, number: usize) -> Batch {
        let images: Vec<usize> = (number * self.batch..self.images.min((number + 1) * self.batch)).collect();
        let mut data = Vec::with_capacity(images.len() * self.size * self.size * 3);
        for &image in &images {
            let mut rng = Rng::new(self.seed, "sketch", epoch, image as u64);
            let class = image % self.classes;
            for channel in (0..self.size * self.size).flat_map(|_| 0..3) {
                let base = if (class >> channel) & 1 == 1 { 190.0 } else { 70.0 };
                data.push((base + 25.0 * rng.normal()).clamp(0.0, 255.0) as u8);
            }
        }
        let pixels = Pixels { count: images.len(), size: (self.size, self.size), data: data.into() };
        let labels = images.iter().map(|image| (image % self.classes) as i64).collect();
        Batch { views: vec![pixels], labels, samples: images.into_iter().map(|image| image as u32).collect() }
    }
}

impl Source for Drawn {
    fn batches(&self) -> u64 {
        self.images.div_ceil(self.batch) as u64
    }

    fn epoch(&self, epoch: u64, first: u64) -> Result<Batches<'_>> {
        Ok(Box::new((first as usize..self.batches() as usize).map(move |number| Ok(self.draw(epoch, number)))))
    }
}

/// A ResNet-18 of width 4 with its initial values.
pub fn encoder() -> Encoder {
    let model = Model { arch: Arch::ResNet18, width: 4, stem: Stem::Cifar, hidden: 8, dim: 6 };
    Encoder::draw(&model, 3, Device::Cpu)
}
