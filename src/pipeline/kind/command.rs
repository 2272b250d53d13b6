use super::*;
use serde_json::Value;
use std::collections::BTreeMap;

/// Any program: it runs in a folder of its own, finds its inputs there under the paths given here, and leaves its
/// outputs there. Of the project's files it can open those that it declares, and no others.
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
    /// A file in its folder, which it writes, with what it measured: a JSON object of numbers, possibly nested
    /// (`{"accuracy": 0.9, "test": {"loss": 0.3}}`). `metrics.jsonl`, one metric a line, is kept without being named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metrics: Option<String>,
    /// Parameters by name: numbers, strings, booleans, lists or maps of them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub parameters: BTreeMap<String, Value>,
    /// How the program is given its parameters.
    #[serde(default)]
    pub parameters_as: Delivery,
    /// Programs on PATH whose bytes and `--version` join the key, such as `python3`. What else is installed does not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
    /// Environment variables to set.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// Environment variables to hand on from the caller; their values join the key. Besides these a command gets PATH,
    /// HOME, LANG and TMPDIR, which do not.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pass_env: Vec<String>,
    /// Whether it is held to what it declares.
    #[serde(default)]
    pub isolation: Isolation,
    /// Files and folders outside the project that it may read though they do not join the key, such as a cache of
    /// downloaded models. The machine's software need not be named. `${VAR}` is replaced from the environment.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allow: Vec<String>,
}

/// How a program is given its parameters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Delivery {
    /// As `--name=value`, behind its other arguments; a line for the shell finds them in "$@". Lists and maps are JSON.
    #[default]
    Arguments,
    /// As environment variables of these names. Lists and maps are JSON.
    Environment,
    /// As a JSON object in this file of its folder.
    Json(String),
    /// As a RON map in this file of its folder.
    Ron(String),
}

/// Whether a command is held to what it declares.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Isolation {
    /// By the kernel's Landlock: of all files but the machine's software it can read its inputs, and write its own folder.
    /// Where the kernel has none, the stage runs all the same and its record says so.
    #[default]
    Landlock,
    /// It may open whatever its user may.
    None,
}

impl Kind for Command {
    const NAME: &'static str = "command";
    /// 2: a command is confined, and finds a file from outside the store as a copy.
    const VERSION: u32 = 2;
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
            "and 'shell' exclude each other, and a command needs one of them",
        )?;
        ensure(
            !self.outputs.is_empty() || self.metrics.is_some(),
            "outputs",
            "is empty; name what the command writes, or nothing can be kept of it",
        )?;
        self.check_paths()?;
        for name in self.env.keys().chain(&self.pass_env) {
            ensure(is_variable(name), "env", format!("'{name}' is no name of a variable"))?;
        }
        for name in self.parameters.keys() {
            let fits = is_variable(name) && !name.contains(char::is_whitespace);
            ensure(fits, "parameters", format!("'{name}' is no name of a parameter"))?;
            let twice = self.parameters_as == Delivery::Environment && self.env.contains_key(name);
            ensure(!twice, "parameters", format!("'{name}' stands in `env` too"))?;
        }
        for (i, tool) in self.tools.iter().enumerate() {
            ensure(!tool.is_empty(), "tools", "'' is no name of a program")?;
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
    /// The file that its parameters are written to, if it is given them so.
    pub fn parameter_file(&self) -> Option<&str> {
        match &self.parameters_as {
            Delivery::Json(path) | Delivery::Ron(path) => Some(path),
            _ => None,
        }
    }

    fn check_paths(&self) -> Result<(), Complaint> {
        let outside = |path: &str| format!("'{path}' is not a relative path inside the stage's folder");
        for path in &self.outputs {
            ensure(is_inside(path), "outputs", outside(path))?;
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
            ensure(is_inside(path), "inputs", outside(path))?;
            // An input is read-only, and a folder among them is a link to where it lies.
            let above = self.inputs.keys().find(|above| within(path, above));
            let above = above.map_or("", String::as_str);
            ensure(above.is_empty(), "inputs", format!("'{path}' lies in the input '{above}'; give it another path"))?;
        }
        if let Some(file) = self.parameter_file() {
            ensure(is_inside(file), "parameters_as", outside(file))?;
            let taken = self.inputs.contains_key(file) || self.outputs.iter().any(|o| o == file);
            ensure(!taken, "parameters_as", format!("'{file}' is an input or output too"))?;
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

/// Whether a path stays inside the folder it starts in, and names something below it.
fn is_inside(path: &str) -> bool {
    use std::path::{Component, Path};
    !path.is_empty() && Path::new(path).components().all(|c| matches!(c, Component::Normal(_)))
}
