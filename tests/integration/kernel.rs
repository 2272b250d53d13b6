//! Kernels that offer less than this one.

use std::{io, os::unix::process::CommandExt, process::Command};

/// What a kernel may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// Linux before 5.13, or Landlock is turned off.
    Landlock,
    /// Mounts of one's own: Linux before 5.12, or a container that does not allow them.
    Mounts,
}

impl Lack {
    fn call(self) -> u32 {
        let number = match self {
            Lack::Landlock => libc::SYS_landlock_create_ruleset,
            Lack::Mounts => libc::SYS_open_tree,
        };
        number as u32
    }
}

/// Has a command run on a kernel that lacks these: a filter (seccomp(2)) lets the calls fail as unknown.
pub fn without(command: &mut Command, lacks: &[Lack]) {
    const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, k, jf| libc::sock_filter { code, jt: 0, jf, k };
    let mut filter = vec![step(LOAD_NUMBER, 0, 0)];
    for lack in lacks {
        filter.push(step(IF_EQUAL, lack.call(), 1));
        filter.push(step(RETURN, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32, 0));
    }
    filter.push(step(RETURN, libc::SECCOMP_RET_ALLOW, 0));
    let install = move || {
        let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
        // SAFETY: the program lives until the call returns, which copies it.
        let done = unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
                && libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program) == 0
        };
        if done { Ok(()) } else { Err(io::Error::last_os_error()) }
    };
    // SAFETY: only system calls are made between fork and exec.
    unsafe { command.pre_exec(install) };
}
