use super::*;
use serde_json::Value;
use std::collections::BTreeMap;

/// Runs any program in its own folder, which holds its inputs under the paths given here, and to which it writes its
/// outputs. Of the project's files, it can only open those that it declares.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// The program and its arguments. Give either this or `shell`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub argv: Vec<String>,
    /// A line for bash, run with -e, -u and pipefail: it ends at the first command that fails, in a pipe too. For another
    /// shell, name it in `argv`: ["sh", "-euc", "…"].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    /// Its inputs: path in its folder → source.
    #[serde(default, deserialize_with = "path::map")]
    pub inputs: BTreeMap<String, Source>,
    /// Its outputs: paths of files or folders in its folder. A path is also the output's name.
    #[serde(deserialize_with = "path::list")]
    pub outputs: Vec<String>,
    /// A file that it writes in its folder with its metrics: a JSON object of numbers, possibly nested (`{"accuracy":
    /// 0.9, "test": {"loss": 0.3}}`). `metrics.jsonl`, with one metric per line, is kept without being named.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "path::some")]
    pub metrics: Option<String>,
    /// Parameters by name: numbers, strings, booleans, lists or maps of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, Value>,
    /// How parameters are passed to the program.
    #[serde(default)]
    pub parameters_as: Delivery,
    /// Programs on PATH whose bytes and `--version` are part of the key, such as `python3`. Other installed software is
    /// not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
    /// Environment variables to set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Environment variables to pass on from the caller; their values are part of the key. A command also gets PATH,
    /// HOME, LANG and TMPDIR, which are not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pass_env: Vec<String>,
    /// Whether it can only access what it declares.
    #[serde(default)]
    pub isolation: Isolation,
    /// Files and folders outside the project that it may read although they are not part of the key, such as a cache of
    /// downloaded models. The machine's software need not be listed. `${VAR}` is replaced from the environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
}

/// How parameters are passed to a program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Delivery {
    /// As `--name=value`, after its other arguments; in a `shell` line they are "$@". Lists and maps are JSON.
    #[default]
    Arguments,
    /// As environment variables with the parameters' names. Lists and maps are JSON.
    Environment,
    /// As a JSON object in this file of its folder.
    Json(#[serde(deserialize_with = "path::one")] String),
    /// As a RON map in this file of its folder.
    Ron(#[serde(deserialize_with = "path::one")] String),
}

/// Whether a command can only access what it declares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Isolation {
    /// Enforced by the kernel's Landlock: apart from the machine's software, it can only read its inputs and write to
    /// its own folder. If the kernel has no Landlock, the stage runs unconfined and its record says so.
    #[default]
    Landlock,
    /// It may open any file that the user may.
    None,
}

