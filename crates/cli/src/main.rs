//! The `casemate` command: arguments in, one library call, text or JSON out.

mod args;
mod bundles;
mod commands;
mod demo;
mod failure;
mod installation;
mod keys;
mod output;
mod people;
mod scratch;
mod serving;
mod workload;

use std::process::ExitCode;

use args::{Cli, Command};
use casemate_spec::Kind;
use clap::{CommandFactory as _, Parser as _};
use failure::Failure;
use installation::Installation;

fn main() -> ExitCode {
    // The build starts helper processes from this binary; they speak their own protocol.
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some("service")
        && arguments.next().as_deref() == Some(serving::BUILD_HELPER)
    {
        return casemate_provenance::build::helper::main(&arguments.next().unwrap_or_default());
    }
    let cli = Cli::parse();
    match dispatch(&cli) {
        Ok(0) if output::was_lost() => {
            let lost = Failure::new(
                "CM-CLI-0003",
                Kind::Environment,
                "standard output could not be written",
            );
            lost.show(args::Format::Text);
            ExitCode::from(lost.exit_status())
        }
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            failure.show(cli.format);
            ExitCode::from(failure.exit_status())
        }
    }
}

fn dispatch(cli: &Cli) -> Result<u8, Failure> {
    let (dir, format) = (cli.dir.as_deref(), cli.format);
    let here = || Installation::find(dir);
    match &cli.command {
        Command::Run(args) => return commands::run::run(dir, args),
        Command::Doctor => commands::doctor::run(format)?,
        Command::Init(args) => commands::init::run(dir, format, args)?,
        Command::Serve(args) => commands::serve::run(&here()?, format, args)?,
        Command::Stop => commands::serve::stop(&here()?, format)?,
        Command::Measure(args) => commands::measure::run(dir, format, args)?,
        Command::Secret(command) => commands::secret::run(&here()?, format, command)?,
        Command::Build(args) => commands::build::run(&here()?, format, args)?,
        Command::Approve(args) => commands::approve::run(&here()?, format, args)?,
        Command::Sign(args) => commands::sign::run(&here()?, format, args)?,
        Command::Verify(args) => commands::verify::run(format, args)?,
        Command::Trace(args) => commands::trace::run(dir, format, args)?,
        Command::Ledger(command) => commands::ledger::run(dir, format, command)?,
        Command::Evidence(command) => commands::evidence::run(dir, format, command)?,
        Command::Trust(command) => commands::trust::run(&here()?, format, command)?,
        Command::Demo(args) => demo::run(args)?,
        Command::Completions { shell } => completions(*shell),
        Command::Man => man()?,
        Command::Service(service) => commands::service::run(*service)?,
    }
    Ok(0)
}

fn completions(shell: clap_complete::Shell) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "casemate", &mut script);
    output::raw(&script);
}

fn man() -> Result<(), Failure> {
    let mut page = Vec::new();
    let render = |page: &mut Vec<u8>| -> std::io::Result<()> {
        let mut command = Cli::command();
        command.build();
        clap_mangen::Man::new(command.clone()).render(page)?;
        for sub in command.get_subcommands().filter(|c| !c.is_hide_set()) {
            clap_mangen::Man::new(sub.clone()).render(page)?;
        }
        Ok(())
    };
    render(&mut page).map_err(|e| failure::io("manual page", &e))?;
    output::raw(&page);
    Ok(())
}
