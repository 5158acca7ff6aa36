// SPDX-License-Identifier: Apache-2.0
//! From a table to a type, noting every value that does not fit.
//!
//! serde stops at the first one. So that one is taken out of the table and the rest is read again,
//! until all that does not fit is known.

use super::advice;
use super::diagnostic::Diagnostic;
use super::guest_file::{Reporter, join};
use super::{ConfigError, Problem};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::ops::Range;
use toml::Spanned;
use toml::de::{DeTable, DeValue, ValueDeserializer};

/// More mistakes are not shown at once.
const MOST_FAULTS: usize = 100;

/// Reads `table`, which stands at `span` and whose keys are below `prefix`. Where a number does not
/// even fit its type, `problems` of the rest tell which ones do.
///
/// # Errors
/// Every key and value that does not fit, in the order of the file.
pub(super) fn typed<T: DeserializeOwned>(
    reporter: &Reporter<'_>,
    table: DeTable<'_>,
    span: &Range<usize>,
    prefix: &str,
    problems: impl FnOnce(&T) -> Vec<Problem>,
) -> Result<T, ConfigError> {
    let mut reading = Reading::new(table, prefix);
    for _ in 0..MOST_FAULTS {
        let value = Spanned::new(span.clone(), DeValue::Table(reading.table.clone()));
        match T::deserialize(ValueDeserializer::from(value)) {
            Ok(config) if reading.faults.is_empty() => return Ok(config),
            Ok(config) => {
                reading.advise(problems(&config));
                break;
            }
            Err(error) => {
                let at = error.span().unwrap_or_else(|| span.clone());
                let message = error.message().trim();
                let remedy = missing::<T>(&reading.table, span, &at, message)
                    .unwrap_or_else(|| advice::remedy(message));
                if !reading.note(message, &at, remedy) {
                    break;
                }
            }
        }
    }
    let mut faults = reading.faults;
    faults.sort_by_key(|fault| fault.span.start);
    let diagnostics = faults.into_iter().map(|fault| fault.shown(reporter));
    Err(ConfigError::Faulty(diagnostics.collect()))
}

/// What to write for a field that is missing: found out by writing a text there, for serde says what
/// it expects only of what is there. Nothing where something else is wrong.
fn missing<T: DeserializeOwned>(
    table: &DeTable<'_>,
    span: &Range<usize>,
    at: &Range<usize>,
    message: &str,
) -> Option<String> {
    /// No text is so long.
    const PROBE: Range<usize> = usize::MAX - 1..usize::MAX;
    if !message.starts_with("missing field") {
        return None;
    }
    let name = message.split('`').nth(1)?;
    let mut table = table.clone();
    let within = if at == span {
        Some(&mut table)
    } else {
        table_at(&mut table, at)
    };
    let text = Spanned::new(PROBE, DeValue::String("".into()));
    within?.insert(Spanned::new(PROBE, name.to_owned().into()), text);
    let value = Spanned::new(span.clone(), DeValue::Table(table));
    let expected = match T::deserialize(ValueDeserializer::from(value)) {
        Err(error) if error.span() == Some(PROBE) => advice::remedy(error.message().trim()),
        _ => "text in \"quotes\"".to_owned(),
    };
    Some(format!("{name} = {expected}"))
}

/// The table that stands at `at`.
fn table_at<'t, 'i>(table: &'t mut DeTable<'i>, at: &Range<usize>) -> Option<&'t mut DeTable<'i>> {
    table.iter_mut().find_map(|(_, value)| table_in(value, at))
}

fn table_in<'t, 'i>(
    value: &'t mut Spanned<DeValue<'i>>,
    at: &Range<usize>,
) -> Option<&'t mut DeTable<'i>> {
    let here = value.span() == *at;
    match value.get_mut() {
        DeValue::Table(table) => {
            if here {
                Some(table)
            } else {
                table_at(table, at)
            }
        }
        DeValue::Array(array) => array.iter_mut().find_map(|item| table_in(item, at)),
        _ => None,
    }
}

/// A key or value that does not fit.
struct Fault {
    /// Its dotted key, where it has one.
    key: Option<String>,
    span: Range<usize>,
    message: String,
    remedy: String,
}

impl Fault {
    fn shown(self, reporter: &Reporter<'_>) -> Diagnostic {
        let message = self.message.replace('\n', ", ");
        // An unknown key is in the message already.
        let message = match self.key {
            Some(key) if !message.starts_with("unknown field") => format!("{key}: {message}"),
            _ => message,
        };
        reporter.diagnostic(&self.span, message, self.remedy)
    }
}

/// What is left of a table, and what was wrong with the rest.
struct Reading<'i> {
    table: DeTable<'i>,
    /// The dotted key of every key and value, by its place: indices as they were at first.
    keys: BTreeMap<(usize, usize), String>,
    faults: Vec<Fault>,
    taken: Vec<String>,
}

impl<'i> Reading<'i> {
    fn new(table: DeTable<'i>, prefix: &str) -> Self {
        let mut keys = BTreeMap::new();
        name_table(&table, prefix, &mut keys);
        Self {
            table,
            keys,
            faults: Vec::new(),
            taken: Vec::new(),
        }
    }

    /// Notes what serde said and takes its cause away. Says whether reading on makes sense.
    fn note(&mut self, message: &str, at: &Range<usize>, remedy: String) -> bool {
        let key = self.keys.get(&(at.start, at.end)).cloned();
        let word = message.split('`').nth(1).unwrap_or_default();
        let within = join(key.as_deref().unwrap_or_default(), word);
        // What is missing because it was taken away was told already.
        let missing = message.starts_with("missing field");
        let told = missing && self.taken.contains(&within);
        let taken = take_from_table(&mut self.table, at, message);
        if !told {
            // A table that has a key too many: that key is meant.
            let unknown = taken.as_ref().filter(|inner| *inner != at);
            self.faults.push(Fault {
                key: key.clone(),
                span: unknown.unwrap_or(at).clone(),
                message: message.to_owned(),
                remedy,
            });
        }
        self.taken.extend(key);
        taken.is_some()
    }

