//! Results that do not depend on the machine.
//!
//! What of a machine decides the bits of libtorch's results on x86-64, and what is done about it here:
//!
//! | cause | cure |
//! |---|---|
//! | threads: kernels sum in as many parts as there are | every kernel runs on one; shards run side by side ([`bridge::each`]) |
//! | instruction sets | [`ENVIRONMENT`] caps them at AVX2; our own kernels round every operation |
//! | the vendor: MKL has other kernels for other vendors' CPUs | [`ENVIRONMENT`]; oneDNN multiplies matrices in f32 |
//! | the number of images in a kernel, by which libtorch chooses it | a batch is always cut into the same shards |
//! | the sizes of caches, by which oneDNN blocks some convolutions | none: no step of the networks tried differed between emulated CPUs whose level 2 has 0.5 and 2 MiB, and one with 1 MiB |
//! | the C library: sines, logarithms and exponentials in f64 | none: tried with glibc 2.36 only |

use crate::bridge;
use anyhow::{Result, ensure};
use caco_kinds::portable::ENVIRONMENT;
use std::sync::atomic::{AtomicBool, Ordering};

static ON: AtomicBool = AtomicBool::new(false);

/// Whether this process computes portable results.
pub fn on() -> bool {
    ON.load(Ordering::Relaxed)
}

/// From now on, this process computes portable results on so many threads. Must be called before the first tensor is
/// created. An error if the CPU or [`ENVIRONMENT`] do not allow it.
#[expect(clippy::disallowed_methods, reason = "results do depend on these variables, so they must be right")]
pub fn start(threads: usize) -> Result<()> {
    #[cfg(not(target_arch = "x86_64"))]
    anyhow::bail!("portable results are those of x86-64, and this is another machine; give determinism: Fast");
    #[cfg(target_arch = "x86_64")]
    ensure!(
        std::is_x86_feature_detected!("avx2") && std::is_x86_feature_detected!("fma"),
        "portable results need a CPU with AVX2 and FMA, which this one lacks; give determinism: Fast"
    );
    for (name, value) in ENVIRONMENT {
        let set = std::env::var(name).unwrap_or_default();
        ensure!(set == value, "portable results need the variable {name}={value}, it is '{set}'; `caco run` sets it");
    }
    tch::set_num_threads(1);
    bridge::start_crew(threads)?;
    ON.store(true, Ordering::Relaxed);
    Ok(())
}
