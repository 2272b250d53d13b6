//! What a stage's process finds at other paths than everybody else: read-only mounts in a mount namespace of its own
//! (mount_namespaces(7)). An ordinary user may have one inside a user namespace, where the administrator allows it.

use super::spawn;
use libc::{c_int, c_void};
use serde::{Deserialize, Serialize};
use std::{
    ffi::CString,
    fs,
    io::{self, Write as _},
    os::{
        fd::RawFd,
        unix::{ffi::OsStrExt, fs::MetadataExt},
    },
    path::{Path, PathBuf},
    ptr,
    sync::OnceLock,
};

/// A list of mounts, in the order in which they are made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Mounts(Vec<Mount>);

/// A file or folder that is found, read-only, at a path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mount {
    from: PathBuf,
    at: PathBuf,
    /// Device and inode of what everybody else finds there. None: `from` itself.
    placeholder: Option<(u64, u64)>,
}

/// What others read where a file is mounted, and the name of what they find where a folder is: not an empty input.
const NOT_HERE: &str = "mounted for the stage alone";

impl Mounts {
    /// Makes a file or folder appear, read-only, at a path at which there is nothing yet.
    ///
    /// # Errors
    /// Where nothing can be created there.
    pub fn show(&mut self, from: &Path, at: &Path) -> io::Result<()> {
        if from.is_dir() {
            fs::create_dir(at)?;
            fs::write(at.join(NOT_HERE), "")?;
        } else {
            fs::File::create_new(at)?.write_all(NOT_HERE.as_bytes())?;
        }
        let placeholder = Some(identity(&fs::symlink_metadata(at)?));
        self.0.push(Mount { from: from.into(), at: at.into(), placeholder });
        Ok(())
    }

    /// Makes a folder read-only.
    pub fn protect(&mut self, folder: &Path) {
        self.0.push(Mount { from: folder.into(), at: folder.into(), placeholder: None });
    }

    /// Replaces the placeholders below a folder by links to what was mounted there, when the stage has ended.
    ///
    /// # Errors
    /// Where the stage moved or replaced one, or a folder on the way: what it left must not be taken for the input, nor must
    /// anything else be touched.
    pub fn reveal(&self, folder: &Path) -> io::Result<()> {
        for Mount { from, at, placeholder } in &self.0 {
            let Some(placeholder) = placeholder else { continue };
            if !is_still(folder, at, *placeholder) {
                let slot = at.strip_prefix(folder).unwrap_or(at).display();
                return Err(io::Error::other(format!(
                    "it moved or replaced its input {slot}; let it work on a copy (cp -r)"
                )));
            }
            if at.is_dir() {
                fs::remove_file(at.join(NOT_HERE))?;
                fs::remove_dir(at)?;
            } else {
                fs::remove_file(at)?;
            }
            std::os::unix::fs::symlink(from, at)?;
        }
        Ok(())
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether something is mounted at a path or below it.
    pub fn reach(&self, path: &Path) -> bool {
        self.0.iter().any(|mount| mount.at.starts_with(path))
    }

    /// Whether a path is that of a mount, or below one.
    pub fn cover(&self, path: &Path) -> bool {
        self.0.iter().any(|mount| path.starts_with(&mount.at))
    }
}

fn identity(meta: &fs::Metadata) -> (u64, u64) {
    (meta.dev(), meta.ino())
}

/// Whether the placeholder is at its path below a folder, and no link leads there.
fn is_still(folder: &Path, at: &Path, placeholder: (u64, u64)) -> bool {
    let Ok(below) = at.strip_prefix(folder) else { return false };
    let mut path = folder.to_path_buf();
    for part in below.components() {
        if !fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
            return false;
        }
        path.push(part);
    }
    fs::symlink_metadata(&path).is_ok_and(|meta| identity(&meta) == placeholder)
}

/// Whether a process of this user can have mounts of its own.
pub fn are_available() -> bool {
    flags().is_some()
}

/// The namespaces that a process needs for mounts of its own: root needs no user namespace. None: it can have none.
fn flags() -> Option<c_int> {
    static FLAGS: OnceLock<Option<c_int>> = OnceLock::new();
    *FLAGS.get_or_init(|| [libc::CLONE_NEWNS, libc::CLONE_NEWNS | libc::CLONE_NEWUSER].into_iter().find(|f| works(*f)))
}

/// Tries it out: a kernel, a container or a security module may refuse any of the steps.
fn works(flags: c_int) -> bool {
    extern "C" fn attempt(steps: *mut c_void) -> c_int {
        // SAFETY: the pointer is to the steps below, which outlive the child.
        unsafe { libc::_exit(c_int::from(!(*steps.cast::<Steps>()).take())) }
    }
    let mut mounts = Mounts::default();
    mounts.protect(Path::new("/proc"));
    let Ok(mut steps) = Steps::with(&mounts, flags) else { return false };
    let Ok(child) = spawn::lend(attempt, (&raw mut steps).cast(), flags) else { return false };
    let mut status = 0;
    // SAFETY: the status is valid for the length of the call.
    unsafe { libc::waitpid(child, &mut status, 0) == child && status == 0 }
}

