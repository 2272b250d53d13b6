//! Explains which undeclared files a failed command tried to open, or missed, and what to add to the pipeline file.

use super::{
    confine::{Confinement, real},
    refusal::Refusal,
    regular,
};
use std::path::Path;

/// Explains how the failure of the stage in folder `work` relates to its confinement. Empty if it does not. `refusals`
/// are those that the kernel reported, `None` if the process was not confined. `inputs` are slots and their paths,
/// including outputs of other stages. The attempt's log begins at byte `log_start` of the file. Relative paths in the
/// pipeline file start at `root`.
pub fn words(
    work: &Path,
    confinement: &Confinement,
    refusals: Option<Vec<Refusal>>,
    inputs: &[(&str, &Path)],
    log_start: u64,
    root: &Path,
) -> String {
    const READ: usize = 16 << 10;
    let log = regular::read(&work.join("log")).unwrap_or_default();
    let start = log.len().saturating_sub(READ).max(log.len().min(log_start as usize));
    let log = String::from_utf8_lossy(&log[start..]).into_owned();
    let refusals = match refusals {
        Some(reported) if reported.is_empty() => complained_of(&log, &work.join("out"), confinement),
        reported => reported.unwrap_or_default(),
    };
    let refused = (!refusals.is_empty()).then(|| explain(&refusals, inputs, root));
    let words = missed_module(&log, inputs, root).into_iter().chain(refused).chain(changed_input(&log, inputs));
    words.map(|words| format!("; {words}")).collect()
}

/// Explains refusals, with what to add to the pipeline file. Relative paths in the file start at `from`.
fn explain(refusals: &[Refusal], inputs: &[(&str, &Path)], from: &Path) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<String> = refusals.iter().take(SHOWN).map(|refusal| explain_one(refusal, inputs, from)).collect();
    let more = refusals.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!("; and {more} more") } else { String::new() };
    shown.join("; ") + &more
}

fn explain_one(Refusal { path, write }: &Refusal, inputs: &[(&str, &Path)], from: &Path) -> String {
    if *write && let Some((slot, _)) = inputs.iter().find(|(_, input)| path.starts_with(real(input))) {
        return format!(
            "it may not write to its input {slot:?}; let it change a copy: cp -rL {slot} copy; chmod -R u+w copy"
        );
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let shown = path.strip_prefix(from).unwrap_or(path).display();
    if *write {
        return format!(
            "it may not write {}: it writes in its own folder; write {name:?} there, and add it to its outputs: \
             outputs: [{name:?}]",
            path.display()
        );
    }
    let place = path.strip_prefix(from).unwrap_or(Path::new(&*name)).display().to_string();
    format!(
        "it may not read {}, which it does not declare; add to its inputs: {place:?}: Path(\"{shown}\")",
        path.display()
    )
}

/// Explains a Python module that a script did not find although it is beside one of its declared files: the stage's
/// folder only holds declared files, so no access was denied. `inputs` are slots and their paths.
fn missed_module(log: &str, inputs: &[(&str, &Path)], from: &Path) -> Option<String> {
    let module = log.lines().rev().find_map(|line| line.split_once("No module named '")?.1.strip_suffix('\''))?;
    let first = module.split('.').next().unwrap_or(module);
    let names = [format!("{first}.py"), first.to_string()];
    let beside = |(slot, input): &(&str, &Path)| {
        let name = names.iter().find(|name| input.with_file_name(name).exists())?;
        let (slot, path) = (Path::new(slot).with_file_name(name), input.with_file_name(name));
        let shown = path.strip_prefix(from).unwrap_or(&path).display();
        Some(format!(
            "{} is not declared, so it does not find module '{module}'; add to its inputs: {slot:?}: Path(\"{shown}\")",
            path.display()
        ))
    };
    inputs.iter().find_map(beside)
}

/// Explains a complaint about an input that is mounted: it can neither be written to, nor moved or removed.
fn changed_input(log: &str, inputs: &[(&str, &Path)]) -> Option<String> {
    let refused = |line: &&str| line.contains("Read-only file system") || line.contains("Device or resource busy");
    let line = log.lines().rev().find(refused)?;
    let (slot, _) = inputs.iter().find(|(slot, _)| line.contains(slot))?;
    Some(format!("a large input is mounted read-only; let it work on a copy: cp -r {slot} copy; chmod -R u+w copy"))
}

/// Finds files in the last lines of a program's log, if the kernel reported none: those named in a line about a denied
/// permission, if the confinement does deny them.
fn complained_of(log: &str, folder: &Path, confinement: &Confinement) -> Vec<Refusal> {
    let denied = log.lines().filter(|line| line.contains("ermission denied") || line.contains("EACCES"));
    let words = denied.flat_map(|line| line.split(['\'', '"', '`', ' ', ':', '\t', '(', ')']));
    let mut found: Vec<Refusal> = words
        .filter(|word| word.contains(['/', '.']))
        .map(|word| real(&folder.join(word)))
        .filter(|path| path.is_file() && !confinement.allows(path, false))
        .map(|path| Refusal { path, write: false })
        .collect();
    found.sort();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn refusal(path: &str, write: bool) -> Refusal {
        Refusal { path: path.into(), write }
    }

    #[test]
    fn a_refusal_names_the_file_and_the_line_to_add() {
        let shown = explain(&[refusal("/p/src/helper.py", false), refusal("/p/out.txt", true)], &[], Path::new("/p"));
        insta::assert_snapshot!(shown);
        let many: Vec<Refusal> = (0..5).map(|i| refusal(&format!("/data/{i}"), false)).collect();
        assert!(explain(&many, &[], Path::new("/p")).ends_with("; and 2 more"));
        let inputs = [("words", Path::new("/store/objects/67/27e7"))];
        let shown = explain(&[refusal("/store/objects/67/27e7", true)], &inputs, Path::new("/p"));
        assert!(shown.starts_with("it may not write to its input \"words\"; let it change a copy"), "{shown}");
    }

    #[test]
    fn a_module_beside_a_declared_script_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let (script, helper) = (folder.path().join("train.py"), folder.path().join("helper.py"));
        fs::write(&helper, "").unwrap();
        let log = "Traceback\nModuleNotFoundError: No module named 'helper.deep'\n";
        let missed = |log: &str| missed_module(log, &[("code/train.py", &script)], folder.path());
        assert!(missed(log).is_some_and(|words| words.ends_with("\"code/helper.py\": Path(\"helper.py\")")));
        assert_eq!(missed("ModuleNotFoundError: No module named 'numpy'\n"), None);
    }

    #[test]
    fn a_mounted_input_is_named() {
        let inputs = [("big", Path::new("/data/big"))];
        let words = changed_input("x\nsh: 1: cannot create big: Read-only file system\n", &inputs).unwrap();
        assert!(words.contains("cp -r big copy"), "{words}");
        assert!(changed_input("mv: cannot move 'big' to 'y': Device or resource busy\n", &inputs).is_some());
        assert_eq!(changed_input("cp: other: Read-only file system\n", &inputs), None);
    }

    #[test]
    fn a_denied_file_is_found_in_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::write(root.join("helper.py"), "").unwrap();
        let log = format!(
            "reading\nPermissionError: [Errno 13] Permission denied: '{}'\nsh: none.txt: Permission denied\n",
            root.join("helper.py").display()
        );
        let found = complained_of(&log, &root.join("work"), &Confinement::default());
        assert_eq!(found, [refusal(root.join("helper.py").to_str().unwrap(), false)]);
    }
}
