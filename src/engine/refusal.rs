//! Records which files a confined command was denied. Landlock only returns EACCES to the caller. So that an error can
//! name the file, the kernel reports the command's calls that open or change files here before it executes them
//! (seccomp user notification, seccomp_unotify(2)), and each continues unchanged. Another thread of the command may
//! change the arguments in between: this is for messages only, and enforces nothing.

use super::confine::{Confinement, real};
use std::{
    collections::BTreeSet,
    fs, io,
    os::fd::{AsRawFd, OwnedFd, RawFd},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// A denied access to a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
pub struct Refusal {
    /// The file, or folder.
    pub path: PathBuf,
    /// Whether the access was a write.
    pub write: bool,
}

/// The refusals so far. Only the first ones are kept.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<Mutex<BTreeSet<Refusal>>>);

/// The maximum number of refusals to keep.
const KEPT: usize = 100;

impl Refusals {
    /// The refusals so far, sorted.
    pub fn list(&self) -> Vec<Refusal> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    fn add(&self, refusal: Refusal) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() < KEPT {
            known.insert(refusal);
        }
    }
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURE: u32 = 0;

/// How a call names its files: which argument is the folder of a relative path, which is the path, and whether the call
/// writes.
#[derive(Clone, Copy)]
struct Names {
    folder: Option<usize>,
    path: usize,
    write: Write,
}

#[derive(Clone, Copy)]
enum Write {
    Always,
    /// Depends on the flags of open(2) in this argument.
    Flags(usize),
    /// Depends on the structure open_how of openat2(2) that this argument points to.
    How(usize),
}

const fn at(folder: usize, path: usize, write: Write) -> Names {
    Names { folder: Some(folder), path, write }
}

/// The reported calls. `execve` is not among them: it would wait for a reply while the runner waits for it.
const CALLS: &[(libc::c_long, &[Names])] = &[
    (libc::SYS_openat, &[at(0, 1, Write::Flags(2))]),
    (libc::SYS_openat2, &[at(0, 1, Write::How(2))]),
    (libc::SYS_mkdirat, &[at(0, 1, Write::Always)]),
    (libc::SYS_unlinkat, &[at(0, 1, Write::Always)]),
    (libc::SYS_renameat2, &[at(0, 1, Write::Always), at(2, 3, Write::Always)]),
    (libc::SYS_linkat, &[at(2, 3, Write::Always)]),
    (libc::SYS_symlinkat, &[at(1, 2, Write::Always)]),
    (libc::SYS_truncate, &[of_path(0, Write::Always)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, &[of_path(0, Write::Flags(1))]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_creat, &[of_path(0, Write::Always)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mkdir, &[of_path(0, Write::Always)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_unlink, &[of_path(0, Write::Always)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rmdir, &[of_path(0, Write::Always)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_rename, &[of_path(0, Write::Always), of_path(1, Write::Always)]),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_renameat, &[at(0, 1, Write::Always), at(2, 3, Write::Always)]),
];

const fn of_path(path: usize, write: Write) -> Names {
    Names { folder: None, path, write }
}

/// The filter that a child installs: it reports the calls above and allows all others.
pub fn filter() -> Vec<libc::sock_filter> {
    // Opcodes of BPF, from linux/bpf_common.h.
    const LOAD: u16 = 0x20;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const NUMBER: u32 = 0;
    const ARCH: u32 = 4;
    let op = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let calls = CALLS.len() as u8;
    let mut filter = vec![op(LOAD, 0, 0, ARCH), op(JUMP_IF_EQUAL, 0, calls + 1, ARCHITECTURE), op(LOAD, 0, 0, NUMBER)];
    // Each jumps past the following comparisons and the instruction that allows the call.
    filter.extend((0..calls).map(|i| op(JUMP_IF_EQUAL, calls - i, 0, CALLS[i as usize].0 as u32)));
    filter.push(op(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW));
    filter.push(op(RETURN, 0, 0, libc::SECCOMP_RET_USER_NOTIF));
    filter
}

/// Handles the calls reported on `listener` until the last reporting process has ended.
pub fn listen(listener: OwnedFd, confinement: &Confinement, refusals: &Refusals) {
    wake_at_once(&listener);
    loop {
        let mut ready = libc::pollfd { fd: listener.as_raw_fd(), events: libc::POLLIN, revents: 0 };
        // SAFETY: one structure, valid for the length of the call.
        let count = unsafe { libc::poll(&raw mut ready, 1, -1) };
        if count < 0 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted {
            continue;
        }
        if count < 0 || ready.revents & libc::POLLIN == 0 {
            return;
        }
        let Some(call) = receive(&listener) else { continue };
        for refusal in refused(&call, confinement) {
            refusals.add(refusal);
        }
        let_continue(&listener, call.id);
    }
}

// _IOWR('!', 0, struct seccomp_notif), _IOWR('!', 1, struct seccomp_notif_resp) and _IOW('!', 4, __u64), from
// linux/seccomp.h.
const RECEIVE: libc::c_ulong = 0xc050_2100;
const SEND: libc::c_ulong = 0xc018_2101;
const SET_FLAGS: libc::c_ulong = 0x4008_2104;

/// Has the kernel switch between the caller and this thread on one processor, as in a function call: both wait for each other
/// anyway. Linux before 6.6 cannot.
fn wake_at_once(listener: &OwnedFd) {
    const SYNC_WAKE_UP: libc::c_ulong = 1;
    // SAFETY: the call takes a number.
    unsafe { libc::ioctl(listener.as_raw_fd(), SET_FLAGS as _, SYNC_WAKE_UP) };
}

fn receive(listener: &OwnedFd) -> Option<libc::seccomp_notif> {
    // SAFETY: the kernel requires the structure to be zeroed, and fills it.
    unsafe {
        let mut call: libc::seccomp_notif = std::mem::zeroed();
        // Fails if the caller was killed in the meantime.
        (libc::ioctl(listener.as_raw_fd(), RECEIVE as _, &raw mut call) == 0).then_some(call)
    }
}

fn let_continue(listener: &OwnedFd, id: u64) {
    let flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
    let mut answer = libc::seccomp_notif_resp { id, val: 0, error: 0, flags };
    // SAFETY: the structure is valid for the length of the call.
    unsafe { libc::ioctl(listener.as_raw_fd(), SEND as _, &raw mut answer) };
}

fn refused(call: &libc::seccomp_notif, confinement: &Confinement) -> Vec<Refusal> {
    let names = CALLS.iter().find(|(number, _)| *number == libc::c_long::from(call.data.nr)).map_or(&[][..], |c| c.1);
    names.iter().filter_map(|name| refused_one(call, *name, confinement)).collect()
}

fn refused_one(call: &libc::seccomp_notif, names: Names, confinement: &Confinement) -> Option<Refusal> {
    let arguments = call.data.args;
    let given = read_text(call.pid, arguments[names.path])?;
    let write = match names.write {
        Write::Always => true,
        Write::Flags(argument) => writes(arguments[argument]),
        Write::How(argument) => writes(read_number(call.pid, arguments[argument])?),
    };
    let given = Path::new(&given);
    // The common case, such as a library or a device, decided without a system call.
    let plain = given.is_absolute() && !given.components().any(|c| c.as_os_str() == "..");
    if plain && confinement.allows(given, write) {
        return None;
    }
    let from = match names.folder.map(|argument| arguments[argument] as i32) {
        None | Some(libc::AT_FDCWD) => format!("/proc/{}/cwd", call.pid),
        Some(folder) => format!("/proc/{}/fd/{folder}", call.pid),
    };
    let path = if given.is_absolute() { given.to_path_buf() } else { fs::read_link(from).ok()?.join(given) };
    // `/proc` paths refer to the caller itself. A missing file cannot be read, so nothing was denied.
    let path = if path.starts_with("/proc") { return None } else { real(&path) };
    let there = path.symlink_metadata().is_ok();
    let creates = write && path.parent().is_some_and(Path::exists);
    ((there || creates) && !confinement.allows(&path, write)).then_some(Refusal { path, write })
}

fn writes(flags: u64) -> bool {
    let flags = flags as i32;
    flags & libc::O_ACCMODE != libc::O_RDONLY || flags & (libc::O_CREAT | libc::O_TRUNC) != 0
}

/// Reads the text at an address of another process. `None` if it cannot be read, or is longer than a path may be.
fn read_text(process: u32, address: u64) -> Option<std::ffi::OsString> {
    use std::os::unix::ffi::OsStringExt;
    const PAGE: u64 = 4096;
    let mut text = vec![];
    while text.len() < libc::PATH_MAX as usize {
        let from = address + text.len() as u64;
        // Never read across a page boundary: the next page may not be mapped.
        let mut part = [0u8; 256];
        let length = (part.len() as u64).min(PAGE - from % PAGE) as usize;
        let read = read_memory(process, from, &mut part[..length])?;
        match part[..read].iter().position(|byte| *byte == 0) {
            Some(end) => {
                text.extend(&part[..end]);
                return Some(std::ffi::OsString::from_vec(text));
            }
            None => text.extend(&part[..read]),
        }
    }
    None
}

fn read_number(process: u32, address: u64) -> Option<u64> {
    let mut bytes = [0; 8];
    (read_memory(process, address, &mut bytes)? == 8).then(|| u64::from_ne_bytes(bytes))
}

fn read_memory(process: u32, address: u64, into: &mut [u8]) -> Option<usize> {
    let here = libc::iovec { iov_base: into.as_mut_ptr().cast(), iov_len: into.len() };
    let there = libc::iovec { iov_base: address as *mut _, iov_len: into.len() };
    // SAFETY: the kernel writes no more than `into` holds; the other address is another process's.
    let read = unsafe { libc::process_vm_readv(process as i32, &raw const here, 1, &raw const there, 1, 0) };
    usize::try_from(read).ok().filter(|read| *read > 0)
}

/// Creates the two ends of a channel over which a child sends its listener to its parent.
pub fn channel() -> io::Result<(OwnedFd, OwnedFd)> {
    use std::os::unix::net::UnixDatagram;
    let (ours, theirs) = UnixDatagram::pair()?;
    ours.set_nonblocking(true)?;
    Ok((ours.into(), theirs.into()))
}

/// A buffer for one file descriptor as a control message, aligned as the kernel requires.
#[repr(C, align(8))]
struct Control([u8; 32]);

/// A message of `part`, with `length` bytes of control data in `control`. Both must outlive it.
fn message(part: &mut libc::iovec, control: &mut Control, length: usize) -> libc::msghdr {
    // SAFETY: plain data, for which zeros mean empty.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = length as _;
    message
}

/// Sends `fd`. Only makes system calls, because it is called between clone and exec.
///
/// # Safety
/// `channel` and `fd` are open.
pub unsafe fn hand_over(channel: RawFd, fd: RawFd) -> bool {
    let mut byte = [0u8];
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut control = Control([0; 32]);
    // SAFETY: everything that the message points to lives until the call returns, and the control message fits.
    unsafe {
        let message = message(&mut part, &mut control, libc::CMSG_SPACE(4) as usize);
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(4) as _;
        libc::CMSG_DATA(header).cast::<i32>().write_unaligned(fd);
        libc::sendmsg(channel, &raw const message, 0) == 1
    }
}

/// Receives the listener that a child sent, if it did.
pub fn take_over(channel: &OwnedFd) -> Option<OwnedFd> {
    use std::os::fd::FromRawFd;
    let mut byte = [0u8];
    let mut part = libc::iovec { iov_base: byte.as_mut_ptr().cast(), iov_len: 1 };
    let mut control = Control([0; 32]);
    // SAFETY: as above; a received descriptor is owned by us alone.
    unsafe {
        let mut message = message(&mut part, &mut control, size_of::<Control>());
        if libc::recvmsg(channel.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) != 1 {
            return None;
        }
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        let arrived = !header.is_null() && (*header).cmsg_type == libc::SCM_RIGHTS;
        arrived.then(|| OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<i32>().read_unaligned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_arrives() {
        let (ours, theirs) = channel().unwrap();
        assert!(take_over(&ours).is_none());
        let file = tempfile::tempfile().unwrap();
        // SAFETY: both are open.
        assert!(unsafe { hand_over(theirs.as_raw_fd(), file.as_raw_fd()) });
        assert!(take_over(&ours).is_some_and(|arrived| arrived.as_raw_fd() != file.as_raw_fd()));
    }

    #[test]
    fn every_call_jumps_to_the_report() {
        let filter = filter();
        let report = filter.len() - 1;
        for (i, op) in filter.iter().enumerate().skip(3).take(CALLS.len()) {
            assert_eq!(i + 1 + usize::from(op.jt), report);
        }
        assert_eq!(2 + usize::from(filter[1].jf), report - 1);
    }
}
