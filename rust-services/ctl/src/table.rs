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

/// A table with a heading; columns are as wide as their widest cell.
#[derive(Debug)]
pub(crate) struct Table {
    rows: Vec<Vec<(String, Tone)>>,
}

impl Table {
    pub(crate) fn new(heads: &[&str]) -> Self {
        let heads = heads.iter().map(|head| ((*head).to_owned(), Tone::Head));
        Self {
            rows: vec![heads.collect()],
        }
    }

    pub(crate) fn row(&mut self, cells: Vec<(String, Tone)>) {
        self.rows.push(cells);
    }

    pub(crate) fn text(&self, colours: bool) -> String {
        let mut widths: Vec<usize> = Vec::new();
        for row in &self.rows {
            for (index, (cell, _)) in row.iter().enumerate() {
                let width = cell.chars().count();
                match widths.get_mut(index) {
                    Some(widest) => *widest = (*widest).max(width),
                    None => widths.push(width),
                }
            }
        }
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (index, (cell, tone)) in row.iter().enumerate() {
                let width = widths.get(index).copied().unwrap_or(0);
                line.push_str(&paint(cell, *tone, colours));
                if index.saturating_add(1) < row.len() {
                    let gap = width.saturating_sub(cell.chars().count()).saturating_add(2);
                    line.push_str(&" ".repeat(gap));
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
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

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_nothing_trails() {
        let mut table = Table::new(&["GUEST", "STATE"]);
        table.row(vec![
            ("infotainment".to_owned(), Tone::Plain),
            ("running".to_owned(), Tone::Good),
        ]);
        table.row(vec![
            ("ä".to_owned(), Tone::Plain),
            (String::new(), Tone::Plain),
        ]);
        assert_eq!(
            table.text(false),
            "GUEST         STATE\ninfotainment  running\nä\n"
        );
        assert!(table.text(true).contains("\u{1b}[32mrunning\u{1b}[0m"));
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
