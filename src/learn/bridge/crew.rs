//! Threads that compute the shards of a batch side by side, so that no kernel runs on more than one.

use anyhow::{Context as _, Result};
use rayon::{
    ThreadPool, ThreadPoolBuilder,
    iter::{IndexedParallelIterator as _, IntoParallelIterator as _, ParallelIterator as _},
};
use std::{ffi::c_void, sync::OnceLock};

/// A task of C++, with its number.
type Task = unsafe extern "C" fn(body: *mut c_void, number: usize);

unsafe extern "C" {
    fn caco_crew(run: unsafe extern "C" fn(usize, *mut c_void, Task));
    fn caco_crew_thread();
}

static CREW: OnceLock<ThreadPool> = OnceLock::new();

/// Starts the crew. From then on results do not depend on the machine, see [`crate::portable`].
pub fn start(threads: usize) -> Result<()> {
    // SAFETY: it sets the calling thread's number of threads per operation to libtorch's.
    let first = |_| unsafe { caco_crew_thread() };
    let builder = ThreadPoolBuilder::new().num_threads(threads).start_handler(first);
    let pool = builder.thread_name(|number| format!("shards-{number}")).build().context("the threads of a stage")?;
    // It may have been started before, in a test.
    let _ = CREW.set(pool);
    // SAFETY: `run` is a function of this program.
    unsafe { caco_crew(run) };
    Ok(())
}

/// `work` on every item, in order: side by side if there is a crew, otherwise one after the other. Tensors must not
/// require gradients: another thread does not know whether autograd is on.
pub fn each<Item: Send, Output: Send>(items: Vec<Item>, work: impl Fn(Item) -> Output + Sync + Send) -> Vec<Output> {
    match CREW.get() {
        Some(crew) if items.len() > 1 => crew.install(|| items.into_par_iter().with_max_len(1).map(work).collect()),
        _ => items.into_iter().map(work).collect(),
    }
}

/// The body of a task, which C++ calls from several threads.
struct Body(*mut c_void);

// SAFETY: C++ passes bodies that may be called from any thread.
unsafe impl Send for Body {}

/// Runs the tasks of C++.
unsafe extern "C" fn run(count: usize, body: *mut c_void, task: Task) {
    let bodies = (0..count).map(|number| (Body(body), number)).collect();
    // SAFETY: C++ keeps the body until this returns; a task catches its exceptions.
    each(bodies, |(Body(body), number)| unsafe { task(body, number) });
}
