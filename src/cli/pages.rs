//! Pages of the documentation that follow from the program: `docs/commands.md`, the help of every command,
//! `docs/json.md`, the schema of what each prints with `--json`, and `docs/views.md`, the operations of a view. Run the
//! tests with `UPDATE_DOCS=1` to write them.

use super::{Cli, GROUPS, audit, check, cite, code, command, data, doctor, explain, signer};
use caco_engine::store;
use caco_inspect::{diff, graph, history, outcome, stage, state, store as results, sweep, why};
use caco_provenance::{citation, divergence, ro_crate};
use clap::{CommandFactory as _, error::ErrorKind};
use schemars::{Schema, schema_for};
use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

/// What each command prints.
fn schemas() -> Vec<(&'static str, Schema)> {
    vec![
        ("run", schema_for!(outcome::Outcome)),
        ("plan", schema_for!(Vec<state::Planned>)),
        ("check", schema_for!(check::Checked)),
        ("why", schema_for!(why::Why)),
        ("show", schema_for!(stage::Stage)),
        ("sweep", schema_for!(Vec<sweep::Table>)),
        ("history", schema_for!(Vec<history::Past>)),
        ("watch", schema_for!(BTreeMap<String, f64>)),
        ("graph", schema_for!(graph::Graph)),
        ("diff", schema_for!(diff::Diff)),
        ("audit", schema_for!(audit::Audited)),
        ("audit BUNDLE", schema_for!(citation::Checked)),
        ("cite", schema_for!(cite::Citation)),
        ("divergences", schema_for!(Vec<divergence::Diverging>)),
        ("export ro-crate", schema_for!(ro_crate::Packed)),
        ("signer list", schema_for!(Vec<signer::Listed>)),
        ("code status", schema_for!(Vec<code::Status>)),
        ("data list", schema_for!(Vec<data::list::Listed>)),
        ("data check", schema_for!(Vec<data::check::Found>)),
        ("data show", schema_for!(Vec<data::show::Row>)),
        ("cache ls", schema_for!(Vec<results::Row>)),
        ("cache du", schema_for!(results::Usage)),
        ("cache gc", schema_for!(store::Collected)),
        ("cache verify", schema_for!(store::Check)),
        ("cache copy", schema_for!(store::Copied)),
        ("doctor", schema_for!(Vec<doctor::Finding>)),
    ]
}

const JSON: &str = "# What commands print with `--json`

Each command prints one JSON value on stdout. A field may be added in a later version; a field that is removed or changes its type is
noted in the changelog. Keys and digests are 64 hexadecimal digits; times are UTC in RFC 3339.

Not in this list: `caco explain KIND --json` prints a JSON schema, `caco export croissant` prints Croissant 1.1 metadata, `caco log STAGE --json`
prints the spans of a stage, one object per line, and `caco bench step --json`, `caco bench loader --json` and `caco bench train --json` print
measurements. `caco run --dry-run --json` prints what `plan` prints, `caco history RUN --json` one item of its list, and
`caco code status --parts KIND --json` a map of parts to digests.
";

fn json() -> String {
    let mut page = JSON.to_string();
    for (command, schema) in schemas() {
        let schema = schema.to_value();
        write!(page, "\n## `caco {command} --json`\n\n").expect("a string takes all text");
        let root = match schema.get("items") {
            Some(items) => {
                page += "A list. Each item:\n\n";
                explain::resolve(&schema, items)
            }
            None => &schema,
        };
        if root.get("properties").is_none() {
            writeln!(page, "{}", explain::type_of(root)).expect("a string takes all text");
        }
        page += &explain::table(root);
        for (name, definition) in explain::members(&schema, "$defs").into_iter().flatten() {
            if !std::ptr::eq(definition, root) {
                write!(page, "\n**{name}.** {}\n\n", explain::description(definition))
                    .expect("a string takes all text");
                page += &explain::table(definition);
            }
        }
    }
    page
}

const COMMANDS: &str = "# Commands

