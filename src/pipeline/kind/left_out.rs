//! Leaves parameters out of a preimage.
//!
//! A dotted path names them, at any depth: `monitor.index`. It goes through lists into each element, so `rows.note` is
//! the `note` of every row. A variant with fields is an object with one field in JSON, so its name is a part of the
//! path, as in `views.MultiCrop.count`. `*` is any key of a map, or any variant: `sets.*.folder`.

use serde_json::Value;

const ANY: &str = "*";

/// Removes every parameter at `path` whose value is one to leave out.
pub(super) fn leave_out(value: &mut Value, path: &str, is_one: &dyn Fn(&Value) -> bool) {
    match value {
        Value::Array(elements) => elements.iter_mut().for_each(|element| leave_out(element, path, is_one)),
        Value::Object(fields) => match path.split_once('.') {
            Some((ANY, rest)) => fields.values_mut().for_each(|inner| leave_out(inner, rest, is_one)),
            Some((first, rest)) => fields.get_mut(first).into_iter().for_each(|inner| leave_out(inner, rest, is_one)),
            None if path == ANY => fields.retain(|_, value| !is_one(value)),
            None => {
                if fields.get(path).is_some_and(is_one) {
                    fields.remove(path);
                }
            }
        },
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn without(mut value: Value, paths: &[&str]) -> Value {
        paths.iter().for_each(|path| leave_out(&mut value, path, &|_| true));
        value
    }

    #[test]
    fn a_path_leads_through_structs_lists_maps_and_variants() {
        assert_eq!(without(json!({"a": 1, "b": {"c": 2, "d": 3}}), &["a", "b.c"]), json!({"b": {"d": 3}}));
        assert_eq!(without(json!({"a": [{"b": 1, "c": 2}, {"b": 3}]}), &["a.b"]), json!({"a": [{"c": 2}, {}]}));
        assert_eq!(without(json!({"a": [[{"b": 1}]]}), &["a.b"]), json!({"a": [[{}]]}));
        let map = json!({"a": {"x": {"b": 1}, "y": {"b": 2, "c": 3}}});
        assert_eq!(without(map.clone(), &["a.*.b"]), json!({"a": {"x": {}, "y": {"c": 3}}}));
        assert_eq!(without(map.clone(), &["a.x.b"]), json!({"a": {"x": {}, "y": {"b": 2, "c": 3}}}));
        assert_eq!(without(map, &["a.*"]), json!({"a": {}}));
        let variant = json!({"a": {"Multi": {"size": 1, "count": 6}}});
        assert_eq!(without(variant.clone(), &["a.Multi.count"]), json!({"a": {"Multi": {"size": 1}}}));
        assert_eq!(without(variant.clone(), &["a.Single.count", "a.count"]), variant, "another variant has its own");
        let newtypes = json!({"a": [{"Blur": [{"p": 1}, {"p": 2}]}, "Flip"]});
        assert_eq!(without(newtypes, &["a.Blur.p"]), json!({"a": [{"Blur": [{}, {}]}, "Flip"]}));
    }

    #[test]
    fn a_path_that_leads_nowhere_changes_nothing() {
        let value = json!({"a": null, "b": 1, "c": "Unit", "d": {"e": []}});
        assert_eq!(without(value.clone(), &["a.x", "b.x", "c.x", "d.e.x", "x", "*.y", ""]), value);
    }
}
