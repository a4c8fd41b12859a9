//! The `isobar` program: arguments in, exit code out. Everything else is in the library.

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    isobar::cli::main(std::env::args_os())
}
