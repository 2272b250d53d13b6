//! The command `caco`: arguments and printing, over the runner's crates. It never links libtorch.

mod cli;
mod display;
mod registry;

fn main() -> std::process::ExitCode {
    cli::main()
}
