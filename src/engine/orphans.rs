//! Processes that a stage leaves running: in its process group, or outside it, such as a daemon. They would continue to write
//! to its outputs, so they end with it.

use std::{fs, os::unix::ffi::OsStrExt as _, path::Path, thread::sleep, time::Duration};

/// The maximum number of rounds of killing: processes that end may leave others behind.
const ROUNDS: usize = 20;
/// How long a killed process has to end.
const GRACE: Duration = Duration::from_millis(500);

/// Makes this process the parent of what its descendants leave behind (PR_SET_CHILD_SUBREAPER), so that [`end`] finds it.
pub fn adopt() {
    // SAFETY: sets a flag of this process. An older kernel does not know it, and orphans stay with init.
    unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) };
}

/// Kills what a command left running: the members of its process group, whose first process has ended and is not reaped
/// yet, and those that left the group. These are recognised by the command's own TMPDIR, which all its processes inherit;
/// one that cleared its environment is not found.
pub fn end(group: i32, tmpdir: Option<&Path>) {
    let mark = tmpdir.map(|tmpdir| [b"TMPDIR=", tmpdir.as_os_str().as_bytes()].concat());
    let is_left = |child: &i32| {
        // SAFETY: asks for a number.
        let member = unsafe { libc::getpgid(*child) } == group;
        member || mark.as_ref().is_some_and(|mark| is_marked(*child, mark))
    };
    for _ in 0..ROUNDS {
        let children: Vec<i32> = children().into_iter().filter(|child| *child != group).collect();
        let left: Vec<i32> = children.iter().copied().filter(is_left).collect();
        if left.is_empty() {
            return sweep(&children);
        }
        for process in left {
            // SAFETY: sends a signal; no memory is involved.
            unsafe { libc::kill(process, libc::SIGKILL) };
            reap(process);
        }
    }
}

/// Reaps processes that left their stage and have ended. The runner's own children are in its session: stages, which it waits
/// for itself, and helpers.
fn sweep(children: &[i32]) {
    // SAFETY: these ask for numbers, and reap children that have ended.
    unsafe {
        let own = libc::getsid(0);
        let left = children.iter().filter(|child| libc::getsid(**child) != own);
        left.for_each(|child| _ = libc::waitpid(*child, std::ptr::null_mut(), libc::WNOHANG));
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
    // SAFETY: the status is not wanted; the process is a child of ours.
    while unsafe { libc::waitpid(process, std::ptr::null_mut(), libc::WNOHANG) } == 0 && waited < GRACE {
        sleep(PAUSE);
        waited += PAUSE;
    }
}
