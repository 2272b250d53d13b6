//! Running out of memory, as an error of one sentence. tch's operations panic with the text of libtorch's exception, which
//! is long and contains a backtrace.

use crate::panic_message;
use anyhow::Result;
use std::panic::{self, AssertUnwindSafe};

/// What reduces the memory of a training step.
pub const TRAINING: &str =
    "take `activations: Recompute`, a smaller `batch`, or `accumulate: 2`, which departs from the method";

/// The device has less memory left than an operation needs.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{what}; {way_out}")]
pub struct OutOfMemory {
    what: String,
    way_out: String,
}

/// Runs `work`. If it runs out of memory, by an error or a panic, the error is an [`OutOfMemory`] that ends in `way_out`.
/// Other panics are passed on.
pub fn caught<T>(way_out: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let out_of_memory = |what| OutOfMemory { what, way_out: way_out.into() };
    match panic::catch_unwind(AssertUnwindSafe(work)) {
        Ok(Err(error)) if !error.is::<OutOfMemory>() => Err(match shortage(&format!("{error:#}")) {
            Some(what) => out_of_memory(what).into(),
            None => error,
        }),
        Ok(done) => done,
        Err(panic) => match panic_message::of(&*panic).and_then(shortage) {
            Some(what) => Err(out_of_memory(what).into()),
            None => panic::resume_unwind(panic),
        },
    }
}

/// From now on, panics for lack of memory, which [`caught`] reports, are not printed as well.
pub fn silence_panics() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if panic_message::of(panic.payload()).and_then(shortage).is_none() {
            usual(panic);
        }
    }));
}

/// What an error of libtorch says about memory, if that is what it is about.
fn shortage(text: &str) -> Option<String> {
    let between = |before: &str, after: &str| {
        let (_, rest) = text.split_once(before)?;
        rest.split_once(after).map(|(found, _)| found)
    };
    if text.contains("CUDA out of memory") {
        let asked = between("Tried to allocate ", ". ").unwrap_or("memory");
        let left = between("total capacity of ", " of which").zip(between("of which ", " is free"));
        let left = left.map_or_else(String::new, |(total, free)| format!(", and {free} of {total} are free"));
        return Some(format!("the GPU has too little memory: {asked} more are needed{left}"));
    }
    // Libraries below libtorch allocate on their own.
    if ["CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED", "CUDA error: out of memory"]
        .iter()
        .any(|e| text.contains(e))
    {
        return Some("the GPU has too little memory".into());
    }
    let asked = between("you tried to allocate ", " bytes").and_then(|bytes| bytes.parse::<u64>().ok());
    match asked {
        Some(bytes) => Some(format!("this machine has too little memory: {} MiB more are needed", bytes >> 20)),
        None => text.contains("std::bad_alloc").then(|| "this machine has too little memory".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::{Context as _, anyhow};

    const CUDA: &str = "Torch(\"CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.80 GiB of which \
                        1.25 GiB is free. Including non-PyTorch memory, this process has 138.50 GiB memory in use. \
                        Exception raised from malloc at /pytorch/c10/cuda/CUDACachingAllocator.cpp:1526\")";

    #[test]
    fn errors_and_panics_become_one_sentence() {
        let expected =
            "the GPU has too little memory: 2.00 GiB more are needed, and 1.25 GiB of 139.80 GiB are free; buy one";
        let error = caught::<()>("buy one", || Err(anyhow!(CUDA))).unwrap_err();
        assert_eq!(error.to_string(), expected);
        let error = caught::<()>("buy one", || panic!("{CUDA}")).unwrap_err();
        assert_eq!(error.to_string(), expected);
        // The innermost knows best what to do.
        let inner = || caught::<()>("buy one", || panic!("{CUDA}")).context("step 3");
        assert_eq!(format!("{:#}", caught("rent one", inner).unwrap_err()), format!("step 3: {expected}"));
    }

    #[test]
    fn memory_of_the_machine_and_of_libraries_counts_too() {
        let text = "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to \
                    allocate 4294967296 bytes. Error code 12 (Cannot allocate memory)";
        assert_eq!(shortage(text).unwrap(), "this machine has too little memory: 4096 MiB more are needed");
        for text in ["cuDNN error: CUDNN_STATUS_ALLOC_FAILED", "std::bad_alloc"] {
            assert!(shortage(text).unwrap().contains("too little memory"), "{text}");
        }
    }

    #[test]
    fn other_failures_are_left_as_they_are() {
        let error = caught::<()>("", || Err(anyhow!("shapes do not fit"))).unwrap_err();
        assert_eq!(error.to_string(), "shapes do not fit");
        assert!(panic::catch_unwind(|| caught::<()>("", || panic!("a bug"))).is_err());
        assert_eq!(caught("", || Ok(3)).unwrap(), 3);
    }
}
