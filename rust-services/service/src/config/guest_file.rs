// SPDX-License-Identifier: Apache-2.0
//! Reads a guest's file, finds the device's table and remembers where every key stands.

use super::advice;
use super::diagnostic::{Diagnostic, Place};
use super::typed::typed;
use super::{ConfigError, LONGEST_FILE, Problems, Validate, is_name};
use crate::Exit;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

/// Which table is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Selection<'a> {
    /// The type of device that this service is, such as `snd`.
    pub device_type: &'a str,
    /// The table's name; without it, the only table of our type.
    pub device: Option<&'a str>,
}

/// What a file says about a device, apart from the device's own keys.
#[derive(Debug, Clone)]
pub struct DeviceTable {
    /// The guest: the file's name without `.toml`.
    pub guest: String,
    /// The device: the table's name.
    pub device: String,
    /// Where to listen unless the command line says so.
    pub socket: Option<PathBuf>,
    file: PathBuf,
    source: String,
    spans: BTreeMap<String, Range<usize>>,
}

impl DeviceTable {
    /// The file's text as it was read.
    #[must_use]
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Checks values and shows what is wrong with them where the file has them.
    ///
    /// # Errors
    /// Everything that is wrong.
    pub fn check(&self, config: &impl Validate) -> Result<(), ConfigError> {
        check(config, |key| Some(self.place(key)))
    }

    fn place(&self, key: &str) -> Place {
        let span = locate(&self.spans, key);
        Place::of(self.file.clone(), &self.source, &span)
    }
}

/// Checks a configuration that came from no file.
pub(crate) fn check_without_file(config: &impl Validate) -> Result<(), ConfigError> {
    check(config, |_| None)
}

/// Shows problems of a configuration, where the file has them if it came from one.
pub(crate) fn explain_problems(
    table: Option<&DeviceTable>,
    problems: Problems,
) -> Result<(), ConfigError> {
    explained(problems, |key| table.map(|table| table.place(key)))
}

pub(super) fn check(
    config: &impl Validate,
    place_of: impl Fn(&str) -> Option<Place>,
) -> Result<(), ConfigError> {
    let mut problems = Problems::new();
    config.validate(&mut problems);
    explained(problems, place_of)
}

/// Shows problems where they stand, in the order of the file.
pub(super) fn explained(
    problems: Problems,
    place_of: impl Fn(&str) -> Option<Place>,
) -> Result<(), ConfigError> {
    let list = problems.into_list();
    // A mistake in the file first: what the host lacks because of it may be nothing.
    let ours = list.iter().any(|problem| problem.exit == Exit::Config);
    let exit = list.first().map(|problem| problem.exit).filter(|_| !ours);
    let mut faults: Vec<Diagnostic> = list
        .into_iter()
        .map(|problem| Diagnostic {
            place: Some(&problem.key)
                .filter(|key| !key.starts_with("--"))
                .and_then(|key| place_of(key)),
            message: if problem.key.is_empty() {
                problem.message
            } else {
                format!("{}: {}", problem.key, problem.message)
            },
            remedy: problem.remedy,
        })
        .collect();
    faults.sort_by_key(|fault| fault.place.as_ref().map(|place| (place.line, place.column)));
    match exit {
        _ if faults.is_empty() => Ok(()),
        Some(exit) => Err(ConfigError::Host { faults, exit }),
        None => Err(ConfigError::Faulty(faults)),
    }
}

/// Reads a file and the wanted table of it. The values are not validated yet: options of the
/// command line may replace some first; then call [`DeviceTable::check`].
///
/// # Errors
/// Everything that is wrong with the syntax, or else with the types.
pub fn read<T: DeserializeOwned + Validate>(
    file: &Path,
    selection: Selection<'_>,
) -> Result<(DeviceTable, T), ConfigError> {
    let source = read_text(file)?;
    parse(file, source, selection)
}

/// The text of a guest's file.
///
/// # Errors
/// When it cannot be read or is no configuration.
pub fn read_text(file: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable {
        file: file.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    let handle = std::fs::File::open(file).map_err(unreadable)?;
    handle
        .take(LONGEST_FILE.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > LONGEST_FILE) {
        return Err(ConfigError::TooLarge(file.to_owned()));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let source = String::from_utf8_lossy(error.as_bytes()).into_owned();
        // All before the wrong byte is as it was, and the byte became one character.
        let span = good..good.saturating_add(char::REPLACEMENT_CHARACTER.len_utf8());
        let source = &source;
        Reporter { file, source }.fault(
            &span,
            "this is no UTF-8, which TOML is written in",
            "the text again in an editor that saves UTF-8",
        )
    })
}

/// Makes diagnostics for one file.
pub(super) struct Reporter<'a> {
    pub(super) file: &'a Path,
    pub(super) source: &'a str,
}

