//! Programs that a stage names as inputs: found on PATH, identified by their bytes and the output of `--version`.

use super::{digest::Digest, external::External, listing, stat, which};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// A program on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Its path, with links resolved.
    pub path: PathBuf,
    /// The first line that `--version` prints. Empty if it prints nothing.
    pub version: String,
    /// BLAKE3 of its file.
    pub bytes: Digest,
    /// BLAKE3 of its [`Tool::identity`].
    pub digest: Digest,
}

impl Tool {
    /// Its identity as text: the digest of its bytes and its version, but not its path. The version is included because
    /// the program on PATH may be a small wrapper that starts another.
    pub fn identity(&self) -> String {
        identity(self.bytes, &self.version)
    }

    /// Finds the program of that name.
    pub fn of(name: &str, stat: &stat::Cache) -> Result<Tool, String> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found =
            which::find(name, &path, Path::new(".")).ok_or_else(|| format!("no program '{name}' is on PATH"))?;
        let bytes = listing::of_path(&External::whole(&found), stat).map_err(|e| e.to_string())?;
        let bytes = bytes.ok_or_else(|| format!("{} is gone", found.display()))?.content.digest();
        let version = version(&found);
        let digest = Digest::of(identity(bytes, &version).as_bytes());
        Ok(Tool { path: found.canonicalize().unwrap_or(found), version, bytes, digest })
    }
}

fn identity(bytes: Digest, version: &str) -> String {
    format!("{bytes}\n{version}\n")
}

fn version(program: &Path) -> String {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).stderr(Stdio::piped()).output();
    let Ok(output) = output else { return String::new() };
    // Some programs, such as Python before 3.4, print it to stderr.
    let said = if output.stdout.is_empty() { output.stderr } else { output.stdout };
    String::from_utf8_lossy(&said).lines().next().unwrap_or_default().trim().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::fs::PermissionsExt};

    #[test]
    fn a_tool_is_identified_by_its_bytes_and_version_not_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let tool = |place: &str, text: &str| {
            let path = folder.path().join(place);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            Tool::of(path.to_str().unwrap(), &stat::Cache::load(Path::new(""))).unwrap()
        };
        let says = |version: &str| format!("#!/bin/sh\necho {version}\necho more\n");
        let one = tool("a/tool", &says("1.0"));
        assert_eq!(one.version, "1.0");
        assert_eq!(one.digest, tool("b/tool", &says("1.0")).digest);
        assert_ne!(one.digest, tool("c/tool", &says("1.1")).digest);
        // The bytes of a wrapper stay the same while the program that it starts changes.
        let wrapper = format!("#!/bin/sh\ncat {}/version\n", folder.path().display());
        fs::write(folder.path().join("version"), "3.11\n").unwrap();
        let before = tool("d/tool", &wrapper);
        fs::write(folder.path().join("version"), "3.12\n").unwrap();
        assert_ne!(before.digest, tool("d/tool", &wrapper).digest);
    }

    #[test]
    fn a_missing_program_is_an_error() {
        let error = Tool::of("no-such-tool", &stat::Cache::load(Path::new(""))).unwrap_err();
        assert_eq!(error, "no program 'no-such-tool' is on PATH");
    }
}
