// SPDX-License-Identifier: Apache-2.0
//! Reads a guest's file as the manager does: the table `guest`, and which devices there are.

use super::guest_file::{
    Reporter, check, collect_spans, guest_name, locate, read_text, shape, take, take_socket,
};
use super::typed::typed;
use super::{ConfigError, Diagnostic, Validate};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// A device as far as the manager knows it: the rest belongs to its service.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceEntry {
    /// The table's name.
    pub name: String,
    /// The key `type`, such as `snd`.
    pub device_type: String,
    /// The key `socket`, an absolute path.
    pub socket: Option<PathBuf>,
    /// The keys that belong to the service: two that are equal need no restart.
    pub options: toml::Table,
}

/// Where everything stands in a guest's file.
#[derive(Debug, Clone)]
pub struct GuestFile {
    /// The guest: the file's name without `.toml`.
    pub name: String,
    /// Its devices, by name.
    pub devices: Vec<DeviceEntry>,
    file: PathBuf,
    source: String,
    spans: BTreeMap<String, Range<usize>>,
}

impl GuestFile {
    /// Checks values and shows what is wrong with them where the file has them. Keys begin with
    /// `guest.` or `devices.NAME.`.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn check(&self, config: &impl Validate) -> Result<(), ConfigError> {
        let reporter = self.reporter();
        check(config, |key| {
            Some(reporter.place(&locate(&self.spans, key)))
        })
    }

    /// A fault of the table of this device.
    #[must_use]
    pub fn fault_of_device(&self, device: &str, message: String, remedy: String) -> Diagnostic {
        let span = locate(&self.spans, &format!("devices.{device}"));
        self.reporter().diagnostic(&span, message, remedy)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file
    }

    /// The text of it.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    fn reporter(&self) -> Reporter<'_> {
        Reporter {
            file: &self.file,
            source: &self.source,
        }
    }
}

/// Reads a guest's file whole; a file without the table `guest` gives the default. The values
/// are not validated: call [`GuestFile::check`].
///
/// # Errors
/// Everything that is wrong with the syntax, or else with the types.
pub fn read_guest<T: DeserializeOwned + Default>(
    file: &Path,
) -> Result<(GuestFile, T), ConfigError> {
    parse_guest(file, read_text(file)?)
}

/// As [`read_guest`], of a text that is to become the file.
///
/// # Errors
/// As [`read_guest`].
pub fn parse_guest<T: DeserializeOwned + Default>(
    file: &Path,
    source: String,
) -> Result<(GuestFile, T), ConfigError> {
    let reporter = Reporter {
        file,
        source: &source,
    };
    let name = guest_name(&reporter)?;
    let (guest, devices) = reporter.tables()?;
    let mut spans = BTreeMap::new();
    let guest = match guest {
        None => T::default(),
        Some((table, span)) => {
            collect_spans(&table, "guest", &mut spans);
            spans.insert("guest".to_owned(), span.clone());
            // The manager's own check comes later and knows all of the file.
            typed(&reporter, table, &span, "guest", |_| Vec::new())?
        }
    };
    let mut entries = Vec::new();
    for (key, value) in devices.unwrap_or_default() {
        let (mut table, device_type, _) = shape(&reporter, &key, value, "snd")?;
        let path = format!("devices.{}", key.get_ref());
        collect_spans(&table, &path, &mut spans);
        spans.insert(path.clone(), key.span());
        let _ = take(&mut table, "type");
        entries.push(DeviceEntry {
            name: key.get_ref().to_string(),
            device_type,
            socket: take_socket(&reporter, &mut table)?,
            options: typed(&reporter, table, &key.span(), &path, |_| Vec::new())?,
        });
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let whole = GuestFile {
        name,
        devices: entries,
        file: file.to_owned(),
        spans,
        source,
    };
    Ok((whole, guest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Problems;
    use serde::Deserialize;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Machine {
        memory: u32,
    }

    impl Validate for Machine {
        fn validate(&self, problems: &mut Problems) {
            problems.range("guest.memory", &self.memory, 64..=4096);
            problems.add("devices.cabin.rate", "no such rate", "48000");
        }
    }

    fn parsed(source: &str) -> Result<(GuestFile, Machine), ConfigError> {
        parse_guest(Path::new("/etc/ivi.toml"), source.to_owned())
    }

    #[test]
    fn the_guest_and_all_devices_are_read_whatever_their_type() {
        let (file, machine) = parsed(
            "[guest]\nmemory = 256\n[devices.cabin]\ntype = \"snd\"\nrate = 5\n\
             [devices.bus]\ntype = \"can\"\nsocket = \"/run/bus.sock\"\n",
        )
        .unwrap();
        assert_eq!((file.name.as_str(), machine.memory), ("ivi", 256));
        assert_eq!(file.devices[0].name, "bus");
        assert_eq!(file.devices[0].socket, Some(PathBuf::from("/run/bus.sock")));
        assert!(file.devices[0].options.is_empty());
        assert_eq!(file.devices[1].device_type, "snd");
        assert_eq!(file.devices[1].options["rate"].as_integer(), Some(5));
    }

    #[test]
    fn faults_of_both_tables_are_shown_in_their_places() {
        let (file, machine) =
            parsed("[guest]\nmemory = 2\n[devices.cabin]\ntype = \"snd\"\nrate = 5\n").unwrap();
        let text = file.check(&machine).unwrap_err().to_string();
        assert!(text.contains("ivi.toml:2:10"), "{text}");
        assert!(text.contains("ivi.toml:5:8"), "{text}");
        let fault = file.fault_of_device("cabin", "no".to_owned(), "yes".to_owned());
        assert!(fault.to_string().contains("ivi.toml:3:10"), "{fault}");
    }

    #[test]
    fn a_wrong_type_and_an_unknown_key_are_shown_too() {
        for (source, place) in [
            ("[guest]\nmemory = true\n", "ivi.toml:2:10"),
            ("[guest]\nmemry = 1\n", "ivi.toml:2:1"),
            ("[devices.cabin]\nrate = 1\n", "ivi.toml:1:10"),
            ("[gast]\n", "ivi.toml:1:2"),
            (
                "[devices.cabin]\ntype = \"snd\"\nsocket = \"x\"\n",
                "ivi.toml:3:10",
            ),
        ] {
            let text = parsed(source).unwrap_err().to_string();
            assert!(text.contains(place), "{source} {text}");
        }
    }

    #[test]
    fn an_empty_file_is_a_guest_without_devices() {
        let (file, machine) = parsed("").unwrap();
        assert!(file.devices.is_empty());
        assert_eq!(machine.memory, 0);
    }
}
