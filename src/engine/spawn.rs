//! One process by clone(CLONE_VM | CLONE_VFORK), as glibc's posix_spawn does it: the runner's memory is lent to the child
//! until it executes the program, not copied. `std::process` can do so only without the steps a stage needs between the
//! two; with them it forks, and copying the page tables of a runner with a hundred thousand stages takes longer than a
//! small stage does.

use super::{confine::Confinement, exec::Launch, mounts::Steps, refusal, which};
use std::{
    collections::BTreeMap,
    ffi::{CStr, CString, c_char, c_int, c_void},
    fs::File,
    io,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt,
    },
    path::PathBuf,
    ptr,
};

/// What the child needs, prepared: between clone and exec it only makes system calls.
struct Child {
    program: *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
    folder: *const c_char,
    input: RawFd,
    output: RawFd,
    /// -1: none.
    keep: RawFd,
    parent: libc::pid_t,
    /// What it finds at other paths than its parent.
    mounts: Steps,
    /// The rules that confine it, and the channel that it hands its listener over. -1: it is not confined.
    ruleset: RawFd,
    channel: RawFd,
    filter: libc::sock_fprog,
    /// What went wrong, as the system counts errors; 0 as long as nothing did.
    error: c_int,
}

/// The child's stack until it executes the program: it makes a dozen system calls, and no deep ones.
const STACK: usize = 32 << 10;

/// What holds a child to its confinement.
#[derive(Debug)]
pub struct Cage {
    ruleset: OwnedFd,
    filter: Vec<libc::sock_filter>,
    /// Our end and the child's of the channel for its listener.
    channel: (OwnedFd, OwnedFd),
}

impl Cage {
    /// The cage of a confinement. None: this kernel has no Landlock.
    pub fn new(confinement: &Confinement) -> io::Result<Option<Cage>> {
        let Some(ruleset) = confinement.ruleset()? else { return Ok(None) };
        Ok(Some(Cage { ruleset, filter: refusal::filter(), channel: refusal::channel()? }))
    }

    /// Where the child's calls are reported, once it is started. None: this kernel, or who confines us, does not let it.
    pub fn listener(&self) -> Option<OwnedFd> {
        refusal::take_over(&self.channel.0)
    }
}

/// Starts a program in a process group of its own, its output going to `output`. It dies with the thread that started it,
/// and inherits `keep`. Returns its number.
pub fn spawn(launch: &Launch, output: RawFd, keep: Option<RawFd>, cage: Option<&Cage>) -> io::Result<i32> {
    let nothing = File::open("/dev/null")?;
    let argv = launch.argv.iter().map(|a| text(a.as_bytes())).collect::<io::Result<Vec<_>>>()?;
    // Of two values for one name the later counts. Programs differ in which of them they would read.
    let env: BTreeMap<&String, &String> = launch.env.iter().map(|(name, value)| (name, value)).collect();
    let env = env.iter().map(|(name, value)| text(format!("{name}={value}").as_bytes()));
    let env = env.collect::<io::Result<Vec<_>>>()?;
    let program = text(locate(launch)?.as_os_str().as_bytes())?;
    let folder = text(launch.folder.as_os_str().as_bytes())?;
    let (argv, env) = (pointers(&argv), pointers(&env));
    let mut child = Child {
        program: program.as_ptr(),
        argv: argv.as_ptr(),
        envp: env.as_ptr(),
        folder: folder.as_ptr(),
        input: nothing.as_raw_fd(),
        output,
        keep: keep.unwrap_or(-1),
        parent: std::process::id() as libc::pid_t,
        mounts: Steps::of(&launch.mounts)?,
        ruleset: cage.map_or(-1, |cage| cage.ruleset.as_raw_fd()),
        channel: cage.map_or(-1, |cage| cage.channel.1.as_raw_fd()),
        filter: libc::sock_fprog {
            len: cage.map_or(0, |cage| cage.filter.len()) as u16,
            filter: cage.map_or(ptr::null(), |cage| cage.filter.as_ptr()).cast_mut(),
        },
        error: 0,
    };
    let namespaces = child.mounts.flags;
    let number = lend(become_program, (&raw mut child).cast(), namespaces)?;
    if child.error != 0 {
        // SAFETY: reaps the child, which has ended.
        unsafe { libc::waitpid(number, ptr::null_mut(), 0) };
        let error = io::Error::from_raw_os_error(child.error);
        return Err(match child.mounts.failed() {
            Some(mount) => io::Error::new(error.kind(), format!("cannot mount {mount}: {error}")),
            None => error,
        });
    }
    Ok(number)
}

