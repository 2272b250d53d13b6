//! The processes that compute one stage together: the worker that the runner started, which is number 0, and copies of it
//! that it starts. They end with it, and if one of them fails, so does the stage, with the words of that one.

use crate::{member::Member, task::Stopped};
use anyhow::{Context as _, Result, anyhow, bail};
use caco_learn::bridge::team;
use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex, OnceLock,
        mpsc::{self, Receiver},
    },
    time::Duration,
};
use tch::Device;

/// The argument before the number of a process.
pub const NUMBER: &str = "--process";

/// Exit code of a process that ended because another one did.
pub const LOST: u8 = 76;

/// What the ends of the other processes are sent to, one message each.
static ENDS: Mutex<Option<Receiver<()>>> = Mutex::new(None);

/// Makes the processes a team that computes on this device, and starts the others if this is the first. Must be called by
/// the main thread, when the device is open: the other processes end with the thread that started them.
pub fn join(member: &Member, device: Device) -> Result<()> {
    if member.of == 1 {
        return Ok(());
    }
    let place = member.folder.join("rendezvous");
    let (port, nonce) = match member.number {
        0 => {
            let (port, nonce) = (team::open(member.of)?, nonce()?);
            write_aside(&place, &format!("127.0.0.1:{port} {nonce}"))?;
            start_others(member)?;
            (port, nonce)
        }
        _ => read(&place)?,
    };
    team::join(&team::Place { port, nonce: &nonce, rank: member.number, size: member.of, build: &build()? }, device)
}

/// Keeps this process and the threads that it will start to its part of the cores, if it is the first; it starts the others
/// so. The scheduler would put two processes on one core when messages wake them, while another core is idle.
pub fn keep_to_own_cores(member: &Member) {
    if member.number == 0 && member.of > 1 {
        let cores = CORES.get_or_init(allowed);
        keep_to(&set_of(part(cores, 0, member.of)));
    }
}

fn start_others(member: &Member) -> Result<()> {
    let (sender, receiver) = mpsc::channel();
    for number in 1..member.of {
        let words = words(&member.folder, number);
        let _ = fs::remove_file(&words);
        let child = copy(member, number).with_context(|| format!("cannot start process {number}"))?;
        let (sender, name) = (sender.clone(), format!("process {number} of {}", member.of));
        let watch = move || {
            watch(child, &name, &words);
            let _ = sender.send(());
        };
        std::thread::Builder::new().name(format!("process-{number}")).spawn(watch)?;
    }
    *ENDS.lock().unwrap_or_else(|e| e.into_inner()) = Some(receiver);
    Ok(())
}

/// A copy of this program, which ends with it.
fn copy(member: &Member, number: usize) -> io::Result<Child> {
    // The very file that this process runs, even if another build has replaced it meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.arg0(std::env::current_exe()?).args(&member.arguments).arg(NUMBER).arg(number.to_string());
    let parent = std::process::id() as libc::pid_t;
    let own = CORES.get().map(|cores| set_of(part(cores, number, member.of)));
    let prepare = move || {
        // SAFETY: these calls take numbers and allocate nothing. Between fork and exec, nothing else may be called.
        unsafe {
            libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
            // It may have ended before.
            if libc::getppid() != parent {
                libc::_exit(i32::from(LOST));
            }
            set_mask(libc::SIG_BLOCK);
            if let Some(own) = &own {
                keep_to(own);
            }
        }
        Ok(())
    };
    // SAFETY: as above.
    unsafe { command.pre_exec(prepare) };
    command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()
}

/// The cores that the first process may use, if the processes divide them.
static CORES: OnceLock<Vec<usize>> = OnceLock::new();

/// The cores that this process may use; none if that is unknown.
fn allowed() -> Vec<usize> {
    // SAFETY: the set is plain data of the size that the calls are given.
    unsafe {
        let mut all: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut all) != 0 {
            return vec![];
        }
        (0..libc::CPU_SETSIZE as usize).filter(|core| libc::CPU_ISSET(*core, &all)).collect()
    }
}

fn set_of(cores: &[usize]) -> libc::cpu_set_t {
    // SAFETY: plain data, for which zeros are valid; the cores are below its size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        cores.iter().for_each(|core| libc::CPU_SET(*core, &mut set));
        set
    }
}

/// Keeps the calling thread, and those that it will start, to these cores. If that fails, or there are none, nothing changes.
fn keep_to(cores: &libc::cpu_set_t) {
    // SAFETY: the set is plain data of the size that the call is given.
    unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), cores) };
}

/// The part of the cores that process `number` of so many has: neighbours, at least one.
fn part(cores: &[usize], number: usize, of: usize) -> &[usize] {
    let (start, end) = (number * cores.len() / of, (number + 1) * cores.len() / of);
    cores.get(start..end.max(start + 1)).unwrap_or_default()
}

/// Makes a request to stop wait, or no longer. It is sent to the whole process group, and a process that starts is not ready
/// for it yet.
fn set_mask(how: libc::c_int) {
    // SAFETY: the set is initialised by the first call; these calls allocate nothing.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        libc::sigprocmask(how, &raw const set, std::ptr::null_mut());
    }
}

/// From now on, requests to stop arrive. To be called when they are handled.
pub fn accept_stops() {
    set_mask(libc::SIG_UNBLOCK);
}

/// What identifies the build of this program.
fn build() -> Result<String> {
    let mut hasher = blake3::Hasher::new();
    File::open("/proc/self/exe")
        .and_then(|file| hasher.update_reader(file).map(drop))
        .context("cannot read the program of this process")?;
    Ok(hasher.finalize().to_hex().to_string())
}

