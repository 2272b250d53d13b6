use super::{super::Source, *};
use proptest::prelude::*;

fn expanded(text: &str) -> Result<String, Diagnostic> {
    Ok(Tree::read(0, text, &Texts::default())?.root.flat())
}

fn flat(text: &str) -> String {
    Node::parse(0, text).unwrap().flat()
}

#[test]
fn a_loop_equals_its_entries_written_by_hand() {
    let cases = [
        ("[for x in [1, 2] { x, x }]", "[1, 1, 2, 2]"),
        ("[0, for x in [1, 2] { \"v{x}\" } 3]", "[0, \"v1\", \"v2\", 3]"),
        ("[for x in [] { x }]", "[]"),
        ("{for (k, v) in {\"a\": 1, \"b\": 2} { \"{k}\": v }}", "{\"a\": 1, \"b\": 2}"),
        ("{for (k, _) in {\"a\": 1} { k: () }, \"c\": 1}", "{\"a\": (), \"c\": 1}"),
        (
            "[for (_, v) in {\"a\": (b: Train)} { f(x: v.b, y: v, z: \"{v.b}\") }]",
            "[f(x: Train, y: (b: Train), z: \"Train\")]",
        ),
        ("[for x in [[1], [2, 3]] { for y in x { y } }]", "[1, 2, 3]"),
        ("[for x in [1, 2] { for y in [\"a\", \"b\"] { \"{x}{y}\" } }]", "[\"1a\", \"1b\", \"2a\", \"2b\"]"),
        ("(let: (n: 3, xs: [n, 4]), a: [for x in xs { x }], b: n)", "(a: [3, 4], b: 3)"),
        ("(let: (all: {\"p\": (q: 1)}, b: all.p.q), a: \"{b}-{all.p.q}\")", "(a: \"1-1\")"),
        (
            "[for x in [\"a\"] { Path(\"${VAR}/{x}\"), \"{{x}}\", \"\\u{41}{x}\", r#\"{x}\\d\"# }]",
            "[Path(\"${VAR}/a\"), \"{x}\", \"\\u{41}a\", r#\"a\\d\"#]",
        ),
        ("[for x in [\"a\\\"b\", 'c', 1.5] { \"{x}\" }]", "[\"a\\\"b\", \"c\", \"1.5\"]"),
        ("[for x in [\"q\\\"#\"] { r#\"{x}\"# }]", "[\"q\\\"#\"]"),
        ("[for x in [true, None, Some(1)] { x }, \"{x}\", lone]", "[true, None, Some(1), \"{x}\", lone]"),
        (
            "{for x in [\"k\"] { \"{x}\": {for y in [1] { y: [for z in [2] { z, x, y }] }} }}",
            "{\"k\": {1: [2, \"k\", 1]}}",
        ),
    ];
    for (text, by_hand) in cases {
        assert_eq!(expanded(text).map_err(|e| e.to_string()).as_deref(), Ok(flat(by_hand).as_str()), "{text}");
    }
}