/// The two tables of a file, `guest` with its key's place and `devices`.
type Tables<'a> = (Option<(DeTable<'a>, Range<usize>)>, Option<DeTable<'a>>);

impl<'a> Reporter<'a> {
    /// Reads the syntax, and refuses what does not belong into a guest's file.
    pub(super) fn tables(&self) -> Result<Tables<'a>, ConfigError> {
        let (document, errors) = DeTable::parse_recoverable(self.source);
        if !errors.is_empty() {
            let faults = errors.iter().map(|error| self.of_toml(error, &(0..0)));
            return Err(ConfigError::Faulty(faults.collect()));
        }
        let (mut guest, mut devices) = (None, None);
        for (key, value) in document.into_inner() {
            match (key.get_ref().as_ref(), value.into_inner()) {
                ("devices", DeValue::Table(table)) => devices = Some(table),
                ("guest", DeValue::Table(table)) => guest = Some((table, key.span())),
                ("devices" | "guest", _) => {
                    return Err(self.fault(
                        &key.span(),
                        format!("{} is no table", key.get_ref()),
                        "[devices.NAME]",
                    ));
                }
                (name, _) => {
                    return Err(self.fault(
                        &key.span(),
                        format!("unknown table or key {name}"),
                        advice::one_of(name, &["devices", "guest"]),
                    ));
                }
            }
        }
        Ok((guest, devices))
    }

    pub(super) fn fault(
        &self,
        span: &Range<usize>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> ConfigError {
        ConfigError::Faulty(vec![self.diagnostic(span, message.into(), remedy.into())])
    }

    pub(super) fn diagnostic(
        &self,
        span: &Range<usize>,
        message: String,
        remedy: String,
    ) -> Diagnostic {
        Diagnostic {
            message,
            remedy,
            place: Some(self.place(span)),
        }
    }

    pub(super) fn place(&self, span: &Range<usize>) -> Place {
        Place::of(self.file.to_owned(), self.source, span)
    }

    pub(super) fn of_toml(&self, error: &toml::de::Error, otherwise: &Range<usize>) -> Diagnostic {
        let span = error.span().unwrap_or_else(|| otherwise.clone());
        let message = error.message().trim();
        self.diagnostic(&span, message.replace('\n', ", "), advice::remedy(message))
    }
}

/// Reads the wanted table of `source`, which stands or stood in `file`: see [`read`].
///
/// # Errors
/// As [`read`].
pub fn parse<T: DeserializeOwned + Validate>(
    file: &Path,
    source: String,
    selection: Selection<'_>,
) -> Result<(DeviceTable, T), ConfigError> {
    let reporter = Reporter {
        file,
        source: &source,
    };
    let guest = guest_name(&reporter)?;
    let (_, devices) = reporter.tables()?;
    let devices = devices
        .ok_or_else(|| reporter.fault(&(0..0), "the file has no devices", "[devices.NAME]"))?;
    let (device, device_span, mut table) = select(&reporter, devices, selection)?;

    let mut spans = BTreeMap::new();
    spans.insert(String::new(), device_span.clone());
    collect_spans(&table, "", &mut spans);

    let _ = take(&mut table, "type");
    let socket = take_socket(&reporter, &mut table)?;
    let config = typed(&reporter, table, &device_span, "", |config: &T| {
        let mut problems = Problems::new();
        config.validate(&mut problems);
        problems.into_list()
    })?;
    let table = DeviceTable {
        guest,
        device,
        socket,
        file: file.to_owned(),
        spans,
        source,
    };
    Ok((table, config))
}

pub(super) fn guest_name(reporter: &Reporter<'_>) -> Result<String, ConfigError> {
    match reporter.file.file_stem().and_then(|stem| stem.to_str()) {
        Some(name) if is_name(name) => Ok(name.to_owned()),
        _ => Err(reporter.fault(
            &(0..0),
            "the file's name is the guest's name, and this one cannot be",
            "a file name of letters, digits, - and _, such as ivi.toml",
        )),
    }
}

