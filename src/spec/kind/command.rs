use super::*;
use std::collections::BTreeMap;

/// Any program: it runs in a folder of its own, finds its inputs there under the paths given here, and leaves its
/// outputs there.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The program and its arguments. Either this or `shell`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
    /// A line for `/bin/sh -c`, run with -e and -u.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// What it reads: path in its folder → source.
    #[serde(default)]
    pub inputs: BTreeMap<String, Source>,
    /// What it writes: files or folders, paths in its folder. A path is also the output's name.
    pub outputs: Vec<String>,
    /// Environment variables to set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Environment variables to hand on from the caller; their values join the key. Besides these a command gets PATH,
    /// HOME, LANG and TMPDIR, which do not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pass_env: Vec<String>,
}

impl Kind for Command {
    const NAME: &'static str = "command";
    const VERSION: u32 = 1;
    const OUTPUTS: &'static [Output] = &[];
    const SOURCES: &'static [&'static str] = &["inputs"];

    fn inputs(&self) -> Vec<Input> {
        let input = |(slot, source): (&String, &Source)| Input {
            slot: slot.clone(),
            source: source.clone(),
            role: Role::Content,
        };
        self.inputs.iter().map(input).collect()
    }

    fn outputs(&self) -> Vec<Output> {
        self.outputs.iter().map(|path| Output { name: path.clone().into(), path: path.clone().into() }).collect()
    }

    fn check(&self) -> Result<(), Complaint> {
        ensure(self.argv.is_empty() != self.shell.is_none(), "argv", "give either 'argv' or 'shell'")?;
        ensure(
            !self.outputs.is_empty(),
            "outputs",
            "is empty; name what the command writes, or nothing can be kept of it",
        )?;
        for path in &self.outputs {
            ensure(is_inside(path), "outputs", format!("'{path}' is not a relative path inside the stage's folder"))?;
            ensure(path != "metrics", "outputs", "'metrics' stands for the metrics of a stage; choose another name")?;
            ensure(
                !self.inputs.contains_key(path),
                "outputs",
                format!("'{path}' is an input too; inputs are read-only"),
            )?;
        }
        let mut sorted: Vec<_> = self.outputs.iter().collect();
        sorted.sort();
        let twice = sorted.windows(2).find(|pair| pair[0] == pair[1]);
        ensure(twice.is_none(), "outputs", format!("'{}' is named twice", twice.map_or("", |pair| pair[0])))?;
        let within = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'));
        for outer in &self.outputs {
            let inner = self.outputs.iter().chain(self.inputs.keys()).find(|inner| within(inner, outer));
            ensure(
                inner.is_none(),
                "outputs",
                format!("'{outer}' holds '{}', which is named too; name one of them", inner.map_or("", |inner| inner)),
            )?;
        }
        for path in self.inputs.keys() {
            ensure(is_inside(path), "inputs", format!("'{path}' is not a relative path inside the stage's folder"))?;
        }
        for name in self.env.keys().chain(&self.pass_env) {
            ensure(
                !name.is_empty() && !name.contains(['=', '\0']),
                "env",
                format!("'{name}' is no name of a variable"),
            )?;
        }
        Ok(())
    }

    fn parameters(&self) -> serde_json::Value {
        let mut value = without_sources(self);
        if !self.pass_env.is_empty() {
            let values: BTreeMap<_, _> = self.pass_env.iter().map(|name| (name, std::env::var(name).ok())).collect();
            value["pass_env"] = serde_json::json!(values);
        }
        value
    }
}

/// Whether a path stays inside the folder it starts in, and names something below it.
fn is_inside(path: &str) -> bool {
    use std::path::{Component, Path};
    !path.is_empty() && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)))
}
