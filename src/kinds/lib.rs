//! The stage kinds of the experiment as written in a pipeline file: one plain struct per kind, one file each. The
//! computation of a kind is in the worker's stage of the same name; nothing here touches tensors or files.

mod all;
mod compare;
mod decode;
mod determinism;
mod export_weights;
mod features;
mod import_weights;
mod index;
mod init_bank;
mod init_encoder;
mod knn;
mod linear_eval;
mod method;
mod model;
mod pack;
mod pretrain;
mod synthesize;
mod transfer_eval;

use caco_pipeline::kind::{
    Caution, Complaint, Expected, Input, Kind, Output, Role, Source, Tolerance, Upstream, Warn, ensure, hashed, output,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The most processes that can compute a stage together whose work is divided by batches.
const MOST_PROCESSES: u32 = 1024;

pub use all::all;
pub use caco_pipeline::{portable, step_digests};
pub use caco_views::{Crop, Filter, Flip, Operation, View, Views};
pub use compare::{Claim, Compare, Row, Standing};
pub use decode::Decode;
pub use determinism::Determinism;
pub use export_weights::ExportWeights;
pub use features::Features;
pub use import_weights::ImportWeights;
pub use index::{Format, Index, Split, Unreadable};
pub use init_bank::InitBank;
pub use init_encoder::InitEncoder;
pub use knn::Knn;
pub use linear_eval::LinearEval;
pub use method::{AdCo, BYOL, CaCo, Method, MoCoV2, Objective, Optimizer, Parameters, Published, SimCLR, SwAV};
pub use model::{Activations, Arch, Model, Precision, Stem};
pub use pack::{Encoding, Pack};
pub use pretrain::{Collapse, Monitor, Pretrain};
pub use synthesize::{Domain, Synthesize};
pub use transfer_eval::{TransferClassifier, TransferEval, TransferMetric};
