use super::*;

/// Creates an encoder with its initial weights: the untrained line of a comparison.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InitEncoder {
    /// The network.
    pub model: Model,
    /// Seed of the weights. With the seed of the bank initialisation, this is the encoder that training starts from.
    #[serde(default)]
    pub seed: u64,
}

impl Kind for InitEncoder {
    const NAME: &'static str = "init_encoder";
    const VERSION: u32 = 1;
    const TOLERANCE: Tolerance = Tolerance::Tensors(1e-6);
    const OUTPUTS: &'static [Output] = &[output("encoder", "encoder.safetensors")];

    fn inputs(&self) -> Vec<Input> {
        vec![]
    }

    fn check(&self) -> Result<(), Complaint> {
        self.model.check()
    }
}
