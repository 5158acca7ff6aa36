// SPDX-License-Identifier: Apache-2.0
//! Shows one fault of a file the way a compiler does.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

/// One fault and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub remedy: String,
    /// Where, unless the value came from the command line.
    pub place: Option<Place>,
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file as it was named.
    pub file: PathBuf,
    /// Its line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// How many characters are meant, at least 1.
    pub width: usize,
    /// The line itself.
    pub text: String,
}

impl Place {
    /// The place of the bytes `span` of `source`.
    pub(super) fn of(file: PathBuf, source: &str, span: &Range<usize>) -> Self {
        let start = floor(source, span.start);
        let before = source.get(..start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at.saturating_add(1));
        let rest = source.get(line_start..).unwrap_or_default();
        let text = rest.lines().next().unwrap_or_default();
        let column = before.get(line_start..).unwrap_or_default().chars().count();
        let meant = source
            .get(start..floor(source, span.end))
            .unwrap_or_default();
        let width = meant.lines().next().unwrap_or_default().chars().count();
        Self {
            file,
            line: before.matches('\n').count().saturating_add(1),
            column: column.saturating_add(1),
            width: width.max(1),
            text: text.to_owned(),
        }
    }
}

/// The end of the last whole character at or before `at`.
fn floor(source: &str, at: usize) -> usize {
    let mut at = at.min(source.len());
    while !source.is_char_boundary(at) {
        at = at.saturating_sub(1);
    }
    at
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        let Some(place) = &self.place else {
            return write!(f, "\n  = write: {}", self.remedy);
        };
        let number = place.line.to_string();
        let margin = " ".repeat(number.len());
        // A tab before the value must stay one, or the caret would miss it.
        let indent: String = place
            .text
            .chars()
            .take(place.column.saturating_sub(1))
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        let carets = "^".repeat(place.width);
        write!(
            f,
            "\n{margin}--> {}:{}:{}\n{margin} |\n{number} | {}\n{margin} | {indent}{carets}\n\
             {margin} = write: {}",
            place.file.display(),
            place.line,
            place.column,
            place.text,
            self.remedy
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(source: &str, span: Range<usize>) -> String {
        Diagnostic {
            message: "wrong".to_owned(),
            remedy: "right".to_owned(),
            place: Some(Place::of(PathBuf::from("a.toml"), source, &span)),
        }
        .to_string()
    }

    #[test]
    fn the_caret_is_under_the_value_after_wide_characters_and_tabs() {
        assert_eq!(
            shown("# ä\n\tä = 11\n", 11..13),
            "error: wrong\n --> a.toml:2:6\n  |\n2 | \tä = 11\n  | \t    ^^\n  = write: right"
        );
    }

    #[test]
    fn a_place_at_or_beyond_the_end_or_inside_a_character_does_no_harm() {
        for span in [0..0, 5..9, 1..2, 100..200] {
            assert!(shown("ää", span).contains("a.toml:1:"));
        }
        assert!(shown("", 0..1).contains("a.toml:1:1"));
    }

    #[test]
    fn without_a_file_only_the_words_are_shown() {
        let diagnostic = Diagnostic {
            message: "wrong".to_owned(),
            remedy: "right".to_owned(),
            place: None,
        };
        assert_eq!(diagnostic.to_string(), "error: wrong\n  = write: right");
    }
}
