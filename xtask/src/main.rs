//! What the project's developers run: `cargo xtask test`, `sim`, `vm`, `fuzz` and `bench`.

mod bench;
mod context;
mod e2e;
mod fuzz;
mod packages;
mod process;
mod races;
mod random;
mod sim;
mod targets;
mod test;
mod vm;
mod vm_command;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer tasks of ringfence")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run every check: format, lints, unit tests, and the end-to-end tests with real clients
    Test(test::Arguments),
    /// Build the guest image and boot a guest, or run a command in one
    Vm(vm_command::Arguments),
    /// Fuzz the parsers of everything that comes from outside
    Fuzz(fuzz::Arguments),
    /// Run model-checked campaigns: the volume manager on simulated disks, or races of fence domains
    Sim(sim::Arguments),
    /// Measure ringfence beside tgt and beside a responder that touches no disk
    Bench(bench::Arguments),
    /// One PREEMPT, for the loop that `bench --part fence` measures
    #[command(hide = true)]
    FenceOnce(bench::fence::Once),
}

fn main() -> ExitCode {
    let result = match Arguments::parse().task {
        Task::Test(arguments) => test::run(&arguments),
        Task::Vm(arguments) => vm_command::run(&arguments),
        Task::Fuzz(arguments) => fuzz::run_task(&arguments),
        Task::Sim(arguments) => sim::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::FenceOnce(arguments) => bench::fence::once(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