impl Kind for Command {
    const NAME: &'static str = "command";
    /// 3: inputs are real files and folders, with their executable bits and empty folders, and bash executes shell lines.
    const VERSION: u32 = 3;
    const TOLERANCE: Tolerance = Tolerance::Exact;
    const COMMAND: bool = true;
    const OUTPUTS: &'static [Output] = &[];
    const DEFAULT_NOT_HASHED: &'static [(&'static str, &'static str)] =
        &[("parameters_as", r#""Arguments""#), ("isolation", r#""Landlock""#)];
    const SOURCES: &'static [&'static str] = &["inputs", "tools", "allow"];

    fn inputs(&self) -> Vec<Input> {
        let input = |(slot, source): (&String, &Source)| Input {
            slot: slot.clone(),
            source: source.clone(),
            role: Role::Content,
        };
        let tool = |name: &String| Input {
            slot: format!("{TOOL_SLOT}{name}"),
            source: Source::Path(name.clone()),
            role: Role::Tool,
        };
        self.inputs.iter().map(input).chain(self.tools.iter().map(tool)).collect()
    }

    fn outputs(&self) -> Vec<Output> {
        self.outputs.iter().map(|path| Output { name: path.clone().into(), path: path.clone().into() }).collect()
    }

    fn check(&self) -> Result<(), Complaint> {
        ensure(
            self.argv.is_empty() != self.shell.is_none(),
            "argv",
            "and 'shell' exclude each other; give exactly one of them",
        )?;
        ensure(
            !self.outputs.is_empty() || self.metrics.is_some(),
            "outputs",
            "is empty; name the files that the command writes",
        )?;
        self.check_paths()?;
        for name in self.env.keys().chain(&self.pass_env) {
            ensure(is_variable(name), "env", format!("'{name}' is not a valid name for a variable"))?;
        }
        for name in self.parameters.keys() {
            let fits = is_variable(name) && !name.contains(char::is_whitespace);
            ensure(fits, "parameters", format!("'{name}' is not a valid name for a parameter"))?;
            let twice = self.parameters_as == Delivery::Environment && self.env.contains_key(name);
            ensure(!twice, "parameters", format!("'{name}' is in `env` too"))?;
        }
        for (i, tool) in self.tools.iter().enumerate() {
            ensure(!tool.is_empty(), "tools", "'' is not the name of a program")?;
            ensure(!self.tools[..i].contains(tool), "tools", format!("'{tool}' is named twice"))?;
        }
        Ok(())
    }

    fn parameters(&self) -> Value {
        let mut value = hashed(self);
        if !self.pass_env.is_empty() {
            let values: BTreeMap<_, _> = self.pass_env.iter().map(|name| (name, std::env::var(name).ok())).collect();
            value["pass_env"] = serde_json::json!(values);
        }
        value
    }
}

impl Command {
    /// The file that its parameters are written to, if they are passed that way.
    pub fn parameter_file(&self) -> Option<&str> {
        match &self.parameters_as {
            Delivery::Json(path) | Delivery::Ron(path) => Some(path),
            _ => None,
        }
    }

    fn check_paths(&self) -> Result<(), Complaint> {
        let outside = |path: &str| format!("'{path}' is not a relative path inside the stage's folder");
        let within = |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('/'));
        for path in &self.outputs {
            ensure(is_inside(path), "outputs", outside(path))?;
            let above = self.inputs.keys().find(|above| within(path, above)).map_or("", String::as_str);
            ensure(
                above.is_empty(),
                "outputs",
                format!(
                    "'{path}' is inside the input '{above}', which may be mounted read-only; write it to another path"
                ),
            )?;
            ensure(
                path != "metrics",
                "outputs",
                "'metrics' is reserved for the metrics of a stage; choose another name",
            )?;
            ensure(
                !self.inputs.contains_key(path),
                "outputs",
                format!("'{path}' is also an input, which may be mounted read-only"),
            )?;
        }
        let mut sorted: Vec<_> = self.outputs.iter().collect();
        sorted.sort();
        let twice = sorted.windows(2).find(|pair| pair[0] == pair[1]);
        ensure(twice.is_none(), "outputs", format!("'{}' is named twice", twice.map_or("", |pair| pair[0])))?;
        for outer in &self.outputs {
            let inner = self.outputs.iter().chain(self.inputs.keys()).find(|inner| within(inner, outer));
            ensure(
                inner.is_none(),
                "outputs",
                format!(
                    "'{outer}' contains '{}', which is also named; name one of them",
                    inner.map_or("", |inner| inner)
                ),
            )?;
        }
        for path in self.inputs.keys() {
            ensure(is_inside(path), "inputs", outside(path))?;
            // A large input is read-only.
            let above = self.inputs.keys().find(|above| within(path, above));
            let above = above.map_or("", String::as_str);
            ensure(
                above.is_empty(),
                "inputs",
                format!("'{path}' is inside the input '{above}'; give it another path"),
            )?;
        }
        if let Some(file) = self.parameter_file() {
            ensure(is_inside(file), "parameters_as", outside(file))?;
            let taken = self.inputs.contains_key(file) || self.outputs.iter().any(|o| o == file);
            ensure(!taken, "parameters_as", format!("'{file}' is also an input or output"))?;
        }
        if let Some(file) = &self.metrics {
            ensure(is_inside(file), "metrics", outside(file))?;
            ensure(!self.inputs.contains_key(file), "metrics", format!("'{file}' is an input; the command writes it"))?;
        }
        Ok(())
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && !name.contains(['=', '\0'])
}

/// Whether a path is relative and stays inside its folder.
fn is_inside(path: &str) -> bool {
    use std::path::{Component, Path};
    !path.is_empty() && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)))
}
