//! The GPU's path on a machine without one: the real programs and PyTorch's real CUDA libraries on a fake of NVIDIA's,
//! which computes nothing (`cuda/fake.h`). `scripts/fake-cuda.sh` builds it; where it was not run, these tests are
//! skipped.

mod check;
mod choice;
mod machine;
mod memory;
mod numeric;
mod stage;
mod step;
mod transfer;