/// Starts a child that runs `life` on our memory, in these new namespaces. Returns its number when it has executed a program
/// or ended.
pub(super) fn lend(life: extern "C" fn(*mut c_void) -> c_int, data: *mut c_void, namespaces: c_int) -> io::Result<i32> {
    let mut stack = vec![0u64; STACK / 8];
    // The pointer to its end is aligned to 16 bytes, as the platform wants it.
    let top = (stack.as_mut_ptr_range().end as usize & !15) as *mut c_void;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD | namespaces;
    // No handler of ours may run in the child, on memory that it shares with us.
    let masked = Masked::all();
    // SAFETY: the child runs on a stack of its own and reads only what lives until this call returns, which it does when
    // the child has executed the program or ended.
    let number = unsafe { libc::clone(life, top, flags, data) };
    let failed = io::Error::last_os_error();
    drop(masked);
    if number < 0 { Err(failed) } else { Ok(number) }
}

/// The child's own life. Its caller's memory is its own until the last line.
extern "C" fn become_program(child: *mut c_void) -> c_int {
    let child = child.cast::<Child>();
    // SAFETY: see `spawn`; only system calls are made here, no memory is taken and no lock.
    unsafe {
        // Before anything else: a user namespace has to be set up, and what follows resolves paths.
        let mounted = (*child).mounts.take();
        let c = &*child;
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        let done = mounted
            && libc::setpgid(0, 0) == 0
            && libc::dup2(c.input, 0) >= 0
            && libc::dup2(c.output, 1) >= 0
            && libc::dup2(c.output, 2) >= 0
            && libc::chdir(c.folder) == 0
            && (c.keep < 0 || libc::fcntl(c.keep, libc::F_SETFD, 0) == 0)
            && libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0
            // The runner may have died before the line above.
            && libc::getppid() == c.parent
            // Rust ignores SIGPIPE, and what is ignored stays so in a new program.
            && libc::signal(libc::SIGPIPE, libc::SIG_DFL) != libc::SIG_ERR
            && confined(c)
            && libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut()) == 0;
        if done {
            libc::execve(c.program, c.argv, c.envp);
        }
        (*child).error = (*libc::__errno_location()).max(1);
        libc::_exit(127)
    }
}

/// Confines the calling process for good. Reports of its calls make better messages; it continues without them where
/// the kernel offers none.
///
/// # Safety
/// As in [`become_program`]: system calls only.
unsafe fn confined(c: &Child) -> bool {
    if c.ruleset < 0 {
        return true;
    }
    // SAFETY: the filter lives until the program is executed; the descriptors are open.
    unsafe {
        let held = libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
            && libc::syscall(libc::SYS_landlock_restrict_self, c.ruleset, 0u32) == 0;
        if !held {
            return false;
        }
        let install = |flags: libc::c_ulong| {
            libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const c.filter) as RawFd
        };
        // Signals of the program's own (Go's runtime sends itself some) must not break off its calls; an older kernel
        // does not know how.
        let reported = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
        let mut listener = install(reported | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);
        if listener < 0 {
            listener = install(reported);
        }
        // A filter whose reports nobody reads would stop the program at its first file.
        listener < 0 || refusal::hand_over(c.channel, listener)
    }
}

