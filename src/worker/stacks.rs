//! Writes the stacks of all threads of this process, for the log of a stalled stage.

use std::{
    ffi::{c_int, c_void},
    fs,
    io::Write,
    ptr,
    sync::atomic::{AtomicI32, AtomicPtr, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

const DEPTH: usize = 64;
/// How long to wait for a thread to respond. One that is blocked in the kernel does not.
const PATIENCE: Duration = Duration::from_secs(1);

/// The frames written by the signal handler of the last signalled thread.
static FRAMES: [AtomicPtr<c_void>; DEPTH] = [const { AtomicPtr::new(ptr::null_mut()) }; DEPTH];
static COUNT: AtomicUsize = AtomicUsize::new(0);
static ASKED: AtomicI32 = AtomicI32::new(0);

/// Prepares [`write`]: must be called before it.
pub fn prepare() {
    // The first call loads a library, which a signal handler must not do.
    let mut frames = [ptr::null_mut(); 1];
    // SAFETY: the array has the given length; thanks to the first call above, the handler makes only async-signal-safe
    // calls.
    unsafe {
        libc::backtrace(frames.as_mut_ptr(), 1);
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = note as extern "C" fn(c_int) as usize;
        action.sa_flags = libc::SA_RESTART;
        libc::sigaction(signal(), &action, ptr::null_mut());
    }
}

/// A signal that no library uses: OpenMP, CUDA and profilers use others.
fn signal() -> c_int {
    libc::SIGRTMIN() + 5
}

extern "C" fn note(_: c_int) {
    // SAFETY: no arguments.
    let me = unsafe { libc::syscall(libc::SYS_gettid) } as i32;
    if ASKED.load(Ordering::SeqCst) != me {
        return;
    }
    let mut frames = [ptr::null_mut(); DEPTH];
    // SAFETY: the array has the given length.
    let count = unsafe { libc::backtrace(frames.as_mut_ptr(), DEPTH as c_int) } as usize;
    frames[..count].iter().zip(&FRAMES).for_each(|(frame, slot)| slot.store(*frame, Ordering::SeqCst));
    COUNT.store(count, Ordering::SeqCst);
    // Another thread may have been signalled meanwhile, if this one took too long.
    let _ = ASKED.compare_exchange(me, 0, Ordering::SeqCst, Ordering::SeqCst);
}

/// Writes the stack of every thread except the calling one, the innermost frame first. Code generated at run time has
/// no name, and the stack above it may be missing. `between` is called before each thread, as a stack takes a moment.
pub fn write(into: &mut impl Write, between: &mut dyn FnMut()) {
    let tasks = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let mut numbers: Vec<i32> = tasks.filter_map(|task| task.file_name().to_str()?.parse().ok()).collect();
    numbers.sort_unstable();
    // SAFETY: no arguments.
    let me = unsafe { libc::syscall(libc::SYS_gettid) } as i32;
    for thread in numbers.into_iter().filter(|thread| *thread != me) {
        between();
        let name = fs::read_to_string(format!("/proc/self/task/{thread}/comm")).unwrap_or_default();
        let _ = writeln!(into, "thread {thread} ({}):", name.trim());
        match frames(thread) {
            // The first is the handler, the second the kernel's return from it.
            Some(frames) => {
                for frame in frames.iter().skip(2) {
                    let _ = writeln!(into, "  {}", describe(*frame));
                }
            }
            None => _ = writeln!(into, "  it does not respond"),
        }
    }
}

fn frames(thread: i32) -> Option<Vec<*mut c_void>> {
    ASKED.store(thread, Ordering::SeqCst);
    // SAFETY: sends a signal to a thread of this process.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, signal()) };
    let asked = Instant::now();
    while ASKED.load(Ordering::SeqCst) == thread {
        if asked.elapsed() > PATIENCE {
            ASKED.store(0, Ordering::SeqCst);
            return None;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let count = COUNT.load(Ordering::SeqCst);
    Some(FRAMES[..count].iter().map(|slot| slot.load(Ordering::SeqCst)).collect())
}

/// The function, preceded by those inlined into it; with file and line if known.
fn describe(frame: *mut c_void) -> String {
    let mut lines = vec![];
    backtrace::resolve(frame, |symbol| {
        let name = symbol.name().map_or_else(|| format!("{frame:p}"), |name| format!("{name:#}"));
        let place = symbol.filename().zip(symbol.lineno());
        lines.push(name + &place.map_or(String::new(), |(file, line)| format!(" at {}:{line}", file.display())));
    });
    if lines.is_empty() { format!("{frame:p}") } else { lines.join("\n  ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Barrier, atomic::AtomicBool};

    #[inline(never)]
    fn spin(until: &AtomicBool) {
        while !until.load(Ordering::Relaxed) {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn the_stacks_of_a_spinning_and_a_waiting_thread_are_written() {
        prepare();
        let (until, waiting) = (Arc::new(AtomicBool::new(false)), Arc::new(Barrier::new(2)));
        let (theirs, other) = (until.clone(), waiting.clone());
        let named = |name: &str| std::thread::Builder::new().name(name.into());
        let spinning = named("spinning").spawn(move || spin(&theirs)).unwrap();
        let waits = named("waiting").spawn(move || _ = other.wait()).unwrap();
        let mut text = vec![];
        write(&mut text, &mut || ());
        until.store(true, Ordering::Relaxed);
        waiting.wait();
        spinning.join().unwrap();
        waits.join().unwrap();
        let text = String::from_utf8(text).unwrap();
        for name in ["(spinning):\n", "(waiting):\n", "spin at ", "Barrier>::wait"] {
            assert!(text.contains(name), "{text}");
        }
    }
}