What `caco COMMAND --help` prints. Every command takes `--project DIR`, `--cache DIR` (or the variable `CACO_CACHE`) and `-v`:
[the project and its store](guide.md#the-project).
";

fn commands() -> String {
    // The page must not depend on the width of a terminal.
    let mut all = command().term_width(100);
    all.build();
    let mut page = COMMANDS.to_string();
    for (group, names) in GROUPS {
        write!(page, "\n## {group}\n").expect("a string takes all text");
        for name in names {
            let command = all.find_subcommand_mut(name).expect("every command in a group exists");
            page += &help_of(command, &format!("caco {name}"));
        }
    }
    page
}

/// The help of a command and of those below it.
fn help_of(command: &mut clap::Command, name: &str) -> String {
    let hide_global = |arg: clap::Arg| if arg.is_global_set() { arg.hide(true) } else { arg };
    let help = command.clone().mut_args(hide_global).render_help().to_string();
    let lines: Vec<&str> = help.trim_end().lines().map(str::trim_end).collect();
    let mut page = format!("\n### {name}\n\n```text\n{}\n```\n", lines.join("\n"));
    for below in command.get_subcommands_mut() {
        let name = format!("{name} {}", below.get_name());
        page += &help_of(below, &name);
    }
    page
}

const VIEWS: &str = "# Views

A view is a list of operations, in the order of application. The first is a `Crop`, which decides the size of the view.

```ron
views: Custom([
    [Crop(size: 224, scale: (0.2, 1.0)), RandAugment(n: 2, magnitude: 9), Flip(p: 0.5)],
    [Crop(size: 224, scale: (0.2, 1.0)), Jitter(brightness: 0.4, contrast: 0.4, p: 0.8), Grey(p: 0.2), Flip(p: 0.5)],
]),
```

The first two views are the large ones, and have the same size. `SingleCrop(size: 224)` and `MultiCrop(size: 224, small: 96)` stand for the
lists of the paper; a preset and the list that it stands for give the same key. `caco data show DIR --views '…'` draws a contact sheet of
views.

Each operation draws from a stream of random numbers of its own, named by the seed, the epoch, the image, the view and the operation. So one
that is added or taken away does not change what those of other kinds draw. Pixels are those of torchvision on PIL images
([exactness](data.md#exactness)).
";

fn views() -> String {
    let schema = schema_for!(caco_kinds::View).to_value();
    let mut page = VIEWS.to_string();
    for choice in ["First", "Operation"].iter().flat_map(|name| schema["$defs"][*name]["oneOf"].as_array()).flatten() {
        for (kind, reference) in explain::members(choice, "properties").into_iter().flatten() {
            let operation = explain::resolve(&schema, reference);
            let text = explain::description(operation);
            write!(page, "\n## `{kind}`\n\n{text}\n\n{}", explain::parameters(operation))
                .expect("a string takes all text");
        }
    }
    page
}

/// Compares a page with the file that holds it.
fn hold(file: &str, page: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::write(&path, page).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == page, "{file} is out of date; run this test with UPDATE_DOCS=1");
}

#[test]
fn the_page_on_json_is_what_the_types_say() {
    hold("docs/json.md", &json());
}

#[test]
fn the_page_on_commands_is_what_help_prints() {
    hold("docs/commands.md", &commands());
}

#[test]
fn the_page_on_views_is_what_the_types_say() {
    hold("docs/views.md", &views());
}

#[test]
fn every_operation_of_a_view_names_its_source_and_describes_its_parameters() {
    let page = views();
    let operations: Vec<&str> = page.split("\n## `").skip(1).collect();
    assert!(operations.len() >= 7, "{page}");
    for operation in operations {
        assert!(operation.contains(" From ") && operation.contains(" 20"), "no source in\n{operation}");
        let rows = operation.lines().filter(|line| line.starts_with("| `"));
        rows.for_each(|row| assert!(row.split(" | ").last().unwrap().len() > 10, "{row}"));
    }
}

#[test]
fn every_command_that_prints_json_is_in_the_page_on_json() {
    fn with_json(command: &clap::Command, above: &str, found: &mut Vec<String>) {
        for below in command.get_subcommands() {
            let name = format!("{above} {}", below.get_name());
            found.extend(below.get_arguments().any(|arg| arg.get_id() == "json").then(|| name.clone()));
            with_json(below, &name, found);
        }
    }
    let (page, mut found) = (json(), vec![]);
    with_json(&Cli::command(), "caco", &mut found);
    assert!(found.len() > 20, "{found:?}");
    let missing: Vec<&String> = found
        .iter()
        .filter(|name| !page.contains(&format!("`{name} --json`")) && !page.contains(&format!("`{name} KIND --json`")))
        .filter(|name| !page.contains(&format!("`{name} STAGE --json`")))
        .collect();
    assert!(missing.is_empty(), "not in docs/json.md: {missing:?}");
}

/// Every command, and every one below another.
fn all_commands(command: &clap::Command) -> Vec<&clap::Command> {
    command.get_subcommands().flat_map(|below| [below].into_iter().chain(all_commands(below))).collect()
}

#[test]
fn every_command_is_in_a_group_and_is_described_in_one_short_sentence() {
    let command = Cli::command();
    let mut listed: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
    let visible = command.get_subcommands().filter(|command| !command.is_hide_set());
    let mut names: Vec<&str> = visible.map(clap::Command::get_name).collect();
    listed.sort_unstable();
    names.sort_unstable();
    assert_eq!(listed, names);
    for command in all_commands(&command) {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        assert!((10..=72).contains(&about.chars().count()), "{}: {about}", command.get_name());
        assert!(!about.contains(". ") && !about.ends_with(['.', '?']), "{}: {about}", command.get_name());
    }
}

/// The commands in a page: lines of its code blocks, and text in backquotes, that begin with `caco `.
fn commands_in(page: &str) -> Vec<String> {
    let blocks = page.lines().map(|line| line.trim_start().trim_start_matches("$ "));
    let quoted = page.split('`').skip(1).step_by(2);
    let starts = |text: &&str| text.starts_with("caco ") && !text.contains('\n');
    blocks.chain(quoted).filter(starts).map(String::from).collect()
}

/// The words of a command as a shell has them, without what follows it on the line. None: it is a pattern for people, with
/// choices or an ellipsis in it.
fn words(command: &str) -> Option<Vec<String>> {
    let mut words = vec![String::new()];
    let mut quote = None;
    for c in command.chars() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '#' | '|' | '>' | ';' | '&') => break,
            (None, '[' | '…' | '<' | '\\') => return None,
            (None, ' ') => words.push(String::new()),
            (_, c) => words.last_mut().expect("there is one").push(c),
        }
    }
    words.retain(|word| !word.is_empty());
    (words.get(1).map(String::as_str) != Some("COMMAND")).then_some(words)
}

