// SPDX-License-Identifier: Apache-2.0
//! What a guest's own self-test (`agl-virtio-selftest --json`) has found of its devices.
//!
//! A service cannot know whether a device works for its guest: a driver may be missing, or hear
//! nothing of it. Only the guest can tell, and it is believed only about itself.

use crate::foreign::sentence;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A report is shorter than this. In bytes.
const LONGEST: usize = 256 << 10;
/// What is kept of a sentence of the guest's. In characters.
const LONGEST_NOTE: usize = 200;
/// So many types are kept of a report.
const MOST_TYPES: usize = 64;

/// Whether a device was found to work in its guest.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Conformance {
    /// No report says anything about it.
    #[default]
    Untested,
    /// No check of its type failed, and one at least was made.
    Passed,
    /// A check of its type failed.
    Failed,
    /// The report is of an earlier boot of the guest.
    Outdated,
}

impl Conformance {
    /// The word on the bus.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Untested => "untested",
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Outdated => "outdated",
        }
    }
}

/// Why a text is no report.
#[derive(Debug, thiserror::Error)]
pub enum SelftestError {
    /// A report is never so long.
    #[error("a report has at most {LONGEST} bytes: give the output of agl-virtio-selftest --json")]
    Long,
    /// It is something else.
    #[error("this is no report ({0}): give the output of agl-virtio-selftest --json")]
    Form(#[from] serde_json::Error),
    /// It is of a self-test that did not say which devices its checks are about, or of an empty
    /// one.
    #[error("the report has no check of a device: update agl-virtio-selftest in the guest")]
    Empty,
}

/// What a report says about the devices of a type.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct OfType {
    passed: u32,
    skipped: u32,
    /// The checks that failed, with why.
    failed: Vec<String>,
}

/// A report, as far as it is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selftest {
    /// Which program made it.
    program: String,
    /// When the guest that made it had started, in microseconds since 1970.
    of_start: u64,
    types: BTreeMap<String, OfType>,
}

#[derive(Deserialize)]
struct Report {
    program: String,
    checks: Vec<Check>,
}

#[derive(Deserialize)]
struct Check {
    name: String,
    /// The device type that it is about; none where it is about all of them.
    device: Option<String>,
    result: Outcome,
    #[serde(default)]
    why: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Outcome {
    Passed,
    Failed,
    Skipped,
}

impl Selftest {
    /// Reads a report, which a guest has written: it may be anything.
    ///
    /// # Errors
    /// See [`SelftestError`].
    pub fn read(report: &str) -> Result<Self, SelftestError> {
        if report.len() > LONGEST {
            return Err(SelftestError::Long);
        }
        let report: Report = serde_json::from_str(report)?;
        let mut types: BTreeMap<String, OfType> = BTreeMap::new();
        for check in report.checks {
            let Some(device) = check.device else {
                continue;
            };
            let device = plain(&device);
            if types.len() >= MOST_TYPES && !types.contains_key(&device) {
                continue;
            }
            let of_type = types.entry(device).or_default();
            match check.result {
                Outcome::Passed => of_type.passed = of_type.passed.saturating_add(1),
                Outcome::Skipped => of_type.skipped = of_type.skipped.saturating_add(1),
                Outcome::Failed => {
                    let failed = format!("{}: {}", check.name, check.why);
                    of_type.failed.push(plain(&failed));
                }
            }
        }
        if types.is_empty() {
            return Err(SelftestError::Empty);
        }
        Ok(Self {
            program: plain(&report.program),
            of_start: 0,
            types,
        })
    }

    /// The report of the guest that started at this time, in microseconds since 1970.
    pub(super) fn of(mut self, started_usec: u64) -> Self {
        self.of_start = started_usec;
        self
    }

