// SPDX-License-Identifier: Apache-2.0

//! The command line.

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;

use agl_virtio_service::cli::CommonArgs;
use clap::Parser;

const EXAMPLES: &str = "\
Examples:
  agl-virtio-keeper --socket /run/agl-virtio/ivi-snd.sock -- agl-virtio-snd --config /etc/agl-virtio/ivi.toml
  systemd-socket-activate -l /tmp/snd.sock agl-virtio-keeper -- agl-virtio-snd
  agl-virtio-keeper --socket /run/agl-virtio/ivi-can.sock --attach /run/agl-virtio/powertrain-ivi.sock

The service is started as PROGRAM ARGUMENTS --socket-fd N --record-fd M --used-config-fd K, and
started again when it dies: the guest sees a pause. With --attach it is another keeper that starts it: this one holds the
connection of a further guest of a service that has several, such as controllers on one CAN bus.

Signals: SIGTERM ends the service, then the keeper. SIGHUP runs PROGRAM ARGUMENTS --record-fd M
--check and, when it agrees, puts the program as it is now on disk in the place of the running
one; the guest goes on. What its driver knows of the device stays as it is until its virtual machine
monitor starts anew, also when the configuration file says otherwise.";

/// Holds a VMM's connection while its device service comes and goes
#[derive(Debug, Parser)]
#[command(name = "agl-virtio-keeper", version, after_help = EXAMPLES)]
pub(crate) struct Options {
    /// Listen on this unix socket for the virtual machine monitor
    #[arg(long, value_name = "PATH", conflicts_with = "socket_fd")]
    pub(crate) socket: Option<PathBuf>,

    /// Take the listening socket from this inherited descriptor
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(3..))]
    pub(crate) socket_fd: Option<RawFd>,

    /// Hang up on the virtual machine monitor when there is no service for so long, such as 5s or
    /// 500ms
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    pub(crate) grace: Duration,

    /// Replace a service that has given no sign of life for so long
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub(crate) watchdog: Duration,

    /// Say this much: off, error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info", ignore_case = true)]
    pub(crate) log: log::LevelFilter,

    /// Start no service: find one at this socket, again and again
    #[arg(long, value_name = "PATH", conflicts_with = "service")]
    pub(crate) attach: Option<PathBuf>,

    /// The service and its arguments
    #[arg(
        last = true,
        required_unless_present = "attach",
        value_name = "PROGRAM ARGUMENTS"
    )]
    pub(crate) service: Vec<OsString>,
}

impl Options {
    /// The part that finds the listening socket, the same as for every service.
    pub(crate) fn socket_arguments(&self) -> CommonArgs {
        CommonArgs {
            socket: self.socket.clone(),
            socket_fd: self.socket_fd,
            ..CommonArgs::default()
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let parse = |number: &str| number.parse::<u64>().ok();
    let duration = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => parse(number).map(Duration::from_millis),
        (None, Some(number)) => parse(number).map(Duration::from_secs),
        (None, None) => None,
    };
    duration
        .filter(|duration| {
            (Duration::from_millis(100)..=Duration::from_secs(3600)).contains(duration)
        })
        .ok_or_else(|| "give a time of 100ms to 3600s, such as 5s or 500ms".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_comes_after_two_dashes() {
        let line = "keeper --socket /a --grace 500ms -- snd --config /b";
        let options = Options::try_parse_from(line.split(' ')).unwrap();
        assert_eq!(options.service, ["snd", "--config", "/b"]);
        assert_eq!(options.grace, Duration::from_millis(500));
        assert!(Options::try_parse_from(["keeper", "--socket", "/a"]).is_err());
        let line = "keeper --socket /a --attach /b";
        let options = Options::try_parse_from(line.split(' ')).unwrap();
        assert_eq!(options.attach.as_deref(), Some("/b".as_ref()));
        let both = "keeper --socket /a --attach /b -- snd";
        assert!(Options::try_parse_from(both.split(' ')).is_err());
    }

    #[test]
    fn times_are_read_with_their_unit() {
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("100ms"), Ok(Duration::from_millis(100)));
        for wrong in [
            "5",
            "",
            "s",
            "-1s",
            "99ms",
            "3601s",
            "18446744073709551616s",
        ] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
