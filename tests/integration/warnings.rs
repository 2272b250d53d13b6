//! Values that are allowed, but will hardly give what is wanted.

use crate::project::Project;

const SMALL: &str = r#"(
    common: (model: (arch: ResNet18, width: 4), views: SingleCrop(size: 16), batch: 64, index: "index"),
    stages: {
        "images": synthesize(classes: 2, train: 64, test: 9, size: 32),
        "index": index(root: Stage("images/train")),
        "bank": init_bank(bank_size: 1024),
    },
    each_variant: {
        "pretrain": pretrain(method: CaCo(init: "bank"), epochs: 1),
    },
    variants: {
        "a": (),
        "b": (set: {"pretrain": (epochs: 2)}),
        "queue": (set: {"pretrain": (method: CaCo(objective: Queue))}),
    },
)"#;

#[test]
fn a_bank_rate_out_of_scale_is_warned_of_with_a_better_one() {
    let project = Project::with(SMALL);
    let check = project.ok(&["check", "p.ron"]);
    insta::assert_snapshot!(check.err);
    let checked = project.json(&["check", "p.ron", "--json"]);
    let warning = &checked["warnings"][0];
    assert_eq!(checked["warnings"].as_array().unwrap().len(), 1, "{checked}");
    assert_eq!(warning["stages"], serde_json::json!(["pretrain/a", "pretrain/b"]));
    assert_eq!((warning["field"].as_str(), warning["place"].as_str()), (Some("method.bank_rate"), Some("p.ron:9")));
    // Where the value is given, it is what the warning points at.
    project.edit("\"bank\")", "\"bank\",\n bank_rate: 2)");
    assert_eq!(project.json(&["check", "p.ron", "--json"])["warnings"][0]["place"], "p.ron:10");
    let set = project.json(&["check", "p.ron", "--json", "--set", "pretrain.method.bank_rate=4"]);
    assert_eq!(set["warnings"][0]["place"], "--set pretrain.method.bank_rate");
    // The named rate is not warned of.
    project.edit("bank_rate: 2", "bank_rate: 0.047");
    assert_eq!(project.ok(&["check", "p.ron"]).err, "");
}

#[test]
fn a_run_warns_of_what_it_is_about_to_run() {
    let project = Project::with(SMALL);
    let said = |args: &[&str]| {
        // It stops before the first stage.
        let run = project.caco(&[&["run", "p.ron", "--max-time", "0"], args].concat());
        assert_eq!(run.code, 75, "{}", run.err);
        run.err.contains("warning: stage 'pretrain/a'")
    };
    assert!(said(&["pretrain/*"]));
    assert!(!said(&["index"]), "a stage that is not asked for");
    assert!(!said(&["pretrain/*", "--quiet"]));
    assert!(!said(&["pretrain/*", "--set", "pretrain.method.bank_rate=0.04"]));
}