    /// What it says about a device of this type, in a word and in a sentence, for a guest that
    /// started at this time or (0) does not run.
    pub(super) fn about(&self, device_type: &str, started_usec: u64) -> (Conformance, String) {
        let Some(found) = self.types.get(device_type) else {
            return Default::default();
        };
        let word = if started_usec != 0 && started_usec != self.of_start {
            Conformance::Outdated
        } else if !found.failed.is_empty() {
            Conformance::Failed
        } else if found.passed > 0 {
            Conformance::Passed
        } else {
            Conformance::Untested
        };
        let mut note = format!(
            "{}: {} passed, {} failed, {} skipped",
            self.program,
            found.passed,
            found.failed.len(),
            found.skipped
        );
        if let Some(first) = found.failed.first() {
            note.push_str("; ");
            note.push_str(first);
        }
        (word, note)
    }
}

fn plain(text: &str) -> String {
    sentence(text, LONGEST_NOTE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(checks: &str) -> String {
        format!(r#"{{"program": "agl-virtio-selftest 1.0", "failed": 0, "checks": [{checks}]}}"#)
    }

    const PLAYS: &str =
        r#"{"name": "playback", "holds": "", "device": "snd", "result": "passed", "saw": "1 s"}"#;
    const DEAF: &str =
        r#"{"name": "capture", "holds": "", "device": "snd", "result": "failed", "why": "still"}"#;
    const NO_CAN: &str =
        r#"{"name": "can", "holds": "", "device": "can", "result": "skipped", "why": "none"}"#;
    const ALL: &str = r#"{"name": "drivers", "holds": "", "result": "passed", "saw": "all"}"#;

    fn words(checks: &[&str], device_type: &str) -> (Conformance, String) {
        let read = Selftest::read(&report(&checks.join(", "))).unwrap();
        read.of(7).about(device_type, 7)
    }

    #[test]
    fn a_type_has_passed_when_a_check_was_made_and_none_failed() {
        let (word, note) = words(&[ALL, PLAYS, NO_CAN], "snd");
        assert_eq!(word, Conformance::Passed);
        let counts = "agl-virtio-selftest 1.0: 1 passed, 0 failed, 0 skipped";
        assert_eq!(note, counts);
        assert_eq!(words(&[PLAYS, NO_CAN], "can").0, Conformance::Untested);
        assert_eq!(words(&[PLAYS, NO_CAN], "rpmb").0, Conformance::Untested);
    }

    #[test]
    fn a_check_that_failed_counts_more_than_all_that_passed_and_is_named() {
        let (word, note) = words(&[PLAYS, DEAF, PLAYS], "snd");
        assert_eq!(word, Conformance::Failed);
        assert!(note.ends_with("2 passed, 1 failed, 0 skipped; capture: still"));
    }

    #[test]
    fn a_report_of_an_earlier_start_is_outdated_and_one_of_a_stopped_guest_is_its_last() {
        let read = Selftest::read(&report(PLAYS)).unwrap().of(7);
        assert_eq!(read.about("snd", 8).0, Conformance::Outdated);
        assert_eq!(read.about("snd", 0).0, Conformance::Passed);
    }

    #[test]
    fn a_guest_writes_neither_too_much_nor_to_a_person_s_terminal() {
        assert!(matches!(
            Selftest::read(&" ".repeat(LONGEST + 1)),
            Err(SelftestError::Long)
        ));
        for text in [
            "",
            "{}",
            "[]",
            "ok 1 - card",
            r#"{"program": 1, "checks": []}"#,
        ] {
            assert!(matches!(Selftest::read(text), Err(SelftestError::Form(_))));
        }
        for text in [report(""), report(ALL)] {
            assert!(matches!(Selftest::read(&text), Err(SelftestError::Empty)));
        }
        let why = "\\u001b[2J\\n".repeat(1000);
        let hostile = DEAF.replace("still", &why);
        let (_, note) = words(&[&hostile], "snd");
        assert!(
            !note.contains('\u{1b}') && note.chars().count() < 300,
            "{note}"
        );
        let types: Vec<String> = (0..1000)
            .map(|number| PLAYS.replace("snd", &format!("type{number}")))
            .collect();
        let read = Selftest::read(&report(&types.join(","))).unwrap();
        assert_eq!(read.types.len(), MOST_TYPES);
    }

    #[test]
    fn every_state_has_a_word_of_its_own() {
        let all = [
            Conformance::Untested,
            Conformance::Passed,
            Conformance::Failed,
            Conformance::Outdated,
        ];
        let words: std::collections::BTreeSet<_> = all.map(Conformance::word).into();
        assert_eq!(words.len(), all.len());
    }
}
