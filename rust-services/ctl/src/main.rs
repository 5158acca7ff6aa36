// SPDX-License-Identifier: Apache-2.0
//! agl-virtioctl: guests and their devices at a terminal.
#![forbid(unsafe_code)]

mod actions;
mod error;
mod host;
mod monitor;
mod options;
mod pages;
mod report;
mod screen;
mod show;
mod snapshot;
mod table;
mod top;
mod views;

use agl_virtio_client::zbus::Connection;
use agl_virtio_service::{Exit, ExitReason, cli};
use clap::Parser;
use error::CtlError;
use options::{Command, Common, Options};
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// The manager answers a start when the guest runs, which may take a minute.
const ANSWER: Duration = Duration::from_secs(120);

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            let _ = error.print();
            return cli::exit_of(&error).into();
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let result = match runtime {
        Ok(runtime) => runtime.block_on(run(&options)),
        Err(error) => Err(CtlError::Terminal(error)),
    };
    match result {
        Ok(()) | Err(CtlError::ReaderLeft) => Exit::Ok.into(),
        Err(error) => {
            eprintln!("agl-virtioctl: {error}");
            error.exit().into()
        }
    }
}

async fn run(options: &Options) -> Result<(), CtlError> {
    let common = &options.common;
    match &options.command {
        Command::Show {
            guest: None,
            file: Some(file),
            ..
        }
        | Command::Show {
            file: Some(file), ..
        } => show::file(file, common.json),
        Command::Check { files } if !files.is_empty() => show::check_files(files, common.json),
        Command::Check { .. } => host::check(common.json),
        Command::Completion { shell } => pages::completion(*shell),
        Command::Man { folder } => pages::manual(folder),
        command => on_bus(command, common).await,
    }
}

async fn on_bus(command: &Command, common: &Common) -> Result<(), CtlError> {
    let bus = connect(common).await?;
    match command {
        Command::List => views::list(&snapshot::take(&bus).await?, common.json),
        Command::Status { guest } => {
            let guests = snapshot::take(&bus).await?;
            views::status(&guests, guest.as_deref(), common.json)
        }
        Command::Monitor => monitor::follow(&bus, common.json).await,
        Command::Top { interval } => top::run(&bus, *interval, common.json).await,
        Command::Report => report::write(&bus).await,
        Command::Show {
            guest: Some(guest),
            command,
            ..
        } => show::guest(&bus, guest, *command, common.json).await,
        command => actions::act(&bus, command, common.json).await,
    }
}

async fn connect(common: &Common) -> Result<Connection, CtlError> {
    agl_virtio_service::bus::connect(&common.bus, ANSWER)
        .await
        .map_err(|error| CtlError::Bus(error.to_string()))
}

/// Writes to standard output.
///
/// # Errors
/// A reader that left, such as `head`, has seen enough: that ends the program, and is no failure.
fn say(text: &str) -> Result<(), CtlError> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::BrokenPipe => CtlError::ReaderLeft,
        _ => CtlError::Terminal(error),
    })
}

/// Writes something as JSON.
fn say_json(value: &impl serde::Serialize) -> Result<(), CtlError> {
    let text = serde_json::to_string_pretty(value)
        .map_err(|error| CtlError::Terminal(std::io::Error::other(error)))?;
    say(&format!("{text}\n"))
}
