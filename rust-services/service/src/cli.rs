// SPDX-License-Identifier: Apache-2.0
//! The part of the command line that all services share.

use clap::Args;
use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

/// Options of every service; a device adds its own beside them.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Options of every service")]
pub struct CommonArgs {
    /// Listen on this unix socket for the virtual machine monitor
    #[arg(long, value_name = "PATH", conflicts_with = "socket_fd")]
    pub socket: Option<PathBuf>,

    /// Take the listening socket from this inherited descriptor
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(3..))]
    pub socket_fd: Option<RawFd>,

    /// Keep progress in this inherited memory, which outlives the service (set by the keeper)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(3..))]
    pub record_fd: Option<RawFd>,

    /// Keep the configuration in use in this inherited memory, for a successor (set by the keeper)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(3..))]
    pub used_config_fd: Option<RawFd>,

    /// Read the guest's configuration from this TOML file; its name is the guest's name
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Serve this device of the file (may be left out where only one is of our type)
    #[arg(long, value_name = "NAME", value_parser = device_name)]
    pub device: Option<String>,

    /// Read the configuration, say what is wrong with it, and stop
    #[arg(long)]
    pub check: bool,

    /// Where to show the service on D-Bus: system, session, none, or an address
    #[arg(long, value_name = "BUS", default_value = "system")]
    pub bus: BusChoice,

    /// Run without landlock, seccomp and dropped capabilities, to debug
    #[arg(long)]
    pub no_sandbox: bool,

    /// Say this much: off, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info", value_parser = level)]
    pub log: log::LevelFilter,
}

impl Default for CommonArgs {
    /// A command line that says nothing.
    fn default() -> Self {
        Self {
            socket: None,
            socket_fd: None,
            record_fd: None,
            used_config_fd: None,
            config: None,
            device: None,
            check: false,
            bus: BusChoice::System,
            no_sandbox: false,
            log: log::LevelFilter::Info,
        }
    }
}

/// Which message bus to be on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum BusChoice {
    /// The system bus, or what DBUS_SYSTEM_BUS_ADDRESS says.
    #[default]
    System,
    /// The session bus of the user.
    Session,
    /// No bus at all.
    None,
    /// A bus at this D-Bus address.
    Address(String),
}

impl std::str::FromStr for BusChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "system" => Ok(Self::System),
            "session" => Ok(Self::Session),
            "none" => Ok(Self::None),
            address if address.contains(':') => Ok(Self::Address(address.to_owned())),
            _ => Err("write system, session, none, or an address such as \
                       unix:path=/run/dbus/system_bus_socket"
                .to_owned()),
        }
    }
}

impl std::fmt::Display for BusChoice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::System => "system",
            Self::Session => "session",
            Self::None => "none",
            Self::Address(address) => address,
        })
    }
}

/// What a command line shows about a service.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// The name of the program, such as `agl-virtio-snd`.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// One line about what it does.
    pub about: &'static str,
    /// Complete example command lines, one a line, each with what it does above it.
    pub examples: &'static str,
}

/// What was asked for.
#[derive(Debug, Clone)]
pub struct CommandLine<A> {
    /// What every service understands.
    pub common: CommonArgs,
    /// What only this device understands.
    pub device: A,
}

/// Reads a command line. The error is shown with `clap::Error::print` and is also how
/// `--help` and `--version` come out; [`exit_of`] says which it was.
///
/// # Errors
/// The message for the person who typed.
pub fn parse<A: Args>(
    program: &Program,
    words: impl IntoIterator<Item = OsString>,
) -> Result<CommandLine<A>, clap::Error> {
    let command = clap::Command::new(program.name)
        .version(program.version)
        .after_help(format!("Examples:\n{}", program.examples));
    let command = CommonArgs::augment_args(A::augment_args(
        command.next_help_heading("Options of this device"),
    ))
    // After the options: their own documentation would take this place.
    .about(program.about)
    .long_about(program.about);
    let matches = command.try_get_matches_from(words)?;
    Ok(CommandLine {
        common: <CommonArgs as clap::FromArgMatches>::from_arg_matches(&matches)?,
        device: A::from_arg_matches(&matches)?,
    })
}