    /// Where the device knows better which numbers are possible than their type does; and what fits
    /// its type and is wrong all the same, where that does not depend on what was taken away.
    fn advise(&mut self, problems: Vec<Problem>) {
        for problem in problems {
            // By what is left, where lists may be shorter than in the file.
            let Some(at) = place_of(&self.table, &problem.key) else {
                continue;
            };
            let Some(key) = self.keys.get(&(at.start, at.end)) else {
                continue;
            };
            let known = self
                .faults
                .iter_mut()
                .find(|fault| fault.key.as_ref() == Some(key));
            match known {
                Some(fault) if greatest(&fault.message).is_some() => {
                    fault.remedy = problem.remedy.replacen("a number", "a whole number", 1);
                }
                None if problem.by_itself => self.faults.push(Fault {
                    key: Some(key.clone()),
                    span: at,
                    message: problem.message,
                    remedy: problem.remedy,
                }),
                _ => {}
            }
        }
    }
}

/// Where the value of a dotted key stands.
fn place_of(table: &DeTable<'_>, key: &str) -> Option<Range<usize>> {
    let mut parts = key.split('.');
    let mut value = table.get(parts.next()?)?;
    for part in parts {
        value = match value.get_ref() {
            DeValue::Table(table) => table.get(part)?,
            DeValue::Array(array) => array.get(part.parse::<usize>().ok()?)?,
            _ => return None,
        };
    }
    Some(value.span())
}

fn name_table(table: &DeTable<'_>, prefix: &str, keys: &mut BTreeMap<(usize, usize), String>) {
    for (name, value) in table {
        let key = join(prefix, name.get_ref());
        let span = name.span();
        keys.entry((span.start, span.end))
            .or_insert_with(|| key.clone());
        name_value(value, &key, keys);
    }
}

fn name_value(
    value: &Spanned<DeValue<'_>>,
    key: &str,
    keys: &mut BTreeMap<(usize, usize), String>,
) {
    let span = value.span();
    keys.entry((span.start, span.end))
        .or_insert_with(|| key.to_owned());
    match value.get_ref() {
        DeValue::Table(table) => name_table(table, key, keys),
        DeValue::Array(array) => {
            for (index, item) in array.iter().enumerate() {
                // A list of [[tables]] stands where its first table does, which is the one meant.
                if item.span() == span {
                    keys.remove(&(span.start, span.end));
                }
                name_value(item, &join(key, &index.to_string()), keys);
            }
        }
        _ => {}
    }
}

/// Whether a list has an item at this place.
fn has_item(value: &Spanned<DeValue<'_>>, at: &Range<usize>) -> bool {
    match value.get_ref() {
        DeValue::Array(array) => array.iter().any(|item| item.span() == *at),
        _ => false,
    }
}

/// Takes away what stands at `at`, or makes it a number that fits its type. Says where what was
/// taken stood; nothing where there is no such thing.
fn take_from_table(
    table: &mut DeTable<'_>,
    at: &Range<usize>,
    message: &str,
) -> Option<Range<usize>> {
    let found = table
        .iter()
        .find(|(key, value)| key.span() == *at || value.span() == *at && !has_item(value, at))
        .map(|(key, _)| key.get_ref().to_string());
    let Some(name) = found else {
        return table
            .iter_mut()
            .find_map(|(_, value)| take_from_value(value, at, message));
    };
    let value = table.get_mut(name.as_str())?;
    if let Some(inner) = correct(value, at, message) {
        return Some(inner);
    }
    table.remove(name.as_str());
    Some(at.clone())
}

fn take_from_value(
    value: &mut Spanned<DeValue<'_>>,
    at: &Range<usize>,
    message: &str,
) -> Option<Range<usize>> {
    match value.get_mut() {
        DeValue::Table(table) => take_from_table(table, at, message),
        DeValue::Array(array) => {
            let Some(item) = array.iter_mut().find(|item| item.span() == *at) else {
                return array
                    .iter_mut()
                    .find_map(|item| take_from_value(item, at, message));
            };
            if let Some(inner) = correct(item, at, message) {
                return Some(inner);
            }
            let rest = array.iter().filter(|item| item.span() != *at).cloned();
            *array = rest.collect();
            Some(at.clone())
        }
        _ => None,
    }
}

/// Mends a value without taking it away whole: a table loses the key that it has too many, a number
/// becomes the greatest of its type, which the device's own check then refuses and explains.
fn correct(
    value: &mut Spanned<DeValue<'_>>,
    at: &Range<usize>,
    message: &str,
) -> Option<Range<usize>> {
    if let DeValue::Table(table) = value.get_mut() {
        if !message.starts_with("unknown field") {
            return None;
        }
        let name = message.split('`').nth(1)?;
        let (key, _) = table.remove_entry(name)?;
        return Some(key.span());
    }
    let number = DeValue::parse(greatest(message)?).ok()?;
    *value = Spanned::new(at.clone(), number.into_inner());
    Some(at.clone())
}

/// The greatest number of the type that was expected.
fn greatest(message: &str) -> Option<&'static str> {
    let (_, expected) = message.rsplit_once("expected ")?;
    Some(match expected.trim() {
        "u8" => "255",
        "i8" => "127",
        "u16" => "65535",
        "i16" => "32767",
        "u32" => "4294967295",
        "i32" => "2147483647",
        "u64" | "i64" | "usize" | "isize" => "9223372036854775807",
        _ => return None,
    })
}
