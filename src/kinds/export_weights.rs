use super::*;

/// Exports an encoder for use elsewhere: its backbone as safetensors with the tensor names of torchvision and timm, its
/// head and the bank beside it, and a model card with the metrics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExportWeights {
    /// The stage whose encoder is exported.
    pub encoder: String,
    /// Whether its head is exported too; imported weights have none.
    #[serde(default = "yes")]
    pub head: bool,
    /// The output that holds the bank, such as `pretrain/bank`. If left out, no bank is exported.
    #[serde(default)]
    pub bank: Option<String>,
    /// Evaluation stages whose metrics the card shows.
    #[serde(default)]
    pub results: Vec<String>,
}

fn yes() -> bool {
    true
}

impl Kind for ExportWeights {
    const NAME: &'static str = "export_weights";
    const VERSION: u32 = 1;
    const TOLERANCE: Tolerance = Tolerance::Exact;
    const OUTPUTS: &'static [Output] =
        &[output("backbone", "backbone.safetensors"), output("card", "card.json"), output("markdown", "card.md")];
    const SOURCES: &'static [&'static str] = &["encoder", "bank", "results"];

    fn outputs(&self) -> Vec<Output> {
        let mut outputs = Self::OUTPUTS.to_vec();
        outputs.extend(self.head.then(|| output("head", "head.safetensors")));
        outputs.extend(self.bank.is_some().then(|| output("bank", "bank.safetensors")));
        outputs
    }

    /// Slots `encoder` and `bank`, and for each result, counted from 0, `<n>` for its metrics and `<n>.predictions`.
    fn inputs(&self) -> Vec<Input> {
        let mut inputs = vec![Input::output("encoder", &self.encoder, "encoder")];
        inputs.extend(self.bank.iter().map(|bank| Input::output("bank", bank, "bank")));
        for (i, stage) in self.results.iter().enumerate() {
            inputs.push(Input::stage(&i.to_string(), &format!("{stage}/metrics")));
            inputs.push(Input::stage(&format!("{i}.predictions"), &format!("{stage}/predictions")));
        }
        inputs
    }

    fn check(&self) -> Result<(), Complaint> {
        Ok(())
    }
}
