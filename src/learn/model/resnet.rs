//! The residual network (He et al. 2016) up to its pooled features, with torchvision's layout and names.

use super::{
    shards::Shards,
    weights::{Declaration, Slot, Span, Start, Weights},
};
use crate::bridge;
use caco_kinds::{Arch, Model, Stem};

/// Sizes of a residual network.
#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    /// Block type.
    pub block: Block,
    /// Blocks in each layer.
    pub depths: Vec<usize>,
    /// Channels after the stem.
    pub width: i64,
    /// First layers.
    pub stem: Stem,
}

/// The repeated part of a residual network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    /// Two 3×3 convolutions.
    Basic,
    /// 1×1, 3×3 (with the stride, as in torchvision), 1×1 to four times the channels.
    Bottleneck,
}

impl From<&Model> for Layout {
    fn from(model: &Model) -> Self {
        let (block, depths) = match model.arch {
            Arch::ResNet18 => (Block::Basic, [2, 2, 2, 2]),
            Arch::ResNet34 => (Block::Basic, [3, 4, 6, 3]),
            Arch::ResNet50 => (Block::Bottleneck, [3, 4, 6, 3]),
        };
        Layout { block, depths: depths.into(), width: model.width.into(), stem: model.stem }
    }
}

/// A convolution without bias, followed by a batch norm.
#[derive(Debug)]
struct ConvNorm {
    weight: Slot,
    stride: i64,
    padding: i64,
    norm: Norm,
}

/// Batch norm over all dimensions except channels, with PyTorch's defaults (momentum 0.1, ε 1e-5).
#[derive(Debug)]
pub struct Norm {
    weight: Slot,
    bias: Slot,
    mean: Slot,
    variance: Slot,
}

#[derive(Debug)]
struct Residual {
    convolutions: Vec<ConvNorm>,
    shortcut: Option<ConvNorm>,
}

/// A residual network without its tensors.
#[derive(Debug)]
pub struct ResNet {
    stem: ConvNorm,
    pool: bool,
    blocks: Vec<Residual>,
    /// The spans of the stem and of each block.
    spans: Vec<Span>,
    features: i64,
}

impl ResNet {
    /// Declares the network's tensors, in torchvision's order.
    pub fn declare(layout: &Layout, into: &mut Declaration) -> Self {
        let pool = layout.stem == Stem::Imagenet;
        let (kernel, stride) = if pool { (7, 2) } else { (3, 1) };
        let (stem, span) =
            into.span(|into| ConvNorm::declare(into, ("conv1", "bn1"), (3, layout.width), kernel, stride));
        let (mut blocks, mut spans, mut channels) = (Vec::new(), vec![span], layout.width);
        for (layer, &depth) in layout.depths.iter().enumerate() {
            for number in 0..depth {
                let stride = if layer > 0 && number == 0 { 2 } else { 1 };
                let name = format!("layer{}.{number}", layer + 1);
                let planes = layout.width << layer;
                let (block, span) =
                    into.span(|into| Residual::declare(into, &name, layout.block, channels, planes, stride));
                channels = planes * layout.block.expansion();
                blocks.push(block);
                spans.push(span);
            }
        }
        ResNet { stem, pool, blocks, spans, features: channels }
    }

    /// Number of features.
    pub fn features(&self) -> i64 {
        self.features
    }

    /// The tensors of each part, in order: the stem, then the residual blocks. Each part takes the output of the
    /// previous one.
    pub fn parts(&self) -> &[Span] {
        &self.spans
    }

    /// Applies part `number` to `x`; the first takes images [N, 3, H, W]. In training mode batch norm uses the
    /// statistics of the batch and updates the running ones.
    pub fn part(&self, number: usize, weights: &Weights, x: Shards, train: bool) -> Shards {
        match number.checked_sub(1) {
            Some(block) => self.blocks[block].forward(weights, x, train),
            None if self.pool => self.stem.forward(weights, &x, None, true, train).pool(),
            None => self.stem.forward(weights, &x, None, true, train),
        }
    }

