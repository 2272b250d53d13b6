//! What the process of a command may open: what it declares, its own folder, and the software installed on the machine.
//! The kernel enforces it (Landlock, <https://docs.kernel.org/userspace-api/landlock.html>) for the process and its
//! descendants.
//!
//! Landlock only grants: a folder inside a granted one cannot be denied, so the entries of a folder that contains the
//! project are granted one by one. It does not cover `stat`: the existence, size and times of an undeclared file remain
//! visible. The network is not confined.

use landlock::{ABI, Access, AccessFs, Ruleset, RulesetAttr, RulesetCreatedAttr, path_beneath_rules};
use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::OnceLock,
};

/// Where software and its dependencies are installed. May be read and executed, and is not hashed.
const SYSTEM: [&str; 15] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/etc",
    "/opt",
    "/nix",
    "/proc",
    "/sys",
    "/run",
    "/var/lib",
    "/var/cache",
];

/// Devices, and the shared memory that holds Python's locks.
const DEVICES: &str = "/dev";

/// The requested access rights. An older kernel does not restrict those it does not know. Later ABIs add device ioctls
/// and the network, which a stage may use.
const RIGHTS: ABI = ABI::V3;

/// What a process may open. All paths are canonical: absolute and without links.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Confinement {
    read: BTreeSet<PathBuf>,
    write: BTreeSet<PathBuf>,
    /// Never granted as a whole.
    keep_out: Vec<PathBuf>,
}

impl Confinement {
    /// Grants the machine's software, including what is on `path` (in the format of PATH), but never one of the folders
    /// in `keep_out` as a whole.
    pub fn of_machine(path: &OsStr, keep_out: &[PathBuf]) -> Confinement {
        let keep_out: Vec<PathBuf> = keep_out.iter().map(|p| real(p)).collect();
        let mut confinement = Confinement { keep_out: keep_out.clone(), ..Confinement::default() };
        for root in SYSTEM.iter().map(Path::new).filter(|root| root.exists()) {
            grant_around(&real(root), &keep_out, &mut confinement.read);
        }
        for bin in std::env::split_paths(path).map(|bin| real(&bin)) {
            let interpreter = interpreter(&bin).map(|home| real(&home));
            confinement
                .read
                .extend([Some(bin), interpreter].into_iter().flatten().filter_map(|b| prefix(&b, &keep_out)));
        }
        confinement.write.insert(real(Path::new(DEVICES)));
        confinement
    }

    /// Lets a file, or a folder and its contents, be read and executed.
    pub fn let_read(&mut self, path: &Path) {
        self.read.insert(real(path));
    }

    /// Lets a program be executed. If it is in a `bin` folder, grants the installation around it too.
    pub fn let_run(&mut self, program: &Path) {
        let program = real(program);
        let bin = program.parent().filter(|bin| bin.file_name() == Some(OsStr::new("bin")));
        self.read.extend(bin.and_then(|bin| prefix(bin, &self.keep_out)));
        self.read.insert(program);
    }

    /// Lets a folder be read and written.
    pub fn let_write(&mut self, path: &Path) {
        self.write.insert(real(path));
    }

    /// Whether a file at this canonical path may be opened.
    pub fn allows(&self, path: &Path, write: bool) -> bool {
        let under = |granted: &BTreeSet<PathBuf>| path.ancestors().any(|above| granted.contains(above));
        under(&self.write) || (!write && under(&self.read))
    }

    /// Creates the kernel's ruleset. `None` if this kernel has no Landlock, or it is turned off.
    pub fn ruleset(&self) -> io::Result<Option<OwnedFd>> {
        let failed = |e: landlock::RulesetError| io::Error::other(format!("cannot set up Landlock: {e}"));
        let ruleset = Ruleset::default().handle_access(AccessFs::from_all(RIGHTS)).and_then(Ruleset::create);
        let ruleset = ruleset.map_err(failed)?;
        let ruleset = ruleset.add_rules(path_beneath_rules(&self.read, AccessFs::from_read(RIGHTS))).map_err(failed)?;
        let ruleset = ruleset.add_rules(path_beneath_rules(&self.write, AccessFs::from_all(RIGHTS))).map_err(failed)?;
        Ok(ruleset.into())
    }
}