/// The code to end with after `parse` failed: 0 for help and version, 64 for a mistake.
#[must_use]
pub fn exit_of(error: &clap::Error) -> crate::Exit {
    if error.use_stderr() {
        crate::Exit::Usage
    } else {
        crate::Exit::Ok
    }
}

/// A name that can be one on D-Bus and in paths.
fn device_name(text: &str) -> Result<String, &'static str> {
    if crate::config::is_name(text) {
        Ok(text.to_owned())
    } else {
        Err("write 1 to 64 letters, digits, - and _")
    }
}

/// How much is said.
fn level(text: &str) -> Result<log::LevelFilter, &'static str> {
    text.parse()
        .map_err(|_| "write off, error, warn, info, debug or trace")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Args)]
    struct Own {
        /// A tone instead of music
        #[arg(long)]
        tone: Option<u32>,
    }

    const PROGRAM: Program = Program {
        name: "agl-virtio-test",
        version: "1.2.3",
        about: "Serves a test",
        examples: "  agl-virtio-test --socket /run/test.sock",
    };

    #[test]
    fn help_begins_with_what_the_program_does() {
        for word in ["-h", "--help"] {
            let help = read(&[word]).unwrap_err().to_string();
            assert!(help.starts_with("Serves a test\n"), "{help}");
        }
    }

    fn read(words: &[&str]) -> Result<CommandLine<Own>, clap::Error> {
        let words = std::iter::once("agl-virtio-test").chain(words.iter().copied());
        parse(&PROGRAM, words.map(OsString::from))
    }

    #[test]
    fn common_and_own_options_stand_side_by_side() {
        let line = read(&["--socket", "/run/a", "--tone", "440", "--log", "DEBUG"]).unwrap();
        assert_eq!(line.common.socket.unwrap().as_os_str(), "/run/a");
        assert_eq!(line.common.log, log::LevelFilter::Debug);
        assert_eq!(line.common.bus, BusChoice::System);
        assert_eq!(line.device.tone, Some(440));
    }

    #[test]
    fn help_has_the_examples_and_both_kinds_of_options_and_is_no_error() {
        let error = read(&["--help"]).unwrap_err();
        let text = error.to_string();
        for part in [
            "Examples:",
            "--socket /run/test.sock",
            "--tone",
            "--record-fd",
        ] {
            assert!(text.contains(part), "{part} is missing from:\n{text}");
        }
        assert_eq!(exit_of(&error), crate::Exit::Ok);
    }

    #[test]
    fn the_version_is_told() {
        let error = read(&["--version"]).unwrap_err();
        assert_eq!(error.to_string(), "agl-virtio-test 1.2.3\n");
    }

    #[test]
    fn mistakes_say_what_to_write_and_end_with_64() {
        for (words, hint) in [
            (&["--sockte", "/run/a"][..], "--socket"),
            (&["--socket-fd", "1"], "3.."),
            (&["--device", ""], "write 1 to 64 letters"),
            (&["--device", "a/b"], "write 1 to 64 letters"),
            (&["--bus", "sesion"], "write system, session, none"),
            (
                &["--socket", "/a", "--socket-fd", "3"],
                "cannot be used with",
            ),
        ] {
            let error = read(words).unwrap_err();
            assert!(error.to_string().contains(hint), "{error}");
            assert_eq!(exit_of(&error), crate::Exit::Usage);
        }
    }

    #[test]
    fn a_bus_address_is_taken_as_it_is() {
        let line = read(&["--bus", "unix:path=/tmp/b"]).unwrap();
        assert_eq!(line.common.bus.to_string(), "unix:path=/tmp/b");
    }
}