/// The program's file, by the PATH that it is given.
fn locate(launch: &Launch) -> io::Result<PathBuf> {
    let path = launch.env.iter().rev().find(|(n, _)| n == "PATH").map_or("/bin:/usr/bin", |(_, value)| value);
    let found = which::find(&launch.argv[0], path.as_ref(), &launch.folder);
    found.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
}

fn text(bytes: &[u8]) -> io::Result<CString> {
    CString::new(bytes).map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a text with a zero byte in it"))
}

/// A list as exec wants it: pointers, and a null at the end.
fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    texts.iter().map(CString::as_c_str).map(CStr::as_ptr).chain([ptr::null()]).collect()
}

/// All signals held back in this thread, as long as it lives.
struct Masked(libc::sigset_t);

impl Masked {
    fn all() -> Self {
        // SAFETY: the sets are plain data, filled by the calls.
        unsafe {
            let (mut all, mut before): (libc::sigset_t, libc::sigset_t) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            Masked(before)
        }
    }
}

impl Drop for Masked {
    fn drop(&mut self) {
        // SAFETY: puts back the set that `all` took.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &self.0, ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::unix::process::ExitStatusExt, process::ExitStatus};

    /// Runs a program in a folder of its own, with one variable and the tests' PATH; its output, or why there is none.
    fn run(argv: &[&str]) -> io::Result<(String, ExitStatus)> {
        let folder = tempfile::tempdir()?;
        let log = folder.path().join("log");
        let path = std::env::var("PATH").unwrap_or_default();
        let env = [("WORD".into(), "there".into()), ("PATH".into(), path), ("WORD".into(), "here".into())];
        let argv = argv.iter().map(ToString::to_string).collect();
        let launch = Launch {
            argv,
            folder: folder.path().into(),
            env: env.into(),
            log: log.clone(),
            confinement: None,
            mounts: Default::default(),
        };
        let (output, keep) = (File::create(&log)?, File::open(folder.path())?);
        let number = spawn(&launch, output.as_raw_fd(), Some(keep.as_raw_fd()), None)?;
        let mut status = 0;
        // SAFETY: the status is valid for the length of the call.
        assert_eq!(unsafe { libc::waitpid(number, &mut status, 0) }, number);
        Ok((fs::read_to_string(log)?, ExitStatus::from_raw(status)))
    }

    #[test]
    fn a_program_gets_its_folder_its_environment_and_its_output() {
        let (said, status) =
            run(&["sh", "-c", "ls; tr '\\0' '\\n' < /proc/$$/environ | grep WORD; env | grep -c .; exit 3"]).unwrap();
        assert_eq!(status.code(), Some(3));
        let lines: Vec<&str> = said.lines().collect();
        // sh sets PWD, SHLVL and _ itself.
        assert!(lines[..2] == ["log", "WORD=here"] && lines[2].parse::<u32>().unwrap() <= 5, "{said}");
    }

    #[test]
    fn a_program_is_not_born_deaf() {
        let (said, _) = run(&["sh", "-c", "grep -E '^Sig(Blk|Ign)' /proc/self/status"]).unwrap();
        let ours = fs::read_to_string("/proc/self/status").unwrap();
        let ignored = |text: &str| {
            let line = text.lines().find(|line| line.starts_with("SigIgn:")).unwrap();
            u64::from_str_radix(line["SigIgn:".len()..].trim(), 16).unwrap()
        };
        assert!(said.contains("SigBlk:\t0000000000000000"), "{said}");
        // Signals that were ignored when we started stay ignored; SIGPIPE is ignored by Rust itself.
        assert_eq!(ignored(&said), ignored(&ours) & !(1 << (libc::SIGPIPE - 1)), "{said}");
    }

    #[test]
    fn a_program_that_cannot_be_started_is_an_error() {
        assert_eq!(run(&["no-such-program"]).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(run(&["./none"]).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(run(&["/dev/null"]).unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(run(&["sh", "a\0b"]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