/// A file whose loops are wrong, the place of the error, and what it says.
#[test]
fn what_is_wrong_is_said_at_its_place() {
    let cases = [
        ("[for x in [1] { xs, x }]", "xs", "no variable is called 'xs'; in this iteration: x = 1; did you mean 'x'?"),
        ("[for x in [1] { \"{x}{y}\" }]", "y}", "no variable is called 'y'"),
        ("[for x in [(a: 1)] { x.b }]", "x.b", "'x' has no 'b'; it is (a: 1)"),
        ("[for x in [1] { x.b }]", "x.b", "'x' has no 'b'; it is 1"),
        ("[for x in [(a: 1)] { \"-{x}\" }]", "x}", "'x' is (a: 1), which cannot be part of a string"),
        ("[for x in [1] { \"{x\" }]", "{x\"", "'{' has no counterpart"),
        ("[for x in [1] { \"x}\", x }]", "}\",", "'}' has no counterpart"),
        ("[for x in [1] { \"{print $1}\", x }]", "print", "'{print $1}' names no variable"),
        (
            "{for x in [1, 2] { \"a{x}\": 1 } for y in [2] { \"a{y}\": 1 }}",
            "\"a{y}",
            "'a2' appears twice; first here; in this iteration: y = 2; in the first iteration: x = 2",
        ),
        ("{for x in [1, 1] { \"a{x}\": 1 }}", "\"a{x}", "'a1' appears twice"),
        ("[for x in [1] { for x in [2] { x } }]", "x in [2]", "there is already a variable 'x'"),
        ("(let: (x: 1), a: [for x in [2] { x }])", "x in [2]", "there is already a variable 'x'"),
        ("[for x in [1] { 2 }]", "x in", "the loop does not use 'x'"),
        ("[for (k, v) in {\"a\": 1} { v }]", "k, v", "the loop does not use 'k'"),
        ("[for (_, _) in {\"a\": 1} { 1 }]", "for", "repeats the same"),
        ("[for x in {\"a\": 1} { x }]", "x in", "the loop names one variable"),
        ("[for (k, v) in [1] { k, v }]", "k, v) in", "a list has no keys"),
        ("[for x in 3 { x }]", "3 {", "a loop goes over a list or a map, not over 3"),
        ("[for x in Some([1]) { x }]", "Some", "not over Some([1])"),
        ("[for Big in [1] { Big }]", "Big in", "'Big' cannot be the name of a variable"),
        ("(let: [1])", "[1]", "`let` is a struct"),
        ("(let: (a: b, b: 1))", "b, b", "no variable is called 'b'"),
        ("(a: for x in [1] { x })", "for", "here is one value"),
        ("(a: 1, for x in [1] { x })", "for", "here is one value"),
        ("[for x on [1] { x }]", " [1]", "'in' is missing after 'x'"),
        ("[for x in [1] [x]]", "[x]", "the body of a loop is in braces"),
        ("[for (a, b, c) in [1] { a }]", "(a, b, c)", "one variable, or two in parentheses"),
        ("{for x in [1] { x }}", "}}", "':' is missing between key and value"),
    ];
    for (text, at, says) in cases {
        let error = expanded(text).expect_err(text);
        assert!(error.to_string().contains(says), "{text}\n{error}");
        assert_eq!(error.span.map(|span| span.start as usize), text.rfind(at), "{text}\n{error}");
        assert!(!error.help.is_empty() || error.message.contains("missing"), "{text}\n{error}");
    }
}

#[test]
fn a_few_lines_do_not_fill_the_memory() {
    let mut text = String::from("(let: (v0: [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]");
    (1..9).for_each(|i| text += &format!(", v{i}: [{}]", vec![format!("v{}", i - 1); 10].join(", ")));
    let error = expanded(&(text + "), a: v8)")).unwrap_err();
    assert!(error.message.contains("more than 1000000 values"), "{error}");
    let mut text = String::from("(let: (v0: 1");
    (1..300).for_each(|i| text += &format!(", v{i}: [v{}]", i - 1));
    let error = expanded(&(text + "), a: v299)")).unwrap_err();
    assert!(error.message.contains("nested more than"), "{error}");
}

#[test]
fn what_is_expanded_keeps_its_place() {
    let text = "{for x in [\"a\"] { \"{x}\": k(f: x, g: 7) }}";
    let texts = Texts::default();
    let tree = Tree::read(0, text, &texts).unwrap();
    let sources = [Source { name: String::new(), text: text.into() }];
    let rendered = tree.root.render(&sources);
    assert_eq!(rendered.text, "{\"a\":k(f:\"a\",g:7,),}");
    for (part, written) in [("\"a\":", "\"{x}\""), ("\"a\",", "x, g"), ("7", "7")] {
        let at = rendered.origin(rendered.text.find(part).unwrap()).unwrap();
        assert_eq!((at.start as usize, at.iteration()), (text.find(written).unwrap(), 1), "{part}");
    }
    assert_eq!(tree.iterations[0].value, "x = \"a\"");
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in r#"(\[|\{|\(|\]|\}|\)|for |x| in |,|:|"|\{x\}|1|let|\.){0,30}"#) {
        let _ = expanded(&text);
    }

    #[test]
    fn loops_over_any_values_equal_what_they_stand_for(
        outer in prop::collection::btree_map("[a-z]{1,3}", prop::collection::vec("[ -~]{0,4}", 0..3), 0..4),
    ) {
        let text = ron::to_string(&outer).unwrap();
        let looped = format!("{{for (k, vs) in {text} {{ \"s/{{k}}\": [for v in vs {{ \"<{{v}}>\", v }}] }}}}");
        let by_hand: std::collections::BTreeMap<String, Vec<String>> = outer
            .iter()
            .map(|(k, vs)| (format!("s/{k}"), vs.iter().flat_map(|v| [format!("<{v}>"), v.clone()]).collect()))
            .collect();
        let read: std::collections::BTreeMap<String, Vec<String>> = ron::from_str(&expanded(&looped).unwrap()).unwrap();
        prop_assert_eq!(read, by_hand);
    }
}
