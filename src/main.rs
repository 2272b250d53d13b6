//! The command `caco`: arguments and printing, over the runner's crates. It never links libtorch.

// These panic where the stream is closed or full. Messages are printed with `say!`.
#![deny(clippy::print_stderr, clippy::print_stdout)]

#[macro_use]
mod display;
mod cli;
mod registry;

fn main() -> std::process::ExitCode {
    cli::main()
}
