// SPDX-License-Identifier: Apache-2.0
//! How a service ends: the codes of `sysexits.h`, which systemd and people know.

use std::process::ExitCode;

/// Why the process ends. The numbers are those of `sysexits.h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// All went well.
    Ok = 0,
    /// The command line is wrong (`EX_USAGE`).
    Usage = 64,
    /// A file that was named holds something else (`EX_DATAERR`).
    Data = 65,
    /// A file that was named cannot be read (`EX_NOINPUT`).
    NoInput = 66,
    /// Something the service needs is not there, such as a sound card (`EX_UNAVAILABLE`).
    Unavailable = 69,
    /// A fault of the service itself (`EX_SOFTWARE`).
    Software = 70,
    /// The operating system refused something that should work (`EX_OSERR`).
    Os = 71,
    /// A file or folder that is to be written cannot be made (`EX_CANTCREAT`).
    CannotCreate = 73,
    /// Input or output failed (`EX_IOERR`).
    Io = 74,
    /// The service may not do what it was told to (`EX_NOPERM`).
    NoPermission = 77,
    /// The configuration is wrong (`EX_CONFIG`). A restart does not help.
    Config = 78,
}

impl Exit {
    /// The number that the parent process sees.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// An error that knows how the process should end because of it.
pub trait ExitReason: std::error::Error {
    /// The code for this error.
    fn exit(&self) -> Exit {
        Exit::Software
    }
}

impl ExitReason for std::io::Error {
    fn exit(&self) -> Exit {
        match self.kind() {
            std::io::ErrorKind::NotFound => Exit::NoInput,
            std::io::ErrorKind::PermissionDenied => Exit::NoPermission,
            _ => Exit::Os,
        }
    }
}

/// The error and all its causes in one line, as a person reads them.
#[must_use]
pub fn explain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        // Many errors already repeat their cause: say it once.
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_those_of_sysexits() {
        let table = [
            (Exit::Ok, 0),
            (Exit::Usage, 64),
            (Exit::Data, 65),
            (Exit::NoInput, 66),
            (Exit::Unavailable, 69),
            (Exit::Software, 70),
            (Exit::Os, 71),
            (Exit::CannotCreate, 73),
            (Exit::Io, 74),
            (Exit::NoPermission, 77),
            (Exit::Config, 78),
        ];
        for (exit, number) in table {
            assert_eq!(exit.code(), number);
        }
    }

    #[test]
    fn a_cause_is_said_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("cannot read it: {0}")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("no such card"));
        assert_eq!(explain(&error), "cannot read it: no such card");
    }
}
