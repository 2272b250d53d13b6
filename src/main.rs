//! The command `caco`: the engine and the command line.
//!
//! Its modules are compiled into the program itself instead of being taken from the library, because the library carries
//! libtorch, and its object files would bring it in: every `caco plan` would then wait for 450 MB to load.
#![allow(dead_code, unused_imports, reason = "the library offers more of these modules than the program uses")]

mod catalog;
mod cli;
mod display;
mod engine;
mod interval;
mod job;
mod metric;
mod predictions;
mod provenance;
mod pulse;
mod report;
mod rng;
mod score;
mod spec;

fn main() -> std::process::ExitCode {
    cli::main()
}
