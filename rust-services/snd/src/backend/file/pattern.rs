// SPDX-License-Identifier: Apache-2.0

//! Paths with places for names and a number: where an output stream's files go.

use std::path::PathBuf;

use super::super::StreamIdentity;

const NAMES: [&str; 3] = ["guest", "device", "stream"];
const NUMBER: &str = "{n}";

/// The pattern with all but the number put in.
pub(crate) fn filled(pattern: &str, stream: &StreamIdentity) -> String {
    pattern
        .replace("{guest}", &stream.guest)
        .replace("{device}", &stream.device)
        .replace("{stream}", &stream.stream)
}

/// What is wrong with a pattern, whatever the host has.
pub(crate) fn pattern_fault(pattern: &str) -> Option<String> {
    let (folder, file) = pattern.rsplit_once('/').unwrap_or(("", pattern));
    if file.is_empty() {
        return Some("this is no file".to_owned());
    }
    let words = pattern.split('{').skip(1);
    let unknown = words
        .filter_map(|rest| rest.split_once('}').map(|(word, _)| word))
        .find(|word| *word != "n" && !NAMES.contains(word));
    if let Some(word) = unknown {
        return Some(format!("{{{word}}} is replaced by nothing"));
    }
    if folder.contains(NUMBER) || file.matches(NUMBER).count() > 1 {
        return Some("{n} belongs into the name of the file, once".to_owned());
    }
    None
}

/// The directory that a pattern's files go to.
#[must_use]
pub fn directory(pattern: &str) -> PathBuf {
    // Up to the first part that a name or number is put into.
    let fixed = pattern.split('{').next().unwrap_or_default();
    let parent = fixed.rsplit_once('/').map_or(".", |(parent, _)| parent);
    PathBuf::from(if parent.is_empty() { "/" } else { parent })
}

/// The path of the file of this number.
pub(super) fn numbered(pattern: &str, number: u32) -> PathBuf {
    PathBuf::from(pattern.replace("{n}", &number.to_string()))
}

/// The greatest number that a file of this pattern has.
pub(super) fn newest_number(pattern: &str) -> Option<u32> {
    let (head, tail) = pattern.split_once("{n}")?;
    let (parent, prefix) = head.rsplit_once('/').unwrap_or((".", head));
    let parent = if parent.is_empty() { "/" } else { parent };
    let entries = std::fs::read_dir(parent).ok()?;
    entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            name.strip_prefix(prefix)?.strip_suffix(tail)?.parse().ok()
        })
        .max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_has_only_names_that_are_replaced_and_one_number_in_its_file() {
        for good in ["a.wav", "/a/{guest}/{stream}-{n}.wav", "{device}", "a{b"] {
            assert_eq!(pattern_fault(good), None, "{good}");
        }
        for (pattern, fault) in [
            ("", "this is no file"),
            ("/tmp/", "this is no file"),
            ("relative/{foo}.wav", "{foo} is replaced by nothing"),
            ("/tmp/{role}-{n}.wav", "{role} is replaced by nothing"),
            ("/tmp/{n}/a.wav", "{n} belongs into the name of the file"),
            ("/tmp/{n}-{n}.wav", "{n} belongs into the name of the file"),
        ] {
            let found = pattern_fault(pattern).unwrap();
            assert!(found.contains(fault), "{pattern}: {found}");
        }
    }
}
