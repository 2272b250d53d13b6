use super::*;

/// Compares metrics in a table, each with its 95 % interval, its difference from a baseline, and, where there is one,
/// the published claim it is checked against, with a verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Compare {
    /// The lines of the table. Rows with the same name are runs of the same experiment under different seeds: they make
    /// one line, with their mean and an interval over seeds and images.
    pub rows: Vec<Row>,
    /// Names of the columns, by position in the rows' `results`; by default the kind of evaluation.
    #[serde(default)]
    pub columns: Vec<String>,
    /// Name of the row that the others are compared with.
    #[serde(default)]
    pub baseline: Option<String>,
    /// The standard deviation between seeds, in points of accuracy, that is assumed for a row with a single run.
    #[serde(default)]
    pub seed_deviation: f64,
    /// Why the images here are not those that the claims refer to. Claims are then shown without a verdict.
    #[serde(default)]
    pub stand_in: Option<String>,
    /// The digest of the published table, as `caco show STAGE` prints it: "blake3:…" of `comparison.json`. A run says
    /// whether its table is that one. Not part of the key.
    #[serde(default)]
    pub expect: Option<String>,
    /// The file with the published table, which `caco get STAGE FILE` wrote: where a table differs, a run lists the
    /// differing cells. It has the digest in `expect`. Not part of the key.
    #[serde(default)]
    pub expect_table: Option<String>,
}

/// One line of a comparison: an encoder, and evaluations of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// Name of the line.
    pub name: String,
    /// Evaluation stages, in the order of the columns. Empty if there are only claims.
    #[serde(default)]
    pub results: Vec<String>,
    /// Why there are no results.
    #[serde(default)]
    pub not_run: Option<String>,
    /// Published claims about it.
    #[serde(default)]
    pub claims: Vec<Claim>,
}

/// A published metric.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// The evaluation stage, one of the row's results; in a row without results, the evaluation's name.
    pub of: String,
    /// Name of the metric, such as `top1`.
    pub metric: String,
    /// The published value, in per cent. Left out if none is known: the table then shows the evaluation without a
    /// claim.
    #[serde(default)]
    pub value: Option<f64>,
    /// Where it was published.
    pub source: String,
    /// How reliable the value is.
    #[serde(default)]
    pub standing: Standing,
    /// The margin, in points of accuracy, within which a metric counts as reproduced.
    #[serde(default = "margin")]
    pub margin: f64,
}

fn margin() -> f64 {
    1.0
}

/// How reliable a published value is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Standing {
    /// Taken from the source itself.
    #[default]
    Verified,
    /// Taken from another text that quotes it.
    SecondHand,
}

impl Kind for Compare {
    const NAME: &'static str = "compare";
    const VERSION: u32 = 3;
    const TOLERANCE: Tolerance = Tolerance::Exact;
    const COMPARISON: bool = true;
    const NOT_HASHED: &'static [&'static str] = &["expect", "expect_table"];
    const OUTPUTS: &'static [Output] = &[
        output("json", "comparison.json"),
        output("markdown", "comparison.md"),
        output("csv", "comparison.csv"),
        output("latex", "comparison.tex"),
    ];

    /// Two slots per row and column, both counted from 0: `<row>.<column>` is the metrics of that evaluation,
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
        self.rows.iter().enumerate().try_for_each(|(i, row)| self.check_row(i, row))?;
        let deviation = self.seed_deviation;
        let message = format!("is {deviation}; give points of accuracy, 0 or more");
        ensure(deviation >= 0.0 && deviation.is_finite(), "seed_deviation", message)?;
        self.check_expectation()?;
        let Some(baseline) = &self.baseline else { return Ok(()) };
        let names: Vec<&str> = self.rows.iter().map(|r| r.name.as_str()).collect();
        ensure(
            names.contains(&baseline.as_str()),
            "baseline",
            format!("'{baseline}' is not a row; the rows are {}", names.join(", ")),
        )
    }

    /// A claim refers to its column by position, so that renaming a stage changes no key.
    fn parameters(&self) -> serde_json::Value {
        let claim = |row: &Row, claim: &Claim| {
            let column = row.results.iter().position(|of| *of == claim.of);
            let mut value = serde_json::to_value(claim).expect("claims are plain data");
            if let Some(column) = column {
                value["of"] = column.into();
            }
            value
        };
        let row = |row: &Row| {
            let claims: Vec<_> = row.claims.iter().map(|c| claim(row, c)).collect();
            serde_json::json!({ "name": row.name, "claims": claims, "not_run": row.not_run })
        };
        let mut value = hashed(self);
        value["rows"] = self.rows.iter().map(row).collect();
        value
    }

    fn expected(&self) -> Option<Expected> {
        let blake3 = self.expect.as_deref().and_then(digest)?;
        Some(Expected { output: "json", blake3, table: self.expect_table.clone() })
    }
}

/// The digits of a digest, after the name of its algorithm.
fn digest(text: &str) -> Option<[u8; 32]> {
    let digits = text.strip_prefix("blake3:").filter(|digits| digits.len() == 64 && digits.is_ascii())?;
    let mut bytes = [0; 32];
    for (i, byte) in bytes.iter_mut().enumerate() {
        let pair = &digits[2 * i..2 * i + 2];
        let is_digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        *byte = u8::from_str_radix(pair, 16).ok().filter(|_| pair.bytes().all(is_digit))?;
    }
    Some(bytes)
}

impl Compare {
    fn check_expectation(&self) -> Result<(), Complaint> {
        if let Some(text) = &self.expect {
            let message =
                format!("is '{text}'; give \"blake3:\" and 64 hexadecimal digits, as `caco show STAGE` prints them");
            ensure(digest(text).is_some(), "expect", message)?;
        }
        let alone = "is given without `expect`, the digest of that table; `caco show STAGE` prints it";
        ensure(self.expect_table.is_none() || self.expect.is_some(), "expect_table", alone)
    }

    fn check_row(&self, i: usize, row: &Row) -> Result<(), Complaint> {
        let at = |field: &str| format!("rows[{i}].{field}");
        let why = "is missing; a row without results must say why it has none";
        ensure(!row.results.is_empty() || row.not_run.is_some(), &at("not_run"), why)?;
        let both = "is given although there are results; leave one out";
        ensure(row.results.is_empty() || row.not_run.is_none(), &at("not_run"), both)?;
        for claim in &row.claims {
            let known = row.results.is_empty() || row.results.contains(&claim.of);
            let message = format!("'{}' is not one of the row's results: {}", claim.of, row.results.join(", "));
            ensure(known, &at("claims"), message)?;
            let message = format!("has a margin of {}; give points of accuracy, more than 0", claim.margin);
            ensure(claim.margin > 0.0 && claim.margin.is_finite(), &at("claims"), message)?;
            let value = claim.value.unwrap_or_default();
            ensure((0.0..=100.0).contains(&value), &at("claims"), format!("has {value}; give 0 to 100 per cent"))?;
        }
        let columns = self.columns.len();
        let message = format!("names {columns} columns; '{}' has {} results", row.name, row.results.len());
        ensure(columns == 0 || row.results.len() <= columns, "columns", message)?;
        let first = self.rows.iter().find(|other| other.name == row.name).map_or(0, |first| first.results.len());
        let message = format!("'{}' has {} results in one run and {first} in another", row.name, row.results.len());
        ensure(row.results.len() == first, &at("results"), message)
    }
}
