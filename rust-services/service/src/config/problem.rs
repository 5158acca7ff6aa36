// SPDX-License-Identifier: Apache-2.0
//! What a device finds wrong with its configuration, by the name of the key.

use crate::Exit;
use std::fmt::Display;
use std::ops::RangeInclusive;

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key within the device's table: names and array indices joined by dots, such as
    /// `streams.0.channels`; empty for the table itself; an option such as `--input` where the
    /// value came from the command line.
    pub key: String,
    /// What is wrong: "11 channels are more than a stream can have".
    pub message: String,
    /// What to write: "a number from 1 to 8".
    pub remedy: String,
    /// How the service ends because of it: [`Exit::Config`] unless the host is the cause.
    pub exit: Exit,
    /// The value is wrong whatever the rest of the table says.
    pub by_itself: bool,
}

/// All that is wrong, so that a person corrects it in one go.
#[derive(Debug, Default)]
pub struct Problems {
    list: Vec<Problem>,
}

impl Problems {
    /// Nothing wrong so far.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a problem.
    pub fn add(
        &mut self,
        key: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.lacking(Exit::Config, key, message, remedy);
    }

    /// Notes a problem of the host: what is configured is not there, or cannot be used.
    pub fn lacking(
        &mut self,
        exit: Exit,
        key: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.list.push(Problem {
            key: key.into(),
            message: message.into(),
            remedy: remedy.into(),
            exit,
            by_itself: false,
        });
    }

    /// Notes a value that is wrong whatever the rest says.
    fn add_by_itself(&mut self, key: impl Into<String>, message: String, remedy: String) {
        self.list.push(Problem {
            key: key.into(),
            message,
            remedy,
            exit: Exit::Config,
            by_itself: true,
        });
    }

    /// Notes a problem unless `value` is in the range.
    pub fn range<T: PartialOrd + Display>(
        &mut self,
        key: impl Into<String>,
        value: &T,
        range: RangeInclusive<T>,
    ) {
        if !range.contains(value) {
            let (least, most) = range.into_inner();
            self.add_by_itself(
                key,
                format!("{value} is out of range"),
                format!("a number from {least} to {most}"),
            );
        }
    }

    /// Notes a problem unless a list has so many `entries`.
    pub fn length(&mut self, key: impl Into<String>, entries: usize, range: RangeInclusive<usize>) {
        if !range.contains(&entries) {
            let (least, most) = range.into_inner();
            let entry = if entries == 1 { "entry" } else { "entries" };
            self.add_by_itself(
                key,
                format!("this list has {entries} {entry}"),
                format!("a list of {least} to {most}"),
            );
        }
    }

    /// Notes a problem unless `holds`.
    pub fn require(
        &mut self,
        holds: bool,
        key: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        if !holds {
            self.add(key, message, remedy);
        }
    }

    /// Takes over what a part of the configuration found, under the key of that part.
    pub fn part(&mut self, key: &str, part: &impl Validate) {
        let mut inner = Self::new();
        part.validate(&mut inner);
        self.list
            .extend(inner.list.into_iter().map(|problem| Problem {
                key: if problem.key.is_empty() {
                    key.to_owned()
                } else {
                    format!("{key}.{}", problem.key)
                },
                ..problem
            }));
    }

    /// Whether nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// What was found, in the order it was found in.
    #[must_use]
    pub fn into_list(self) -> Vec<Problem> {
        self.list
    }
}

/// A configuration that can say what is wrong with its values, beyond their types.
pub trait Validate {
    /// Notes everything that is wrong. Looks at nothing outside of `self`.
    fn validate(&self, problems: &mut Problems);
}

/// A device without options.
impl Validate for () {
    fn validate(&self, _problems: &mut Problems) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Stream {
        channels: u8,
    }

    impl Validate for Stream {
        fn validate(&self, problems: &mut Problems) {
            problems.range("channels", &self.channels, 1..=8);
            problems.require(self.channels != 0, "", "no sound at all", "a stream");
        }
    }

    #[test]
    fn the_keys_of_a_part_are_below_the_key_of_the_part() {
        let mut problems = Problems::new();
        problems.part("streams.1", &Stream { channels: 0 });
        problems.part("streams.2", &Stream { channels: 8 });
        let found = problems.into_list();
        let keys: Vec<&str> = found.iter().map(|problem| problem.key.as_str()).collect();
        assert_eq!(keys, ["streams.1.channels", "streams.1"]);
        assert_eq!(found[0].message, "0 is out of range");
        assert_eq!(found[0].remedy, "a number from 1 to 8");
    }

    #[test]
    fn a_list_that_is_too_short_is_told_its_length_and_not_a_value() {
        let mut problems = Problems::new();
        problems.length("positions", 1, 2..=18);
        problems.length("rates", 2, 2..=18);
        let found = problems.into_list();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].message, "this list has 1 entry");
        assert_eq!(found[0].remedy, "a list of 2 to 18");
        assert_eq!(found[0].exit, Exit::Config);
    }
}