/// The mounts of a child, prepared: between clone and exec it only makes system calls.
#[derive(Debug, Default)]
pub struct Steps {
    steps: Vec<Step>,
    /// The namespaces that the child is cloned into.
    pub flags: c_int,
    /// How its user namespace maps its own user and group. None: it has no user namespace.
    maps: Option<[CString; 2]>,
    /// The mount that failed.
    failed: Option<usize>,
}

#[derive(Debug)]
struct Step {
    from: CString,
    at: CString,
}

impl Steps {
    /// Prepares mounts.
    ///
    /// # Errors
    /// Where this user cannot have mounts of their own.
    pub fn of(mounts: &Mounts) -> io::Result<Steps> {
        if mounts.is_empty() {
            return Ok(Steps::default());
        }
        let flags = flags().ok_or_else(|| {
            io::Error::other(
                "this machine does not let a program have mounts of its own, as the one that prepared the stage does",
            )
        })?;
        Steps::with(mounts, flags)
    }

    fn with(mounts: &Mounts, flags: c_int) -> io::Result<Steps> {
        let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other);
        let step = |mount: &Mount| Ok(Step { from: text(&mount.from)?, at: text(&mount.at)? });
        // SAFETY: these ask for numbers.
        let (user, group) = unsafe { (libc::geteuid(), libc::getegid()) };
        let map = |id: u32| CString::new(format!("{id} {id} 1")).expect("digits and spaces");
        let maps = (flags & libc::CLONE_NEWUSER != 0).then(|| [map(user), map(group)]);
        let steps = mounts.0.iter().map(step).collect::<io::Result<_>>()?;
        Ok(Steps { steps, flags, maps, failed: None })
    }

    /// The mount that could not be made, if one was the reason that the child failed.
    pub fn failed(&self) -> Option<String> {
        let step = &self.steps[self.failed?];
        Some(format!("{} at {}", step.from.to_string_lossy(), step.at.to_string_lossy()))
    }

    /// Makes the mounts in the calling process, which is in namespaces of its own. False: errno says why not.
    ///
    /// # Safety
    /// System calls only, as its caller may be between clone and exec.
    pub unsafe fn take(&mut self) -> bool {
        // SAFETY: every path ends with a zero and lives as long as these steps.
        unsafe {
            if self.flags == 0 {
                return true;
            }
            if let Some([user, group]) = &self.maps
                && !(write(c"/proc/self/setgroups", c"deny")
                    && write(c"/proc/self/uid_map", user)
                    && write(c"/proc/self/gid_map", group))
            {
                return false;
            }
            // What is mounted here must not reach other namespaces; what is mounted there later is seen here.
            let slave = libc::MS_REC | libc::MS_SLAVE;
            if libc::mount(ptr::null(), c"/".as_ptr(), ptr::null(), slave, ptr::null()) != 0 {
                return false;
            }
            self.failed = self.steps.iter().position(|step| !step.take());
            self.failed.is_none()
        }
    }
}

impl Step {
    /// # Safety
    /// As [`Steps::take`].
    unsafe fn take(&self) -> bool {
        // The whole tree: below a folder others may be mounted, and an ordinary user may not separate them.
        let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_RECURSIVE as u32;
        let read_only =
            libc::mount_attr { attr_set: libc::MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };
        let (whole, size) = ((libc::AT_EMPTY_PATH | libc::AT_RECURSIVE) as u32, size_of::<libc::mount_attr>());
        let (from, at, itself) = (self.from.as_ptr(), self.at.as_ptr(), c"".as_ptr());
        // SAFETY: the paths end with a zero; the structure is read only.
        unsafe {
            let tree = libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, from, flags) as RawFd;
            if tree < 0 {
                return false;
            }
            let done = libc::syscall(libc::SYS_mount_setattr, tree, itself, whole, &raw const read_only, size) == 0
                && libc::syscall(libc::SYS_move_mount, tree, itself, libc::AT_FDCWD, at, libc::MOVE_MOUNT_F_EMPTY_PATH)
                    == 0;
            // A failed close would hide why a step before it failed.
            if done {
                libc::close(tree);
            }
            done
        }
    }
}

/// Writes a text to a file of the kernel's.
///
/// # Safety
/// As [`Steps::take`].
unsafe fn write(file: &std::ffi::CStr, text: &std::ffi::CStr) -> bool {
    // SAFETY: both texts end with a zero.
    unsafe {
        let open = libc::open(file.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
        if open < 0 {
            return false;
        }
        let length = text.count_bytes();
        let written = libc::write(open, text.as_ptr().cast::<c_void>(), length);
        libc::close(open);
        written == length as isize
    }
}
