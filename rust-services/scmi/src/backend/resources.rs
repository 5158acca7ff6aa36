// SPDX-License-Identifier: Apache-2.0

//! Clocks, power domains, resets and regulators of the host, as its kernel module
//! agl-virtio-resources shows them: a folder `class/agl-virtio-resource/KIND:NAME` each.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::backend::linux::read_number;
use crate::platform::{HostState, Kind, Platform};

/// Where the module shows them, below sysfs.
const CLASS: &str = "class/agl-virtio-resource";

/// Which resources are whose.
#[derive(Clone, Debug, Default)]
pub struct Names(HashMap<(Kind, usize), String>);

impl Names {
    /// The resources of a platform that are the host's.
    #[must_use]
    pub fn of(platform: &Platform) -> Self {
        let mut names = HashMap::new();
        let power = platform.power.iter().map(|of| &of.spec.host);
        let clocks = platform.clocks.iter().map(|of| &of.spec.host);
        let resets = platform.resets.iter().map(|of| &of.spec.host);
        let voltages = platform.voltages.iter().map(|of| &of.spec.host);
        let mut add = |kind, place, host: &Option<String>| {
            if let Some(host) = host {
                names.insert((kind, place), host.clone());
            }
        };
        power
            .enumerate()
            .for_each(|(place, host)| add(Kind::Power, place, host));
        clocks
            .enumerate()
            .for_each(|(place, host)| add(Kind::Clock, place, host));
        resets
            .enumerate()
            .for_each(|(place, host)| add(Kind::Reset, place, host));
        voltages
            .enumerate()
            .for_each(|(place, host)| add(Kind::Voltage, place, host));
        Self(names)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The host's resources, and how they were left.
#[derive(Debug)]
pub struct Resources {
    root: PathBuf,
    names: Names,
    left: HashMap<(Kind, usize), HostState>,
}

impl Resources {
    /// Those of `names`, below `sysfs`.
    #[must_use]
    pub fn new(sysfs: &Path, names: Names) -> Self {
        Self {
            root: sysfs.join(CLASS),
            names,
            left: HashMap::new(),
        }
    }

    fn folder(&self, kind: Kind, index: usize) -> io::Result<PathBuf> {
        let name = self.names.0.get(&(kind, index));
        let name = name.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        Ok(self.root.join(format!("{}:{name}", kind.word())))
    }

    /// Brings a resource to a state: what differs from how it was left is written. With the rate
    /// of a clock afterwards, in Hz.
    ///
    /// # Errors
    /// What the kernel says; then nothing is known of the resource, and all is written next time.
    pub fn apply(&mut self, kind: Kind, index: usize, to: HostState) -> io::Result<Option<u64>> {
        let folder = self.folder(kind, index)?;
        let from = self.left.remove(&(kind, index));
        let rate = match (to, from) {
            (HostState::Clock { on, rate, parent }, from) => {
                let clock = |from: Option<HostState>| match from {
                    Some(HostState::Clock { on, rate, parent }) => (Some(on), rate, parent),
                    _ => (None, None, None),
                };
                let (was_on, old_rate, old_parent) = clock(from);
                switch(&folder, "enable", was_on, on, false)?;
                if let Some(parent) = parent.filter(|_| parent != old_parent) {
                    let name = self.names.0.get(&(Kind::Clock, parent));
                    let name = name.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
                    fs::write(folder.join("parent"), name)?;
                }
                // A clock that has another parent may have another rate too.
                let same = rate == old_rate && parent == old_parent;
                if let Some(rate) = rate.filter(|_| !same) {
                    fs::write(folder.join("rate"), rate.to_string())?;
                }
                switch(&folder, "enable", was_on, on, true)?;
                let rate = read_number(&folder.join("rate"))?;
                Some(u64::try_from(rate).unwrap_or(0))
            }
            (HostState::Power { on }, from) => {
                let was = from.map(|from| from == HostState::Power { on: true });
                switch(&folder, "enable", was, on, on)?;
                None
            }
            (HostState::Voltage { on, level }, from) => {
                let (was_on, old) = match from {
                    Some(HostState::Voltage { on, level }) => (Some(on), level),
                    _ => (None, None),
                };
                switch(&folder, "enable", was_on, on, false)?;
                if let Some(level) = level.filter(|_| level != old) {
                    fs::write(folder.join("microvolts"), level.to_string())?;
                }
                switch(&folder, "enable", was_on, on, true)?;
                None
            }
            (HostState::Reset { asserted, pulses }, from) => {
                let (was, before) = match from {
                    Some(HostState::Reset { asserted, pulses }) => (Some(asserted), pulses),
                    _ => (None, 0),
                };
                if pulses > before {
                    fs::write(folder.join("pulse"), "1")?;
                }
                switch(&folder, "assert", was, asserted, asserted)?;
                None
            }
        };
        self.left.insert((kind, index), to);
        Ok(rate)
    }
}

/// Switches on or off, if it was not so, and if that is what `when` says: what goes off does so
/// first, and what comes on last.
fn switch(folder: &Path, file: &str, was: Option<bool>, on: bool, when: bool) -> io::Result<()> {
    if was == Some(on) || on != when {
        return Ok(());
    }
    fs::write(folder.join(file), if on { "1" } else { "0" })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(files: &[&str]) -> (tempfile::TempDir, Resources) {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(CLASS).join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "7").unwrap();
        }
        let names = [
            ((Kind::Clock, 0), "lcd"),
            ((Kind::Clock, 1), "pll"),
            ((Kind::Power, 0), "display"),
            ((Kind::Reset, 0), "codec"),
            ((Kind::Voltage, 0), "vdd"),
        ];
        let names = names.map(|(place, name)| (place, name.to_owned()));
        let resources = Resources::new(root.path(), Names(names.into()));
        (root, resources)
    }

