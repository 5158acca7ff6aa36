// SPDX-License-Identifier: Apache-2.0
//! Turns what serde and toml say into what a person should write.

/// The remedy for a message of the parser or of serde.
pub(super) fn remedy(message: &str) -> String {
    let quoted = quoted(message);
    if message.starts_with("unknown field") || message.starts_with("unknown variant") {
        let (Some(wrong), Some(known)) = (quoted.first(), quoted.get(1..)) else {
            return "nothing here".to_owned();
        };
        return one_of(wrong, known);
    }
    if message.starts_with("missing field") {
        if let Some(name) = quoted.first() {
            return format!("{name} = …");
        }
    }
    if message.starts_with("duplicate key") {
        return "one of the two only".to_owned();
    }
    if message.ends_with("map, expected a sequence") {
        return "[[devices.…]] in double brackets, once for each; or a list: [ …, … ]".to_owned();
    }
    if let Some((_, example)) = message.rsplit_once("expected a table such as ") {
        return example.to_owned();
    }
    if let Some((_, expected)) = message.rsplit_once("expected ") {
        // A whole number it is already: then its ends are news.
        let bounds = type_bounds(expected.trim()).filter(|_| message.starts_with("invalid value"));
        if let Some((least, most)) = bounds {
            return format!("a whole number from {least} to {most}");
        }
        if let Some(text) = kind(expected.trim()) {
            return text.to_owned();
        }
    }
    // What the parser of the syntax itself says.
    "key = value, where text is \"quoted\" and true, false and numbers are not".to_owned()
}

/// Points out the nearest of the known words, or lists them.
pub(super) fn one_of(wrong: &str, known: &[&str]) -> String {
    if known.is_empty() {
        return "nothing: there are no keys here".to_owned();
    }
    if let Some(near) = nearest(wrong, known) {
        return format!("{near} (nearest to {wrong})");
    }
    format!("one of {}", known.join(", "))
}

/// A word is meant if a third of it, and at least one letter, may be wrong.
fn nearest<'a>(wrong: &str, known: &[&'a str]) -> Option<&'a str> {
    known
        .iter()
        .map(|word| (strsim::damerau_levenshtein(wrong, word), *word))
        .filter(|(distance, word)| *distance <= word.chars().count().wrapping_div(3).max(1))
        .min()
        .map(|(_, word)| word)
}

/// The words in backquotes.
fn quoted(message: &str) -> Vec<&str> {
    message.split('`').skip(1).step_by(2).collect()
}

/// The ends of a Rust type.
fn type_bounds(expected: &str) -> Option<(i64, i64)> {
    Some(match expected {
        "u8" => (0, u8::MAX.into()),
        "u16" => (0, u16::MAX.into()),
        "u32" => (0, u32::MAX.into()),
        "u64" | "usize" => (0, i64::MAX),
        "i8" => (i8::MIN.into(), i8::MAX.into()),
        "i16" => (i16::MIN.into(), i16::MAX.into()),
        "i32" => (i32::MIN.into(), i32::MAX.into()),
        _ => return None,
    })
}

/// What a Rust type is for a person who writes TOML.
fn kind(expected: &str) -> Option<&'static str> {
    Some(match expected {
        // How large it may be, says the key's own check: the type's range would mislead.
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0 up",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a string" | "path string" | "a borrowed string" => "text in \"quotes\"",
        "a sequence" => "a list: [ …, … ]",
        "a map" => "a table: { key = value }",
        text if text.starts_with("a nonzero") => "a whole number from 1",
        text if text.starts_with("struct ") => "a table: { key = value }",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_becomes_what_to_write() {
        let table = [
            (
                "unknown field `chanels`, expected one of `rate`, `channels`",
                "channels (nearest to chanels)",
            ),
            (
                "unknown field `zoom`, expected one of `rate`, `channels`",
                "one of rate, channels",
            ),
            (
                "unknown field `a`, there are no fields",
                "nothing: there are no keys here",
            ),
            ("missing field `card`", "card = …"),
            (
                "invalid type: string \"a\", expected u8",
                "a whole number from 0 up",
            ),
            (
                "invalid value: integer `300`, expected u8",
                "a whole number from 0 to 255",
            ),
            (
                "invalid type: integer `1`, expected a boolean",
                "true or false",
            ),
            ("duplicate key", "one of the two only"),
            (
                "invalid type: map, expected a sequence",
                "[[devices.…]] in double brackets, once for each; or a list: [ …, … ]",
            ),
            (
                "invalid type: string \"alsa\", expected a table such as { type = \"alsa\" }",
                "{ type = \"alsa\" }",
            ),
            (
                "unknown variant `navi`, expected `Navigation` or `Multimedia`",
                "one of Navigation, Multimedia",
            ),
        ];
        for (message, write) in table {
            assert_eq!(remedy(message), write, "{message}");
        }
    }
}