/// The number of this process, given where another one started it.
pub fn number() -> Result<usize> {
    let arguments: Vec<String> = std::env::args().collect();
    let Some(at) = arguments.iter().position(|argument| argument == NUMBER) else { return Ok(0) };
    let number = arguments.get(at + 1).and_then(|number| number.parse().ok());
    number.with_context(|| format!("{NUMBER} is not followed by a number"))
}

/// Where the processes meet, and the word by which they know one another.
fn read(place: &Path) -> Result<(u16, String)> {
    let text = fs::read_to_string(place).with_context(|| format!("cannot read {}", place.display()))?;
    let parse = || {
        let (address, nonce) = text.split_once(' ')?;
        let (_, port) = address.rsplit_once(':')?;
        Some((port.parse().ok()?, nonce.to_string()))
    };
    parse().with_context(|| format!("{} does not say where the processes meet", place.display()))
}

/// A word that no other team has: something else on this machine may have taken the port.
fn nonce() -> Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).context("cannot read /dev/urandom")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

fn write_aside(path: &Path, text: &str) -> Result<()> {
    let aside = path.with_extension("partial");
    let write = || fs::write(&aside, text).and_then(|()| fs::rename(&aside, path));
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// The file in which a process leaves why it failed.
fn words(work: &Path, number: usize) -> PathBuf {
    work.join(format!("process-{number}.error"))
}

/// Waits for the end of a process. If it failed by itself, so does this one.
fn watch(mut child: Child, name: &str, words: &Path) {
    let why = match child.wait() {
        Ok(status) if is_fine(status) => return,
        Ok(status) => fs::read_to_string(words).unwrap_or_else(|_| describe(status)),
        Err(error) => format!("cannot be waited for: {error}"),
    };
    let _ = writeln!(io::stderr().lock(), "error: {name}: {}", why.trim_end());
    // SAFETY: ends the process at once; the main thread may wait for the one that failed.
    unsafe { libc::_exit(1) };
}

/// Whether a process ended for no reason of its own.
fn is_fine(status: ExitStatus) -> bool {
    matches!(status.code(), Some(code) if code == 0 || code == i32::from(LOST))
}

fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}; its last words are in the log"),
        (None, Some(libc::SIGKILL)) => "killed (signal 9); if nobody did, the system may have run out of memory".into(),
        (None, signal) => format!("ended by signal {}", signal.unwrap_or_default()),
    }
}

/// From now on, panics of an exchange that failed are not printed: [`together`] says why it did.
pub fn silence_panics() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if !team::is_lost() {
            usual(panic);
        }
    }));
}

/// How long the first process waits for the end of another one, once it cannot be reached.
const GRACE: Duration = Duration::from_secs(10);

/// Does what a member does, and ends it. An error that came of the end of another process is replaced by the words of that one;
/// in processes but the first, an error is left for the first one.
pub fn together(member: &Member, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let result = panic::catch_unwind(AssertUnwindSafe(act));
    let is_lost = team::is_lost();
    let result = match result {
        Err(panic) if !is_lost => panic::resume_unwind(panic),
        // The panic of an exchange that failed is no more than its error.
        result => result.unwrap_or_else(|_| Err(anyhow!("an exchange failed"))),
    };
    match (member.number, result) {
        (_, Ok(())) => Ok(()),
        (0, Err(_)) if is_lost => {
            let ends = ENDS.lock().unwrap_or_else(|e| e.into_inner()).take();
            // The one that failed ends this process, from its thread.
            let _ = ends.map(|ends| (1..member.of).try_for_each(|_| ends.recv_timeout(GRACE)));
            bail!("the connection between the processes of this stage broke");
        }
        (0, error) => error,
        (_, Err(_)) if is_lost => std::process::exit(LOST.into()),
        // The first one says so.
        (_, Err(error)) if error.is::<Stopped>() => Ok(()),
        (_, Err(error)) => {
            let _ = fs::write(words(&member.folder, member.number), format!("{error:#}"));
            Err(error)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_meeting_place_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("rendezvous");
        let word = nonce().unwrap();
        write_aside(&place, &format!("127.0.0.1:4711 {word}")).unwrap();
        assert_eq!(read(&place).unwrap(), (4711, word.clone()));
        assert!(word.len() == 32 && word != nonce().unwrap());
        for damaged in ["", "127.0.0.1:4711", "127.0.0.1:70000 word", "4711 word"] {
            fs::write(&place, damaged).unwrap();
            assert!(read(&place).unwrap_err().to_string().contains("does not say where"), "{damaged}");
        }
    }

    #[test]
    fn processes_divide_the_cores() {
        let cores = [0, 2, 4, 6, 8];
        let parts = |of| (0..of).map(|number| part(&cores, number, of)).collect::<Vec<_>>();
        assert_eq!(parts(1), [&cores]);
        assert_eq!(parts(2), [&cores[..2], &cores[2..]]);
        assert_eq!(parts(8), [&[0][..], &[0], &[2], &[2], &[4], &[6], &[6], &[8]]);
    }

    #[test]
    fn only_ends_of_their_own_are_failures() {
        let ended = |status: i32| is_fine(ExitStatus::from_raw(status));
        assert!(ended(0) && ended(i32::from(LOST) << 8));
        assert!(!ended(1 << 8) && !ended(libc::SIGKILL) && !ended(libc::SIGTERM));
        assert!(describe(ExitStatus::from_raw(libc::SIGKILL)).starts_with("killed (signal 9)"));
        assert_eq!(describe(ExitStatus::from_raw(libc::SIGABRT)), "ended by signal 6");
    }
}
