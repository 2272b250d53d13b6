//! Processes that a stage leaves running outside its process group, such as a daemon. They would go on writing to its
//! outputs, so they end with it.

use std::{fs, io, os::unix::ffi::OsStrExt as _, path::Path, thread::sleep, time::Duration};

/// How often it is looked for processes that ended ones leave behind in turn.
const ROUNDS: usize = 20;
/// How long a killed process has to end.
const GRACE: Duration = Duration::from_millis(500);

/// Makes this process the parent of what its descendants leave behind (PR_SET_CHILD_SUBREAPER), so that [`end`] finds it.
pub fn adopt() {
    // SAFETY: sets a flag of this process. An older kernel does not know it, and orphans stay with init.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
}

/// Kills what a command left running. It is recognised by the command's own TMPDIR, which all its processes inherit. One
/// that cleared its environment is not found.
pub fn end(tmpdir: &Path) {
    let mark = [b"TMPDIR=", tmpdir.as_os_str().as_bytes()].concat();
    for _ in 0..ROUNDS {
        let left: Vec<i32> = children().into_iter().filter(|child| is_marked(*child, &mark)).collect();
        if left.is_empty() {
            return sweep();
        }
        for process in left {
            // SAFETY: sends a signal; no memory is involved.
            unsafe { libc::kill(process, libc::SIGKILL) };
            reap(process);
        }
    }
}

/// Waits for the members of a process group that were killed with it, except for its first process. Its number is not given
/// to another group while that one is not reaped.
pub fn reap_group(group: i32) {
    // SAFETY: asks for a number.
    let is_member = |child: &i32| *child != group && unsafe { libc::getpgid(*child) } == group;
    children().into_iter().filter(is_member).for_each(reap);
}

/// Reaps processes that left their stage and have ended. The runner's own children are in its session: stages, which it waits
/// for itself, and helpers.
fn sweep() {
    // SAFETY: these ask for numbers, and reap children that have ended.
    unsafe {
        let own = libc::getsid(0);
        let left = children().into_iter().filter(|child| libc::getsid(*child) != own);
        left.for_each(|child| _ = libc::waitpid(child, std::ptr::null_mut(), libc::WNOHANG));
    }
}

/// The children of every thread of this process.
fn children() -> Vec<i32> {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let of = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("children")).unwrap_or_default();
    threads
        .flat_map(|thread| of(thread).split_whitespace().filter_map(|n| n.parse().ok()).collect::<Vec<i32>>())
        .collect()
}

fn is_marked(process: i32, mark: &[u8]) -> bool {
    let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
    environment.split(|byte| *byte == 0).any(|variable| variable == mark)
}

fn reap(process: i32) {
    const PAUSE: Duration = Duration::from_millis(2);
    let mut waited = Duration::ZERO;
    while waited < GRACE {
        // SAFETY: the status is not wanted; the process is a child of ours.
        let done = unsafe { libc::waitpid(process, std::ptr::null_mut(), libc::WNOHANG) };
        if done != 0 && io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
        sleep(PAUSE);
        waited += PAUSE;
    }
}
