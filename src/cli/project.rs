//! The project that a command works in: the folder that paths in its pipelines start at, and its store.
//!
//! It is the nearest folder, from the current one upward, that holds a store or pipelines; without one, the current folder.
//! It depends on the current folder, not on the pipeline that is named, so that all commands in a folder use the same store.

use super::ProjectArgs;
use anyhow::{Context, Result, ensure};
use caco_engine::store::Store;
use caco_pipeline::pipeline::absolute;
use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// The name of a project's own store.
const CACHE: &str = "cache";
/// The folder of a project that may hold its pipelines.
const PIPELINES: &str = "pipelines";

/// A project.
#[derive(Debug, Clone)]
pub struct Project {
    root: PathBuf,
    /// The current folder.
    here: PathBuf,
    /// The store's folder.
    cache: PathBuf,
}

impl Project {
    /// The project that the arguments name, or else the one that the current folder belongs to.
    ///
    /// # Errors
    /// Where the folder that is named is none.
    pub fn locate(args: &ProjectArgs) -> Result<Project> {
        // A current folder that was removed leaves the commands that need none.
        let here = env::current_dir().unwrap_or_default();
        let root = match &args.project {
            Some(folder) => {
                ensure!(folder.is_dir(), "--project {} is not a folder", folder.display());
                folder.canonicalize().with_context(|| format!("cannot read {}", folder.display()))?
            }
            None => find(&here, env::home_dir().and_then(|home| home.canonicalize().ok()).as_deref()),
        };
        let cache = args.cache.as_deref().map_or_else(|| root.join(CACHE), absolute);
        Ok(Project { root, here, cache })
    }

    /// Its folder, absolute.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether it is the current folder.
    pub fn is_here(&self) -> bool {
        self.root == self.here
    }

    /// The folder of its store, or of the one that the caller names, absolute.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// The file of a pipeline that is named without its folder.
    pub fn pipeline(&self, file: &Path) -> Option<PathBuf> {
        self.folders().map(|folder| folder.join(file)).find(|path| path.is_file()).map(|path| self.shown(&path))
    }

    /// The files of all pipelines that can be named so, sorted.
    pub fn pipelines(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self.folders().flat_map(|f| pipelines_in(&f)).map(|p| self.shown(&p)).collect();
        files.sort();
        files.dedup();
        files
    }

    /// Where pipelines are looked for by name, in this order.
    fn folders(&self) -> impl Iterator<Item = PathBuf> {
        [self.root.join(PIPELINES), self.root.clone(), self.here.clone()].into_iter()
    }

    /// A path as it is written in the current folder: relative, where it is inside the project that this folder is in.
    pub fn shown(&self, path: &Path) -> PathBuf {
        let above = self.here.ancestors().enumerate().take_while(|(_, folder)| folder.starts_with(&self.root));
        let relative = |(ups, folder): (usize, &Path)| {
            let rest = path.strip_prefix(folder).ok()?;
            Some(std::iter::repeat_n(Path::new(".."), ups).chain([rest]).collect())
        };
        let below_here = path.strip_prefix(&self.here).ok().map(Path::to_path_buf);
        below_here.or_else(|| above.into_iter().find_map(relative)).unwrap_or_else(|| path.into())
    }

    /// A path of the current folder as a pipeline names it: relative, where it is inside the project.
    pub fn written(&self, path: &Path) -> PathBuf {
        let absolute = absolute(path);
        absolute.strip_prefix(&self.root).map_or_else(|_| absolute.clone(), Path::to_path_buf)
    }
}

/// The project that a folder belongs to. It is in the same git repository, and neither the home folder nor one that
/// everybody may write to, such as /tmp, unless that is the folder itself: what was once left there is no sign of a project.
fn find(here: &Path, home: Option<&Path>) -> PathBuf {
    for folder in here.ancestors() {
        if folder != here && (Some(folder) == home || is_writable_for_all(folder)) {
            break;
        }
        if is_project(folder) {
            return folder.into();
        }
        if folder.join(".git").exists() {
            break;
        }
    }
    here.into()
}

