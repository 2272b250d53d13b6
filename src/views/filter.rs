use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The resampling filter of a resize, as in PIL (support grows when shrinking).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Filter {
    /// Triangle filter.
    #[default]
    Bilinear,
    /// Cubic filter, a = −0.5.
    Bicubic,
}
