// SPDX-License-Identifier: Apache-2.0

//! What was found, for a person, for a TAP harness and for programs.

use std::io::{self, Write};

use serde::Serialize;

use crate::checks::{Check, Outcome};
use crate::options::Options;
use crate::system::System;

/// A check and what it found.
#[derive(Debug, Serialize)]
pub(crate) struct Finding {
    name: &'static str,
    holds: &'static str,
    /// The type of device that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<&'static str>,
    #[serde(flatten)]
    outcome: Outcome,
}

/// A finished report.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// Checks that failed.
    pub(crate) failed: usize,
}

impl Finding {
    /// Does the check.
    pub(crate) fn of(check: &Check, system: &System, options: &Options) -> Self {
        let outcome = match (check.run)(system, options) {
            Outcome::Skipped { why }
                if check.device.is_some_and(|device| options.expects(device)) =>
            {
                Outcome::Failed {
                    why: format!("expected, and {why}"),
                }
            }
            outcome => outcome,
        };
        Self {
            name: check.name,
            holds: check.holds,
            device: check.device,
            outcome,
        }
    }

    fn failed(&self) -> bool {
        matches!(self.outcome, Outcome::Failed { .. })
    }
}

impl Report {
    /// Prints the findings as TAP, each as soon as it is there.
    pub(crate) fn tap(
        findings: impl Iterator<Item = Finding>,
        count: usize,
    ) -> Result<Self, io::Error> {
        Self::write_tap(&mut io::stdout().lock(), findings, count)
    }

    fn write_tap(
        out: &mut impl Write,
        findings: impl Iterator<Item = Finding>,
        count: usize,
    ) -> Result<Self, io::Error> {
        writeln!(out, "TAP version 14\n1..{count}")?;
        let mut failed = 0_usize;
        for (number, finding) in (1_usize..).zip(findings) {
            let Finding { name, holds, .. } = &finding;
            match &finding.outcome {
                Outcome::Passed { saw } => {
                    writeln!(out, "ok {number} - {name}: {holds}\n# {}", one_line(saw))
                }
                Outcome::Skipped { why } => {
                    writeln!(
                        out,
                        "ok {number} - {name}: {holds} # SKIP {}",
                        one_line(why)
                    )
                }
                Outcome::Failed { why } => {
                    writeln!(
                        out,
                        "not ok {number} - {name}: {holds}\n# {}",
                        one_line(why)
                    )
                }
            }?;
            out.flush()?;
            failed = failed.saturating_add(usize::from(finding.failed()));
        }
        Ok(Self { failed })
    }

    /// Prints all findings as one JSON object.
    pub(crate) fn json(findings: impl Iterator<Item = Finding>) -> Result<Self, io::Error> {
        let checks: Vec<_> = findings.collect();
        let failed = checks.iter().filter(|finding| finding.failed()).count();
        let object = serde_json::json!({
            "program": concat!("agl-virtio-selftest ", env!("CARGO_PKG_VERSION")),
            "failed": failed,
            "checks": checks,
        });
        let mut out = io::stdout().lock();
        serde_json::to_writer_pretty(&mut out, &object)?;
        writeln!(out)?;
        Ok(Self { failed })
    }
}

/// TAP ends a line's meaning at its end.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(name: &'static str, outcome: Outcome) -> Finding {
        Finding {
            name,
            holds: "it works",
            device: Some("snd"),
            outcome,
        }
    }

    fn findings() -> Vec<Finding> {
        vec![
            finding(
                "snd",
                Outcome::Passed {
                    saw: "a card".to_owned(),
                },
            ),
            finding(
                "can",
                Outcome::Failed {
                    why: "no driver\nat all".to_owned(),
                },
            ),
            finding(
                "rpmb",
                Outcome::Skipped {
                    why: "there is none".to_owned(),
                },
            ),
        ]
    }

    #[test]
    fn tap_has_a_plan_a_line_per_check_and_says_why() {
        let mut out = Vec::new();
        let report = Report::write_tap(&mut out, findings().into_iter(), 3).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "TAP version 14\n1..3\n\
             ok 1 - snd: it works\n# a card\n\
             not ok 2 - can: it works\n# no driver at all\n\
             ok 3 - rpmb: it works # SKIP there is none\n"
        );
        assert_eq!(report, Report { failed: 1 });
    }

    #[test]
    fn a_finding_in_json_has_its_result_beside_its_name() {
        let text = serde_json::to_value(findings()).unwrap();
        assert_eq!(text[0]["result"], "passed");
        assert_eq!(text[0]["device"], "snd");
        assert_eq!(text[0]["saw"], "a card");
        assert_eq!(text[1]["result"], "failed");
        assert_eq!(text[2]["name"], "rpmb");
    }

    #[test]
    fn what_is_expected_and_missing_fails() {
        let check = Check {
            name: "rpmb",
            holds: "it works",
            device: Some("rpmb"),
            run: |_, _| Outcome::Skipped {
                why: "there is none".to_owned(),
            },
        };
        let system = System::of_this_machine();
        let lenient = Options::default();
        assert!(!Finding::of(&check, &system, &lenient).failed());
        let strict = Options {
            expect: vec!["rpmb".to_owned()],
            ..Options::default()
        };
        assert!(Finding::of(&check, &system, &strict).failed());
    }
}
