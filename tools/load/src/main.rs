//! `kontiki-load`: reads the command line and runs one subcommand.

use std::process::ExitCode;

fn main() -> ExitCode {
    kontiki_load::cli::main()
}