    /// Output of the last part → features [N, d], averaged over positions.
    pub fn pool(x: &Shards) -> Shards {
        x.map(|x| x.adaptive_avg_pool2d([1, 1]).flatten(1, 3))
    }
}

impl Block {
    fn expansion(self) -> i64 {
        match self {
            Block::Basic => 1,
            Block::Bottleneck => 4,
        }
    }
}

impl Residual {
    fn declare(into: &mut Declaration, name: &str, block: Block, inside: i64, planes: i64, stride: i64) -> Self {
        let out = planes * block.expansion();
        // (kernel, channels in, channels out, stride) of each convolution on the main path.
        let path = match block {
            Block::Basic => vec![(3, inside, planes, stride), (3, planes, planes, 1)],
            Block::Bottleneck => vec![(1, inside, planes, 1), (3, planes, planes, stride), (1, planes, out, 1)],
        };
        let convolutions = (1..)
            .zip(path)
            .map(|(i, (kernel, from, to, stride))| {
                let names = (format!("{name}.conv{i}"), format!("{name}.bn{i}"));
                ConvNorm::declare(into, (&names.0, &names.1), (from, to), kernel, stride)
            })
            .collect();
        let names = (format!("{name}.downsample.0"), format!("{name}.downsample.1"));
        let shortcut = (stride != 1 || inside != out)
            .then(|| ConvNorm::declare(into, (&names.0, &names.1), (inside, out), 1, stride));
        Residual { convolutions, shortcut }
    }

    fn forward(&self, weights: &Weights, x: Shards, train: bool) -> Shards {
        let around = self.shortcut.as_ref().map(|s| s.forward(weights, &x, None, false, train));
        let around = around.as_ref().unwrap_or(&x);
        let (last, path) = self.convolutions.split_last().expect("a block has convolutions");
        let inside = path.iter().fold(x.share(), |y, c| c.forward(weights, &y, None, true, train));
        last.forward(weights, &inside, Some(around), true, train)
    }
}

impl ConvNorm {
    fn declare(into: &mut Declaration, names: (&str, &str), channels: (i64, i64), kernel: i64, stride: i64) -> Self {
        let shape = [channels.1, channels.0, kernel, kernel];
        let weight = into.parameter(format!("{}.weight", names.0), &shape, Start::KaimingNormal);
        ConvNorm { weight, stride, padding: kernel / 2, norm: Norm::declare(into, names.1, channels.1) }
    }

    /// Convolution and norm, with the norm's `add` and `relu`.
    fn forward(&self, weights: &Weights, x: &Shards, add: Option<&Shards>, relu: bool, train: bool) -> Shards {
        let y = x.convolve(weights.get(self.weight), self.stride, self.padding);
        self.norm.forward(weights, y, add, relu, train)
    }
}

impl Norm {
    /// Declares the norm of so many channels.
    pub fn declare(into: &mut Declaration, name: &str, channels: i64) -> Self {
        Norm {
            weight: into.parameter(format!("{name}.weight"), &[channels], Start::One),
            bias: into.parameter(format!("{name}.bias"), &[channels], Start::Zero),
            mean: into.buffer(format!("{name}.running_mean"), &[channels], Start::Zero),
            variance: into.buffer(format!("{name}.running_var"), &[channels], Start::One),
        }
    }

    /// Batch norm, then the addition of `add` and a ReLU, or just a ReLU if `relu`.
    pub fn forward(&self, weights: &Weights, x: Shards, add: Option<&Shards>, relu: bool, train: bool) -> Shards {
        let norm = bridge::Norm {
            weight: weights.get(self.weight),
            bias: weights.get(self.bias),
            mean: weights.get(self.mean),
            variance: weights.get(self.variance),
        };
        x.norm(norm, add, relu, train)
    }
}
