// SPDX-License-Identifier: Apache-2.0
//! Tables and colours for a person; colours only on a terminal.

use std::io::IsTerminal;

/// What a word means to a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    Plain,
    Head,
    Good,
    Busy,
    Bad,
    Quiet,
}

impl Tone {
    /// The tone of a state's word.
    pub(crate) fn of_state(word: &str) -> Self {
        match word {
            "running" | "yes" | "ok" | "passed" => Self::Good,
            "starting" | "stopping" | "restarting" | "paused" | "connected" | "waiting"
            | "warning" | "outdated" => Self::Busy,
            "isolated" | "failed" | "needs-reset" | "no" => Self::Bad,
            "stopped" => Self::Quiet,
            _ => Self::Plain,
        }
    }

    const fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Head => "1",
            Self::Good => "32",
            Self::Busy => "33",
            Self::Bad => "1;31",
            Self::Quiet => "2",
        }
    }
}

/// Whether standard output shows colours: it is a terminal, and NO_COLOR does not say otherwise.
pub(crate) fn colours() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none()
}

/// A text in a tone, if colours are wanted.
pub(crate) fn paint(text: &str, tone: Tone, colours: bool) -> String {
    if !colours || tone == Tone::Plain {
        return text.to_owned();
    }
    format!("\u{1b}[{}m{text}\u{1b}[0m", tone.code())
}

/// How many columns the terminal has; nothing where standard output is none: then no line is cut or
/// broken, for a program may read it.
pub(crate) fn width() -> Option<usize> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    let (columns, _) = ratatui::crossterm::terminal::size().ok()?;
    (columns > 0).then(|| usize::from(columns))
}