/// Whether a folder holds a store or pipelines. A folder `pipelines` is a part of a project.
fn is_project(folder: &Path) -> bool {
    // RON is used for other data too.
    let has_stages = |file: PathBuf| fs::read_to_string(file).is_ok_and(|text| text.contains("stages"));
    let has_own = || !folder.ends_with(PIPELINES) && pipelines_in(folder).any(has_stages);
    Store::is_at(&folder.join(CACHE)) || pipelines_in(&folder.join(PIPELINES)).next().is_some() || has_own()
}

fn is_writable_for_all(folder: &Path) -> bool {
    fs::metadata(folder).is_ok_and(|meta| meta.permissions().mode() & 0o002 != 0)
}

/// The pipeline files in a folder.
fn pipelines_in(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    files.filter(|path| path.extension().is_some_and(|ending| ending == "ron") && path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    /// A folder with these files; those that end with a slash are folders.
    fn folder(files: &[&str]) -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for file in files {
            let path = root.join(file);
            fs::create_dir_all(if file.ends_with('/') { &path } else { path.parent().unwrap() }).unwrap();
            if !file.ends_with('/') {
                let text = if file.ends_with(".ron") && !file.ends_with("data.ron") { "(stages: {})\n" } else { "1\n" };
                fs::write(path, text).unwrap();
            }
        }
        (folder, root)
    }

    #[test]
    fn the_nearest_folder_with_a_store_or_pipelines_is_the_project() {
        for (files, here, project) in [
            (&["cache/VERSION", "a/b/"][..], "a/b", ""),
            (&["pipelines/p.ron", "a/b/"], "a/b", ""),
            (&["p.ron", "a/"], "a", ""),
            // Data in RON.
            (&["pipelines/p.ron", "a/data.ron"], "a", ""),
            (&["pipelines/p.ron"], "pipelines", ""),
            (&["pipelines/p.ron", "pipelines/examples/x/"], "pipelines/examples/x", ""),
            (&["pipelines/p.ron", "pipelines/examples/x/p.ron"], "pipelines/examples/x", "pipelines/examples/x"),
            (&["cache/VERSION", "a/cache/VERSION", "a/b/"], "a/b", "a"),
            (&["cache/VERSION", "a/p.ron"], "a", "a"),
            // A folder of another program, and one that holds no pipeline.
            (&["cache/some", "a/"], "a", "a"),
            (&["pipelines/README", "a/"], "a", "a"),
            // Another repository inside.
            (&["cache/VERSION", "a/.git/", "a/b/"], "a/b", "a/b"),
            (&["a/.git/", "a/p.ron", "a/b/"], "a/b", "a"),
        ] {
            let (_folder, root) = folder(files);
            let found = find(&root.join(here), None);
            assert_eq!(found.strip_prefix(&root).unwrap(), Path::new(project), "{files:?} from {here}");
        }
    }

    #[test]
    fn a_store_in_the_home_folder_or_a_shared_one_claims_no_folder_below() {
        let (_folder, root) = folder(&["cache/VERSION", "a/"]);
        let here = root.join("a");
        assert_eq!(find(&here, None), root);
        assert_eq!(find(&here, Some(&root)), here);
        assert_eq!(find(&root, Some(&root)), root, "it is the caller's where the caller stands in it");
        fs::set_permissions(&root, fs::Permissions::from_mode(0o1777)).unwrap();
        assert_eq!(find(&here, None), here);
    }

    #[test]
    fn paths_are_shown_as_they_are_written_in_the_current_folder() {
        let project = |root: &str, here: &str| Project { root: root.into(), here: here.into(), cache: "".into() };
        for (root, here, path, shown) in [
            ("/p", "/p", "/p/pipelines/a.ron", "pipelines/a.ron"),
            ("/p", "/p/a/b", "/p/pipelines/a.ron", "../../pipelines/a.ron"),
            ("/p", "/p/a/b", "/p/a/c", "../c"),
            ("/p", "/p/a/b", "/p/a/b/c", "c"),
            ("/p", "/p/a", "/q/c", "/q/c"),
            ("/p", "/q", "/p/c", "/p/c"),
            ("/q/p", "/q", "/q/p/c", "p/c"),
        ] {
            assert_eq!(project(root, here).shown(Path::new(path)), Path::new(shown), "{path} from {here}");
        }
    }
}
