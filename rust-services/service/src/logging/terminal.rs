// SPDX-License-Identifier: Apache-2.0
//! Lines for a person: level, what, and from which device.

use super::Origin;
use log::{Level, Record};
use std::io::{IsTerminal, Write};

pub(super) struct Terminal {
    colour: bool,
}

impl Terminal {
    pub(super) fn standard_error() -> Self {
        // NO_COLOR with any value, as no-color.org says.
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            colour: std::io::stderr().is_terminal() && !refused,
        }
    }

    pub(super) fn write(&self, record: &Record<'_>, origin: Option<&Origin>) {
        // One write per line, so that lines of several processes do not mix.
        let line = self.line(record, origin);
        let _ = std::io::stderr().write_all(line.as_bytes());
    }

    fn line(&self, record: &Record<'_>, origin: Option<&Origin>) -> String {
        let (word, colour) = match record.level() {
            Level::Error => ("error", "\x1b[1;31m"),
            Level::Warn => ("warning", "\x1b[33m"),
            Level::Info => ("info", "\x1b[32m"),
            Level::Debug => ("debug", "\x1b[34m"),
            Level::Trace => ("trace", "\x1b[2m"),
        };
        let (on, off) = if self.colour {
            (colour, "\x1b[0m")
        } else {
            ("", "")
        };
        let place = origin
            .map(|origin| format!("{}/{}: ", origin.guest, origin.device))
            .unwrap_or_default();
        // What came from a guest must not be able to drive the terminal.
        let text: String = record
            .args()
            .to_string()
            .chars()
            .map(|c| {
                if c.is_control() && c != '\n' && c != '\t' {
                    '?'
                } else {
                    c
                }
            })
            .collect();
        format!("{on}{word}{off}: {place}{text}\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_of(colour: bool, message: &str) -> String {
        Terminal { colour }.line(
            &Record::builder()
                .args(format_args!("{message}"))
                .level(Level::Warn)
                .build(),
            Some(&Origin {
                guest: "ivi".to_owned(),
                device: "cabin".to_owned(),
            }),
        )
    }

    #[test]
    fn a_line_is_plain_without_a_terminal_and_coloured_on_one() {
        assert_eq!(line_of(false, "no card"), "warning: ivi/cabin: no card\n");
        assert_eq!(
            line_of(true, "no card"),
            "\x1b[33mwarning\x1b[0m: ivi/cabin: no card\n"
        );
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(line_of(false, "a\x1b[2Jb"), "warning: ivi/cabin: a?[2Jb\n");
    }
}
