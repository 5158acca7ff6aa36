// SPDX-License-Identifier: Apache-2.0

//! Names of the stream in a PCM name or a pipeline.

use super::StreamIdentity;

/// `template` with `{guest}`, `{device}`, `{stream}` and `{role}` replaced by the stream's names.
/// All other braces stay: pipelines have lists in them.
///
/// Names are reduced to letters, digits, `_`, `.` and `-`, so that none can end a quotation, add an
/// element to a pipeline, or climb out of a folder.
#[must_use]
pub fn fill(template: &str, stream: &StreamIdentity) -> String {
    [
        ("{guest}", stream.guest.as_str()),
        ("{device}", stream.device.as_str()),
        ("{stream}", stream.stream.as_str()),
        ("{role}", stream.role.name()),
    ]
    .into_iter()
    .fold(template.to_owned(), |text, (word, name)| {
        text.replace(word, &harmless(name))
    })
}

/// The name with everything replaced by `_` that means something to a parser or a file system.
fn harmless(name: &str) -> String {
    let name: String = name
        .chars()
        .map(|letter| match letter {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '-' | '.' => letter,
            _ => '_',
        })
        .collect();
    if name.chars().all(|letter| letter == '.') {
        return "_".repeat(name.len().max(1));
    }
    name
}

#[cfg(test)]
mod tests {
    use super::super::Role;
    use super::*;

    #[test]
    fn names_are_filled_in_and_lists_stay() {
        let stream = StreamIdentity {
            guest: "ivi".into(),
            device: "sound".into(),
            stream: "music".into(),
            index: 0,
            role: Role::Navigation,
        };
        assert_eq!(
            fill("a={A,B} n={guest}/{device}/{stream}.{role}", &stream),
            "a={A,B} n=ivi/sound/music.Navigation"
        );
    }

    #[test]
    fn a_name_cannot_break_out_of_where_it_is_put() {
        let stream = StreamIdentity {
            guest: "x ! filesink location=/etc/passwd \"'".into(),
            device: "..".into(),
            stream: "{guest}".into(),
            index: 0,
            role: Role::Multimedia,
        };
        assert_eq!(
            fill("{guest}|{device}|{stream}", &stream),
            "x___filesink_location__etc_passwd___|__|_guest_"
        );
    }
}