/// Checks the shape of every device's table and picks ours.
fn select<'i>(
    reporter: &Reporter<'_>,
    devices: DeTable<'i>,
    selection: Selection<'_>,
) -> Result<(String, Range<usize>, DeTable<'i>), ConfigError> {
    let mut names = Vec::new();
    let mut candidates = Vec::new();
    for (key, value) in devices {
        let name = key.get_ref().as_ref();
        let (table, type_name, type_span) = shape(reporter, &key, value, selection.device_type)?;
        names.push(name.to_owned());
        match selection.device {
            Some(wanted) if wanted == name && type_name != selection.device_type => {
                return Err(reporter.fault(
                    &type_span,
                    format!(
                        "{name} is of type {type_name}, but this service is {}",
                        selection.device_type
                    ),
                    format!(
                        "type = \"{}\", or start agl-virtio-{type_name}",
                        selection.device_type
                    ),
                ));
            }
            Some(wanted) if wanted == name => candidates.push((name.to_owned(), key.span(), table)),
            None if type_name == selection.device_type => {
                candidates.push((name.to_owned(), key.span(), table));
            }
            _ => {}
        }
    }
    let several = candidates.len() > 1;
    match (candidates.pop(), selection.device) {
        (Some(ours), _) if !several => Ok(ours),
        (Some((name, span, _)), _) => Err(reporter.fault(
            &span,
            format!("several devices are of type {}", selection.device_type),
            format!("which one on the command line, such as --device {name}"),
        )),
        (None, Some(wanted)) => {
            let known: Vec<&str> = names.iter().map(String::as_str).collect();
            Err(reporter.fault(
                &(0..0),
                format!("there is no device {wanted}"),
                format!("--device with {}", advice::one_of(wanted, &known)),
            ))
        }
        (None, None) => Err(reporter.fault(
            &(0..0),
            format!("no device is of type {}", selection.device_type),
            format!("[devices.NAME] with type = \"{}\"", selection.device_type),
        )),
    }
}

/// What every device's table must be: a name that can be one, and a type.
pub(super) fn shape<'i>(
    reporter: &Reporter<'_>,
    key: &Spanned<DeString<'i>>,
    value: Spanned<DeValue<'i>>,
    example: &str,
) -> Result<(DeTable<'i>, String, Range<usize>), ConfigError> {
    let name = key.get_ref().as_ref();
    if !is_name(name) {
        return Err(reporter.fault(
            &key.span(),
            format!("{name:?} cannot be the name of a device"),
            "1 to 64 letters, digits, - and _",
        ));
    }
    let DeValue::Table(table) = value.into_inner() else {
        return Err(reporter.fault(
            &key.span(),
            format!("{name} is no table"),
            format!("[devices.{name}]"),
        ));
    };
    let Some(device_type) = table.get("type") else {
        return Err(reporter.fault(
            &key.span(),
            format!("the device {name} has no type"),
            format!("type = \"{example}\""),
        ));
    };
    let Some(type_name) = device_type.get_ref().as_str() else {
        return Err(reporter.fault(
            &device_type.span(),
            "the type is no text",
            format!("type = \"{example}\""),
        ));
    };
    let found = (type_name.to_owned(), device_type.span());
    Ok((table, found.0, found.1))
}

/// Takes the key `socket` out of a device's table.
pub(super) fn take_socket(
    reporter: &Reporter<'_>,
    table: &mut DeTable<'_>,
) -> Result<Option<PathBuf>, ConfigError> {
    let Some(value) = take(table, "socket") else {
        return Ok(None);
    };
    match value.get_ref().as_str() {
        Some(path) if path.starts_with('/') => Ok(Some(PathBuf::from(path))),
        _ => Err(reporter.fault(
            &value.span(),
            "socket is no absolute path",
            "a path such as \"/run/agl-virtio/guest-device.sock\"",
        )),
    }
}

pub(super) fn take<'i>(table: &mut DeTable<'i>, name: &str) -> Option<Spanned<DeValue<'i>>> {
    table.remove(name)
}

/// The place of every value below `table`, by its dotted key.
pub(super) fn collect_spans(
    table: &DeTable<'_>,
    prefix: &str,
    spans: &mut BTreeMap<String, Range<usize>>,
) {
    for (key, value) in table {
        collect_value(value, join(prefix, key.get_ref()), key.span(), spans);
    }
}

fn collect_value(
    value: &Spanned<DeValue<'_>>,
    key: String,
    key_span: Range<usize>,
    spans: &mut BTreeMap<String, Range<usize>>,
) {
    match value.get_ref() {
        DeValue::Table(table) => {
            collect_spans(table, &key, spans);
            // A whole table is too much to underline: its name says which one is meant.
            spans.insert(key, key_span);
        }
        DeValue::Array(array) => {
            for (index, item) in array.iter().enumerate() {
                collect_value(item, join(&key, &index.to_string()), item.span(), spans);
            }
            spans.insert(key, key_span);
        }
        _ => {
            spans.insert(key, value.span());
        }
    }
}

pub(super) fn join(prefix: &str, name: &str) -> String {
    if prefix.is_empty() {
        name.to_owned()
    } else {
        format!("{prefix}.{name}")
    }
}

/// The place of a key, or of what it would be in.
pub(super) fn locate(spans: &BTreeMap<String, Range<usize>>, key: &str) -> Range<usize> {
    let mut key = key;
    loop {
        if let Some(span) = spans.get(key) {
            return span.clone();
        }
        key = match key.rsplit_once('.') {
            Some((parent, _)) => parent,
            None if key.is_empty() => return 0..0,
            None => "",
        };
    }
}

#[cfg(test)]
mod tests;
