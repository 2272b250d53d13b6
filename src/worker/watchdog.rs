//! A thread that ends a stalled worker, and signals to the runner that the worker is alive.

use crate::{pulse::Pulse, stacks};
use anyhow::{Context as _, Result};
use caco_pipeline::job;
use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

/// Watches `pulse` for the lifetime of the process, and renews the file `alive`. A stall ends the process: the stacks
/// of all threads and the error are written to stderr, and the checkpoints are kept.
pub fn start(pulse: Arc<Pulse>, alive: PathBuf, least: Duration) -> Result<()> {
    stacks::prepare();
    let tick = (least / 10).clamp(Duration::from_millis(10), Duration::from_secs(1));
    let watch = move || {
        let mut looked = Instant::now();
        let mut count = 0_u64;
        // Failures are ignored: a runner that sees no update considers the worker dead.
        let mut renew = || {
            count += 1;
            let _ = fs::write(&alive, count.to_string());
        };
        loop {
            renew();
            std::thread::sleep(tick);
            if let Some(stall) = pulse.look(looked.elapsed()) {
                let mut stderr = io::stderr().lock();
                stacks::write(&mut stderr, &mut renew);
                let _ = writeln!(stderr, "error: {stall}; the stacks of all threads are in the log");
                // SAFETY: ends the process at once; exit handlers would wait for the hanging threads.
                unsafe { libc::_exit(job::STALLED) };
            }
            looked = Instant::now();
        }
    };
    std::thread::Builder::new().name("watchdog".into()).spawn(watch).context("cannot start the watchdog")?;
    Ok(())
}
