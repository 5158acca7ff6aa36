// SPDX-License-Identifier: Apache-2.0
//! What happens when something ends by itself.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::fmt;

/// When a guest that ended is started again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum RestartPolicy {
    /// Never.
    Never,
    /// When it did not end in order.
    #[default]
    OnFailure,
    /// Whenever nobody asked it to end.
    Always,
}

impl RestartPolicy {
    /// As in files and on the bus.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::OnFailure => "on-failure",
            Self::Always => "always",
        }
    }
}

/// Why something is started again. Each cause is counted by itself, so that a device that fails
/// does not use up what a guest may crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The guest switched itself off.
    PowerOff,
    /// The guest's kernel panicked.
    Panic,
    /// The monitor ended by itself or was killed.
    Crash,
    /// It did not start.
    Start,
    /// What holds a device's connection ended.
    Device,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PowerOff => "power-off",
            Self::Panic => "panic",
            Self::Crash => "crash",
            Self::Start => "start",
            Self::Device => "device",
        })
    }
}

/// How often within the window something is started again for each cause.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CauseLimits {
    /// The guest switched itself off (policy `always`).
    pub power_off: u32,
    /// The guest's kernel panicked.
    pub panic: u32,
    /// The monitor ended by itself or was killed.
    pub crash: u32,
    /// It did not start.
    pub start: u32,
    /// What holds a device's connection ended.
    pub device: u32,
}

impl Default for CauseLimits {
    fn default() -> Self {
        Self {
            power_off: 5,
            panic: 3,
            crash: 5,
            start: 3,
            device: 10,
        }
    }
}

/// The table `guest.restart`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RestartRules {
    /// When the guest is started again.
    pub policy: RestartPolicy,
    /// Milliseconds before the second restart for a cause (the first comes at once); it doubles.
    pub delay_ms: u32,
    /// The longest such wait, in milliseconds.
    pub longest_delay_ms: u32,
    /// Restarts are counted within so many seconds.
    pub window_s: u32,
    /// How many restarts for each cause; what needs more is isolated until somebody starts it.
    pub limits: CauseLimits,
}

impl Default for RestartRules {
    fn default() -> Self {
        Self {
            policy: RestartPolicy::default(),
            delay_ms: 100,
            longest_delay_ms: 10_000,
            window_s: 60,
            limits: CauseLimits::default(),
        }
    }
}

impl RestartRules {
    /// The limit for a cause.
    #[must_use]
    pub const fn limit(&self, cause: Cause) -> u32 {
        match cause {
            Cause::PowerOff => self.limits.power_off,
            Cause::Panic => self.limits.panic,
            Cause::Crash => self.limits.crash,
            Cause::Start => self.limits.start,
            Cause::Device => self.limits.device,
        }
    }
}
