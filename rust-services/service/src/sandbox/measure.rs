// SPDX-License-Identifier: Apache-2.0
//! What became of each measure.

use std::collections::BTreeMap;
use std::fmt;

/// What became of one measure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Measure {
    /// In force; in words how far.
    Applied(String),
    /// The kernel can do only a part; in words which.
    Partly(String),
    /// Not in force; in words why.
    Refused(String),
    /// Not wanted (`--no-sandbox`).
    Off,
}

impl fmt::Display for Measure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Applied(text) => write!(f, "yes ({text})"),
            Self::Partly(text) => write!(f, "partly ({text})"),
            Self::Refused(text) => write!(f, "NO ({text})"),
            Self::Off => f.write_str("off"),
        }
    }
}

/// All measures of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxReport {
    /// Executing a set-uid program gives nothing.
    pub no_new_privileges: Measure,
    /// Capabilities are given up.
    pub capabilities: Measure,
    /// Files, TCP and signals are restricted by landlock.
    pub files: Measure,
    /// System calls are restricted by seccomp.
    pub system_calls: Measure,
    /// A crash writes no guest memory to disk.
    pub core_dumps: Measure,
    /// Other processes of the same user cannot attach.
    pub not_traceable: Measure,
    /// The number of descriptors is limited.
    pub open_files: Measure,
}

impl SandboxReport {
    pub(super) const fn off() -> Self {
        Self {
            no_new_privileges: Measure::Off,
            capabilities: Measure::Off,
            files: Measure::Off,
            system_calls: Measure::Off,
            core_dumps: Measure::Off,
            not_traceable: Measure::Off,
            open_files: Measure::Off,
        }
    }

    /// Every measure with its name, as shown on D-Bus.
    #[must_use]
    pub fn measures(&self) -> BTreeMap<&'static str, &Measure> {
        BTreeMap::from([
            ("NoNewPrivileges", &self.no_new_privileges),
            ("Capabilities", &self.capabilities),
            ("Landlock", &self.files),
            ("Seccomp", &self.system_calls),
            ("NoCoreDumps", &self.core_dumps),
            ("NotTraceable", &self.not_traceable),
            ("OpenFiles", &self.open_files),
        ])
    }

    /// Whether everything that was wanted is in force as far as the kernel knows it.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        !self
            .measures()
            .values()
            .any(|measure| matches!(measure, Measure::Refused(_)))
    }

    /// Threads that ran before the sandbox have not given up what is per thread.
    pub(super) fn note_threads(&mut self, others: usize) {
        for measure in [
            &mut self.no_new_privileges,
            &mut self.capabilities,
            &mut self.files,
            &mut self.system_calls,
        ] {
            if matches!(measure, Measure::Applied(_) | Measure::Partly(_)) {
                *measure = Measure::Partly(format!(
                    "{measure}, but {others} threads ran before and keep what they had"
                ));
            }
        }
    }
}

impl fmt::Display for SandboxReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (name, measure)) in self.measures().into_iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{name}: {measure}")?;
        }
        Ok(())
    }
}
