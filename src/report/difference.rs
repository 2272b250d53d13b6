//! The cells in which two comparisons differ.

use super::{comparison::Comparison, forms::FIELDS};
use schemars::JsonSchema;
use serde::Serialize;

/// A cell that differs.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Differing {
    /// The line of the table.
    pub line: String,
    /// The evaluation.
    pub evaluation: String,
    /// The metric. Empty for a line that was not run.
    pub metric: String,
    /// The values that differ, under the names that they have in the comparison's CSV file.
    pub values: Vec<Value>,
}

/// A value that differs.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Value {
    /// Its name.
    pub name: String,
    /// As published; empty if the published table lacks it.
    pub published: String,
    /// As found here; empty if this table lacks it.
    pub found: String,
}

/// The cells of `found` that differ from those of `published`, in the order of the latter; then those that it lacks.
pub fn cells(published: &Comparison, found: &Comparison) -> Vec<Differing> {
    let mut rest = found.records();
    let empty = || [const { String::new() }; 18];
    let mut all = vec![];
    for record in published.records() {
        let same = rest.iter().position(|other| other[..3] == record[..3]);
        let other = same.map(|i| rest.remove(i));
        all.extend(differing(&record, &other.unwrap_or_else(empty)));
    }
    all.extend(rest.iter().filter_map(|record| differing(&empty(), record)));
    all
}

/// What differs between two records, one of which may be empty. The first three fields say which cell it is.
fn differing(published: &[String; 18], found: &[String; 18]) -> Option<Differing> {
    let value = |(name, (a, b)): (&str, (&String, &String))| {
        (a != b).then(|| Value { name: name.into(), published: a.clone(), found: b.clone() })
    };
    let values: Vec<Value> = FIELDS.split(',').zip(published.iter().zip(found)).skip(3).filter_map(value).collect();
    let of = if published[0].is_empty() { found } else { published };
    let [line, evaluation, metric] = [0, 1, 2].map(|i| of[i].clone());
    (!values.is_empty()).then_some(Differing { line, evaluation, metric, values })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comparison::{Cell, Line};
    use caco_measure::metric::Metric;

    fn table(lines: &[(&str, u64)]) -> Comparison {
        let cell = |right| Cell {
            evaluation: "knn".into(),
            metric: "top1".into(),
            measured: Some(Metric::share("top1", "test", right, 200)),
            ..Cell::default()
        };
        let line =
            |(name, right): &(&str, u64)| Line { name: name.to_string(), cells: vec![cell(*right)], not_run: None };
        Comparison { baseline: None, lines: lines.iter().map(line).collect() }
    }

    #[test]
    fn equal_tables_differ_in_no_cell() {
        assert_eq!(cells(&table(&[("a", 90), ("b", 100)]), &table(&[("a", 90), ("b", 100)])), []);
    }

    #[test]
    fn a_changed_value_is_listed_with_its_cell() {
        let found = cells(&table(&[("a", 90), ("b", 100)]), &table(&[("b", 102), ("a", 90)]));
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].line.as_str(), found[0].metric.as_str()), ("b", "top1"));
        let names: Vec<&str> = found[0].values.iter().map(|value| value.name.as_str()).collect();
        assert_eq!(names, ["value", "low", "high"]);
        assert_eq!((found[0].values[0].published.as_str(), found[0].values[0].found.as_str()), ("0.5", "0.51"));
    }

    #[test]
    fn lines_that_one_table_lacks_are_listed() {
        let found = cells(&table(&[("a", 90)]), &table(&[("b", 90)]));
        assert_eq!(found.iter().map(|cell| cell.line.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let value = |cell: &Differing| cell.values.iter().find(|value| value.name == "value").cloned().unwrap();
        assert_eq!((value(&found[0]).found.as_str(), value(&found[1]).published.as_str()), ("", ""));
    }
}
