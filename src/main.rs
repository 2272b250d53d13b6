//! The command `caco`.

fn main() -> std::process::ExitCode {
    caco::cli::main()
}