    #[test]
    fn only_what_differs_is_written() {
        let files = ["clock:lcd/enable", "clock:lcd/rate", "clock:lcd/parent"];
        let (root, mut resources) = host(&files);
        let read = |file: &str| fs::read_to_string(root.path().join(CLASS).join(file)).unwrap();
        let clock = |on, rate, parent| HostState::Clock { on, rate, parent };
        let mut apply = |state| resources.apply(Kind::Clock, 0, state).unwrap();
        assert_eq!(apply(clock(false, None, None)), Some(7));
        assert_eq!(files.map(read), ["0", "7", "7"], "nobody cares for a rate");
        assert_eq!(apply(clock(true, Some(1000), Some(1))), Some(1000));
        assert_eq!(files.map(read), ["1", "1000", "pll"]);
        for file in files {
            fs::write(root.path().join(CLASS).join(file), "9").unwrap();
        }
        apply(clock(true, Some(2000), Some(1)));
        assert_eq!(files.map(read), ["9", "2000", "9"]);
    }

    #[test]
    fn a_reset_is_pulsed_once_for_each_pulse_and_never_because_the_service_started() {
        let (root, mut resources) = host(&["reset:codec/assert", "reset:codec/pulse"]);
        let path = root.path().join(CLASS).join("reset:codec");
        let reset = |asserted, pulses| HostState::Reset { asserted, pulses };
        resources.apply(Kind::Reset, 0, reset(false, 0)).unwrap();
        assert_eq!(fs::read_to_string(path.join("pulse")).unwrap(), "7");
        resources.apply(Kind::Reset, 0, reset(false, 1)).unwrap();
        assert_eq!(fs::read_to_string(path.join("pulse")).unwrap(), "1");
        resources.apply(Kind::Reset, 0, reset(true, 1)).unwrap();
        assert_eq!(fs::read_to_string(path.join("assert")).unwrap(), "1");
    }

    #[test]
    fn what_the_host_does_not_show_is_an_error_and_is_tried_again() {
        let (root, mut resources) = host(&["voltage:vdd/enable"]);
        let state = HostState::Voltage {
            on: true,
            level: Some(1_800_000),
        };
        let folder = root.path().join(CLASS).join("voltage:vdd");
        fs::create_dir(folder.join("microvolts")).unwrap();
        assert!(resources.apply(Kind::Voltage, 0, state).is_err());
        fs::remove_dir(folder.join("microvolts")).unwrap();
        resources.apply(Kind::Voltage, 0, state).unwrap();
        assert_eq!(
            fs::read_to_string(folder.join("microvolts")).unwrap(),
            "1800000"
        );
        assert!(
            resources
                .apply(Kind::Power, 0, HostState::Power { on: true })
                .is_err()
        );
    }
}
