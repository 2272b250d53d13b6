//! Training: the CaCo step, LARS, schedules, checkpoints, the loop.