/// Whether this kernel enforces a confinement.
pub fn is_enforced() -> bool {
    static ENFORCED: OnceLock<bool> = OnceLock::new();
    *ENFORCED.get_or_init(|| Confinement::default().ruleset().is_ok_and(|ruleset| ruleset.is_some()))
}

/// Grants `root`. If it contains one of `keep_out`, grants its entries instead, except those that lead there.
fn grant_around(root: &Path, keep_out: &[PathBuf], granted: &mut BTreeSet<PathBuf>) {
    if !keep_out.iter().any(|kept| kept.starts_with(root)) {
        granted.insert(root.into());
    } else if !keep_out.contains(&root.to_path_buf()) {
        let entries = fs::read_dir(root).into_iter().flatten().flatten();
        entries.for_each(|entry| grant_around(&entry.path(), keep_out, granted));
    }
}

/// The folder that holds an installed program's `bin` and its libraries. `None` if that is the user's own folder: one
/// that is kept out, or their home.
fn prefix(bin: &Path, keep_out: &[PathBuf]) -> Option<PathBuf> {
    let prefix = if bin.file_name() == Some(OsStr::new("bin")) { bin.parent()? } else { bin };
    let home = std::env::var_os("HOME").map(|home| real(Path::new(&home)));
    let holds = |kept: &PathBuf| kept.starts_with(prefix);
    let own = keep_out.iter().chain(&home).any(holds) || prefix.parent().is_none();
    match own {
        // `~/bin` itself holds only programs.
        true if bin != prefix && !keep_out.iter().any(|kept| kept.starts_with(bin)) => Some(bin.into()),
        true => None,
        false => Some(prefix.into()),
    }
}

/// The folder of a virtual environment's interpreter, from the file that Python writes beside its `bin` (PEP 405).
fn interpreter(bin: &Path) -> Option<PathBuf> {
    let text = fs::read_to_string(bin.parent()?.join("pyvenv.cfg")).ok()?;
    let home = text.lines().find_map(|line| line.strip_prefix("home")?.trim_start().strip_prefix('='))?;
    Some(home.trim().into())
}

/// Resolves the links in a path, as far as it exists.
pub fn real(path: &Path) -> PathBuf {
    if let Ok(real) = path.canonicalize() {
        return real;
    }
    match (path.parent(), path.file_name()) {
        (Some(above), Some(name)) if above != Path::new("") => real(above).join(name),
        _ => path.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_granted_is_allowed_with_all_below_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let mut confinement = Confinement::default();
        confinement.let_read(&root.join("data"));
        confinement.let_write(&root.join("work"));
        assert!(confinement.allows(&root.join("data/a/b"), false));
        assert!(!confinement.allows(&root.join("data/a"), true));
        assert!(confinement.allows(&root.join("work/a"), true) && confinement.allows(&root.join("work/a"), false));
        assert!(!confinement.allows(&root.join("database"), false) && !confinement.allows(&root, false));
    }

    #[test]
    fn a_project_inside_a_granted_folder_is_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("apps/project/src")).unwrap();
        fs::create_dir_all(root.join("apps/other")).unwrap();
        fs::create_dir_all(root.join("lib")).unwrap();
        let mut granted = BTreeSet::new();
        grant_around(&root, &[root.join("apps/project")], &mut granted);
        assert_eq!(granted.into_iter().collect::<Vec<_>>(), [root.join("apps/other"), root.join("lib")]);
    }

    #[test]
    fn an_installed_programs_prefix_is_granted_and_nobodys_own_folder() {
        let prefix = |bin: &str, kept: &str| prefix(Path::new(bin), &[kept.into()]);
        let found = |path: &str| Some(PathBuf::from(path));
        assert_eq!(prefix("/data/conda/envs/x/bin", "/work/project"), found("/data/conda/envs/x"));
        assert_eq!(prefix("/work/project/.venv/bin", "/work/project"), found("/work/project/.venv"));
        assert_eq!(prefix("/work/project/bin", "/work/project"), found("/work/project/bin"));
        assert_eq!(prefix("/work/project", "/work/project"), None);
        assert_eq!(prefix("/work", "/work/project"), None);
    }
}