/// A text in at most so many columns, with a sign where something was left out.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// A text as lines of at most so many columns, broken between words. A word that is longer stays.
pub(crate) fn wrap(text: &str, width: Option<usize>) -> Vec<String> {
    let Some(width) = width else {
        return vec![text.to_owned()];
    };
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else {
            break;
        };
        let with = line.chars().count().saturating_add(word.chars().count());
        if line.is_empty() {
            line.push_str(word);
        } else if with < width {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[derive(Debug)]
enum Entry {
    Row(Vec<(String, Tone)>),
    /// Something about the row before, on lines of its own.
    Note(String, Tone),
}

/// A table with a heading; columns are as wide as their widest cell.
///
/// In a terminal no line is wider than it: the last column is broken between words, or, where that
/// is a number, the first one is cut.
#[derive(Debug)]
pub(crate) struct Table {
    entries: Vec<Entry>,
    /// Columns from this one on are numbers, and end below each other.
    numbers: usize,
}

/// Between two columns.
const GAP: usize = 2;
/// Neither the first column nor the last one gets narrower.
const NARROW: usize = 12;
/// Where notes begin, and where they go on.
const NOTE: &str = "    ";
const NOTE_ON: &str = "      ";

impl Table {
    pub(crate) fn new(heads: &[&str], numbers: usize) -> Self {
        let heads = heads.iter().map(|head| ((*head).to_owned(), Tone::Head));
        Self {
            entries: vec![Entry::Row(heads.collect())],
            numbers,
        }
    }

    pub(crate) fn row(&mut self, cells: Vec<(String, Tone)>) {
        self.entries.push(Entry::Row(cells));
    }

    pub(crate) fn note(&mut self, text: String, tone: Tone) {
        self.entries.push(Entry::Note(text, tone));
    }

    /// How wide each column is.
    fn widths(&self, terminal: Option<usize>) -> Vec<usize> {
        let mut widths: Vec<usize> = Vec::new();
        for entry in &self.entries {
            let Entry::Row(cells) = entry else {
                continue;
            };
            for (index, (cell, _)) in cells.iter().enumerate() {
                let width = cell.chars().count();
                match widths.get_mut(index) {
                    Some(widest) => *widest = (*widest).max(width),
                    None => widths.push(width),
                }
            }
        }
        let gaps = widths.len().saturating_sub(1).saturating_mul(GAP);
        let all = widths
            .iter()
            .fold(gaps, |sum, width| sum.saturating_add(*width));
        let mut over = terminal.map_or(0, |terminal| all.saturating_sub(terminal));
        let breaks = self.numbers >= widths.len();
        let mut narrow = |width: Option<&mut usize>, least: usize| {
            if let Some(width) = width {
                let less = over.min(width.saturating_sub(least));
                *width = width.saturating_sub(less);
                over = over.saturating_sub(less);
            }
        };
        if breaks {
            narrow(widths.last_mut(), self.longest_last_word().max(NARROW));
        }
        narrow(widths.first_mut(), NARROW);
        widths
    }

    /// How long the longest word of the last column is, which is not broken.
    fn longest_last_word(&self) -> usize {
        let cells = self.entries.iter().filter_map(|entry| match entry {
            Entry::Row(cells) => cells.last(),
            Entry::Note(..) => None,
        });
        let words = cells.flat_map(|(cell, _)| cell.split(' '));
        words.map(|word| word.chars().count()).max().unwrap_or(0)
    }

    pub(crate) fn text(&self, colours: bool, terminal: Option<usize>) -> String {
        let widths = self.widths(terminal);
        let mut text = String::new();
        for entry in &self.entries {
            match entry {
                Entry::Row(cells) => self.write_row(&mut text, cells, &widths, colours),
                Entry::Note(note, tone) => {
                    let room = terminal.map(|width| width.saturating_sub(NOTE_ON.len()));
                    for (index, line) in wrap(note, room).iter().enumerate() {
                        text.push_str(if index == 0 { NOTE } else { NOTE_ON });
                        text.push_str(&paint(line, *tone, colours));
                        text.push('\n');
                    }
                }
            }
        }
        text
    }

    fn write_row(
        &self,
        text: &mut String,
        cells: &[(String, Tone)],
        widths: &[usize],
        colours: bool,
    ) {
        let last = cells.len().saturating_sub(1);
        let mut line = String::new();
        let mut column = 0_usize;
        let mut rest = Vec::new();
        for (index, (cell, tone)) in cells.iter().enumerate() {
            let width = widths.get(index).copied().unwrap_or(0);
            let cell = if index == last && index < self.numbers {
                let mut lines = wrap(cell, Some(width)).into_iter();
                let first = lines.next().unwrap_or_default();
                rest = lines.collect();
                first
            } else {
                cut(cell, width)
            };
            let gap = " ".repeat(width.saturating_sub(cell.chars().count()));
            let painted = paint(&cell, *tone, colours);
            if index >= self.numbers {
                line.push_str(&gap);
                line.push_str(&painted);
            } else {
                line.push_str(&painted);
                line.push_str(&gap);
            }
            if index < last {
                line.push_str(&" ".repeat(GAP));
                column = column.saturating_add(width).saturating_add(GAP);
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
        for line in rest {
            text.push_str(&" ".repeat(column));
            text.push_str(&line);
            text.push('\n');
        }
    }
}

/// A time span in two units at most: `42 s`, `3 min 5 s`, `2 h 10 min`, `4 d 3 h`.
pub(crate) fn span(seconds: u64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let mut rest = seconds;
    let mut words = Vec::new();
    for (length, unit) in units {
        let count = rest.checked_div(length).unwrap_or(0);
        rest = rest.checked_rem(length).unwrap_or(0);
        if count > 0 || (!words.is_empty() && words.len() < 2) {
            words.push(format!("{count} {unit}"));
        }
        if words.len() == 2 {
            break;
        }
    }
    if words.is_empty() {
        return "0 s".to_owned();
    }
    words.join(" ")
}

/// A count in at most five characters: `950`, `12.5k`, `3.1M`.
pub(crate) fn count(number: f64) -> String {
    let units = [(1e9, "G"), (1e6, "M"), (1e4, "k")];
    for (least, unit) in units {
        if number >= least {
            let divisor = if unit == "k" { 1e3 } else { least };
            return format!("{:.1}{unit}", number / divisor);
        }
    }
    format!("{number:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(words: &[&str]) -> Vec<(String, Tone)> {
        let cells = words.iter().map(|word| ((*word).to_owned(), Tone::Plain));
        cells.collect()
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_nothing_trails() {
        let mut table = Table::new(&["GUEST", "STATE"], 2);
        table.row(vec![
            ("infotainment".to_owned(), Tone::Plain),
            ("running".to_owned(), Tone::Good),
        ]);
        table.row(plain(&["ä", ""]));
        assert_eq!(
            table.text(false, None),
            "GUEST         STATE\ninfotainment  running\nä\n"
        );
        assert!(
            table
                .text(true, None)
                .contains("\u{1b}[32mrunning\u{1b}[0m")
        );
    }

    #[test]
    fn no_line_is_wider_than_the_terminal_and_what_is_cut_can_be_seen() {
        let mut table = Table::new(&["GUEST", "STATE", "DEVICES"], 3);
        table.row(plain(&["ivi", "running", "card decoder encoder (extra)"]));
        assert_eq!(
            table.text(false, Some(32)),
            "GUEST  STATE    DEVICES\nivi    running  card decoder\n                encoder (extra)\n"
        );
        let mut table = Table::new(&["DEVICE", "ERRORS"], 1);
        table.row(plain(&["announcements-and-navigation", "7"]));
        table.note("half of the requests within 64 us".to_owned(), Tone::Plain);
        assert_eq!(
            table.text(false, Some(26)),
            "DEVICE              ERRORS\nannouncements-and…       7\n    half of the requests\n      within 64 us\n"
        );
        let whole = table.text(false, None);
        assert!(
            whole.contains("announcements-and-navigation       7\n"),
            "{whole}"
        );
    }

    #[test]
    fn times_and_counts_are_short() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (185, "3 min 5 s"),
            (7800, "2 h 10 min"),
            (86_400, "1 d 0 h"),
        ] {
            assert_eq!(span(seconds), text);
        }
        for (number, text) in [
            (0.0, "0"),
            (9999.0, "9999"),
            (12_500.0, "12.5k"),
            (3.1e6, "3.1M"),
        ] {
            assert_eq!(count(number), text);
        }
    }
}