#[test]
fn every_command_in_the_documents_is_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let docs = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let above = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "ARCHITECTURE.md"].map(|name| root.join(name));
    let (mut checked, mut faults) = (0, vec![]);
    for path in docs.chain(above).filter(|path| path.extension().is_some_and(|ending| ending == "md")) {
        for text in commands_in(&fs::read_to_string(&path).unwrap()) {
            let Some(words) = words(&text) else { continue };
            // A page may name a command, or one of its options, without arguments; and a placeholder may be where a
            // value belongs, such as SHELL.
            let is_name = |word: &String| word.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            let is_placeholder = |word: &String| word.chars().all(|c| c.is_ascii_uppercase());
            let fine = match command().try_get_matches_from(&words).map_err(|error| error.kind()) {
                Ok(_) | Err(ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => true,
                Err(ErrorKind::MissingRequiredArgument | ErrorKind::MissingSubcommand) => words.iter().all(is_name),
                Err(ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand) => words.iter().all(is_name),
                Err(ErrorKind::InvalidValue | ErrorKind::ValueValidation) => {
                    words.iter().all(is_name) || words.iter().any(is_placeholder)
                }
                Err(_) => false,
            };
            if !fine {
                faults.push(format!("{}: `{text}`", path.display()));
            }
            checked += 1;
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(checked > 50, "{checked}");
}
