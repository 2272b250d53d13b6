use super::*;

/// Sets figures side by side, each with its 95 % interval, its difference to a baseline, and the claim it is held
/// against where there is one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Compare {
    /// The lines of the table.
    pub rows: Vec<Row>,
    /// Name of the row that the others are compared with.
    #[serde(default)]
    pub baseline: Option<String>,
}

/// One line of a comparison: an encoder, and evaluations of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// What the line is called.
    pub name: String,
    /// Evaluation stages, in the order of the columns.
    pub results: Vec<String>,
    /// What somebody claimed of it.
    #[serde(default)]
    pub claims: Vec<Claim>,
}

/// A published figure.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The evaluation stage, one of the row's results.
    pub of: String,
    /// Name of the metric, such as `top1`.
    pub metric: String,
    /// The figure, in per cent.
    pub value: f64,
    /// Where it was published.
    pub source: String,
    /// How well it is known.
    #[serde(default)]
    pub standing: Standing,
    /// Points of accuracy within which a figure counts as the same.
    #[serde(default = "margin")]
    pub margin: f64,
}

fn margin() -> f64 {
    1.0
}

/// How well a published figure is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Standing {
    /// Read in the source itself.
    #[default]
    Verified,
    /// Read in another text that quotes it.
    SecondHand,
}

impl Kind for Compare {
    const NAME: &'static str = "compare";
    const VERSION: u32 = 1;
    const OUTPUTS: &'static [Output] = &[
        output("json", "comparison.json"),
        output("markdown", "comparison.md"),
        output("csv", "comparison.csv"),
        output("latex", "comparison.tex"),
    ];

    /// Two slots a row and column, both counted from 0: `<row>.<column>` is the metrics of that evaluation,
    /// `<row>.<column>.predictions` its predictions.
    fn inputs(&self) -> Vec<Input> {
        let slots = |i: usize, j: usize, stage: &str| {
            let metrics = Input::stage(&format!("{i}.{j}"), &format!("{stage}/metrics"));
            [metrics, Input::stage(&format!("{i}.{j}.predictions"), &format!("{stage}/predictions"))]
        };
        let row = |(i, row): (usize, &Row)| -> Vec<Input> {
            row.results.iter().enumerate().flat_map(|(j, stage)| slots(i, j, stage)).collect()
        };
        self.rows.iter().enumerate().flat_map(row).collect()
    }

    fn check(&self) -> Result<(), Complaint> {
        ensure(!self.rows.is_empty(), "rows", "is empty; name at least one row")?;
        for (i, row) in self.rows.iter().enumerate() {
            for claim in &row.claims {
                let known = row.results.contains(&claim.of);
                let message = format!("'{}' is none of the row's results: {}", claim.of, row.results.join(", "));
                ensure(known, &format!("rows[{i}].claims"), message)?;
            }
        }
        let Some(baseline) = &self.baseline else { return Ok(()) };
        let names: Vec<&str> = self.rows.iter().map(|r| r.name.as_str()).collect();
        ensure(
            names.contains(&baseline.as_str()),
            "baseline",
            format!("'{baseline}' is no row; rows are {}", names.join(", ")),
        )
    }

    /// The column of a row is named by kind, so that a renamed stage moves no key.
    fn parameters(&self) -> serde_json::Value {
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                let column = |of: &String| row.results.iter().position(|r| r == of);
                let claims: Vec<_> = row
                    .claims
                    .iter()
                    .map(|c| serde_json::json!({ "column": column(&c.of), "metric": c.metric, "value": c.value, "source": c.source, "standing": c.standing, "margin": c.margin }))
                    .collect();
                serde_json::json!({ "name": row.name, "claims": claims })
            })
            .collect();
        serde_json::json!({ "rows": rows, "baseline": self.baseline })
    }
}
