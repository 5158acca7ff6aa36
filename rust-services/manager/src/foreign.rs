// SPDX-License-Identifier: Apache-2.0
//! Words of monitors, services and guests, which may say anything: what of them is shown.
//!
//! They become properties and answers on the bus, and lines on a person's terminal. A zero in one
//! property would keep everybody from reading all objects, for D-Bus has no text with a zero in it;
//! an escape sequence would write what it likes on the terminal; and nobody reads a megabyte.

/// Whether a terminal shows this character where it stands, and nothing else happens.
fn is_shown(character: char) -> bool {
    // Besides controls: what changes the direction in which the others are shown.
    !character.is_control()
        && !matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// What can be shown of a text in one line, at most so many characters of it. Where lines or
/// columns ended is a space.
#[must_use]
pub fn sentence(text: &str, longest: usize) -> String {
    let spaced = text.chars().map(|character| match character {
        '\n' | '\t' => ' ',
        character => character,
    });
    spaced.filter(|c| is_shown(*c)).take(longest).collect()
}

/// What can be shown of a text, lines and tabs as they are.
#[must_use]
pub fn paragraph(text: &str, longest: usize) -> String {
    let kept = text
        .chars()
        .filter(|c| matches!(c, '\n' | '\t') || is_shown(*c));
    kept.take(longest).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_moves_no_cursor_ends_no_text_and_is_not_too_long() {
        let hostile = "no\u{0} \u{1b}[2Jdisk\r\u{202e}\u{9b}1m\nat all";
        assert_eq!(sentence(hostile, 100), "no [2Jdisk1m at all");
        assert_eq!(paragraph(hostile, 100), "no [2Jdisk1m\nat all");
        assert_eq!(sentence("äöü", 2), "äö");
        assert_eq!(paragraph("a\tb", 100), "a\tb");
        assert_eq!(sentence("a\tb", 100), "a b");
    }
}
