//! The table of all kinds.

use super::{
    Compare, ExportWeights, Features, ImportWeights, Index, InitBank, InitEncoder, Knn, LinearEval, Pack, Pretrain,
    Synthesize, TransferEval,
};
use caco_pipeline::kind::{Command, Entry};

/// Every kind, in the order of the data flow.
pub fn all() -> Vec<Entry> {
    vec![
        Entry::of::<Command>(),
        Entry::of::<Synthesize>(),
        Entry::of::<Index>(),
        Entry::of::<Pack>(),
        Entry::of::<InitEncoder>(),
        Entry::of::<ImportWeights>(),
        Entry::of::<InitBank>(),
        Entry::of::<Pretrain>(),
        Entry::of::<Features>(),
        Entry::of::<Knn>(),
        Entry::of::<LinearEval>(),
        Entry::of::<TransferEval>(),
        Entry::of::<ExportWeights>(),
        Entry::of::<Compare>(),
    ]
}
