// SPDX-License-Identifier: Apache-2.0

//! `agl-virtio-keeper`: holds a VMM's connection while its device service comes and goes.
//!
//! To a VMM the keeper is the back end; the service behind it may die or be updated, and the guest
//! sees a pause. See `--help`.
#![forbid(unsafe_code)]

mod attached;
mod child;
#[cfg(feature = "crash-points")]
mod crash_points;
mod error;
mod keeper;
mod options;
mod private_socket;
mod restart;
mod session;
mod signals;
mod watchdog;

use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;

use agl_virtio_service::listener::{handed_over, listen};
use agl_virtio_service::notify::Notifier;
use agl_virtio_service::{Exit, ExitReason, explain, logging};
use clap::Parser;
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::attached::Attached;
use crate::error::KeeperError;
use crate::keeper::Keeper;
use crate::options::Options;

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            // Help and version are no mistakes.
            let exit = if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Ok
            };
            let _ = error.print();
            return exit.into();
        }
    };
    logging::start("agl-virtio-keeper", options.log);
    match run(&options) {
        Ok(exit) => exit,
        Err(error) => {
            log::error!("{}", explain(&error));
            error.exit().into()
        }
    }
}

/// Where it listens, and for whom.
fn greeting(options: &Options, listener: &UnixListener) -> String {
    let address = listener.local_addr().ok();
    let socket = address.as_ref().and_then(|address| address.as_pathname());
    let socket = socket.map_or_else(|| "an inherited socket".into(), Path::to_string_lossy);
    match (&options.attach, options.service.first()) {
        (Some(service), _) => format!(
            "listens on {socket} for the service at {}",
            service.display()
        ),
        (None, program) => {
            let program = program.map(|program| program.to_string_lossy());
            format!("listens on {socket} for {}", program.unwrap_or_default())
        }
    }
}

fn run(options: &Options) -> Result<ExitCode, KeeperError> {
    // A guest's memory may be told in hundreds of regions, each with a descriptor.
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        log::debug!("cannot raise the limit of open files: {error}");
    }
    let listener = listen(&options.socket_arguments(), None)?;
    log::info!("{}", greeting(options, &listener));
    let notifier = Notifier::from_environment().map_err(KeeperError::Notify)?;
    let exit = match &options.attach {
        Some(service) => Attached::new(service, options.grace, listener, notifier)?.run(),
        None => Keeper::new(options, listener, notifier)?.run(),
    };
    if let Some(path) = options.socket.as_ref().filter(|_| handed_over() == 0) {
        let _ = std::fs::remove_file(path);
    }
    exit
}
