//! The engineer's and the operator's command line.
//!
//! * [`cmd`] has one file per family of commands: arguments, calls, what is shown.
//! * [`api`] calls the controller and trusts one CA; [`home`] keeps the person's files.
//! * [`lane`] brings one lane up on this machine, holds it and takes it down.
//! * [`system`] is what differs between operating systems.
//! * [`out`] shows things: tables, JSON, times; [`failure`] is how everything fails.
#![forbid(unsafe_code)]
// The examples in the help show addresses as they are typed.
#![allow(rustdoc::bare_urls)]

mod api;
mod args;
mod cmd;
mod context;
mod failure;
mod home;
mod lane;
mod out;
mod secret;
mod system;

use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

use crate::args::Cli;
use crate::context::Context;
use crate::failure::Failure;
use crate::out::Out;

fn main() -> ExitCode {
    system::process::with_room(start)
}

fn start() -> ExitCode {
    std::panic::set_hook(Box::new(tell_panic));
    let cli = match args::from_environment_too(std::env::args_os()) {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to stdout and is no failure; clap knows which is which.
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            let _ = error.print();
            return ExitCode::from(code);
        }
    };
    // Before files, threads and logs: nothing of ours may be left in what it becomes.
    if let args::Command::Inside(inside) = &cli.command {
        let failure = lane::child::become_command(inside);
        Out::new(cli.global.json, cli.global.quiet).failure(&failure);
        return ExitCode::from(failure.exit.code());
    }
    let filter = log_filter(std::env::var("THINLANE_LOG").ok().as_deref());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();

    let out = Out::new(cli.global.json, cli.global.quiet);
    match run(cli, out) {
        Ok(()) => ExitCode::SUCCESS,
        Err((out, failure)) => {
            out.failure(&failure);
            ExitCode::from(failure.exit.code())
        }
    }
}

/// What is logged where `THINLANE_LOG` asks for it; of the library that encrypts only if it is asked for by name, for its
/// warnings are of messages that were lost, and what becomes of a lane is said by us.
fn log_filter(asked: Option<&str>) -> EnvFilter {
    let asked = asked.unwrap_or("off");
    let filter = EnvFilter::try_new(asked).unwrap_or_else(|_| EnvFilter::new("off"));
    if asked.contains("boringtun") {
        return filter;
    }
    filter.add_directive("boringtun=off".parse().expect("a target and a level"))
}

fn run(cli: Cli, out: Out) -> Result<(), (Out, Failure)> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| (out, failure::io("start")(error)))?;
    let context = Context::new(&cli.global, out).map_err(|failure| (out, failure))?;
    let out = context.out;
    let done = runtime.block_on(Box::pin(cmd::run(&context, cli.command)));
    // A read of stdin may hang for ever on its thread; nobody waits for it.
    runtime.shutdown_background();
    done.map_err(|failure| (out, failure))
}

/// A panic is a bug; it is told in the same form as every other failure.
fn tell_panic(info: &std::panic::PanicHookInfo<'_>) {
    let what = info.payload().downcast_ref::<&str>().copied();
    let what =
        what.or_else(|| info.payload().downcast_ref::<String>().map(String::as_str)).unwrap_or("it gave no reason");
    let place = info.location().map(|at| format!(" ({}:{})", at.file(), at.line())).unwrap_or_default();
    eprintln!("error: thinlane itself failed: {what}{place}\nnext: please report this line");
}
