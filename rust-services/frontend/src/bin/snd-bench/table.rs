// SPDX-License-Identifier: Apache-2.0
//! The table of results: Markdown for people, JSON for programs.
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use frontend::Result;

use crate::distribution::Distribution;
use crate::subject::io;

/// What a figure of ours is to be at most.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Aim {
    /// These numbers.
    AtMost { required: f64, aim: f64 },
    /// These shares of the peer's figure.
    ShareOfPeer { required: f64, aim: f64 },
    /// The peer's figure is required, a multiple of the floor is the aim.
    PeerThenFloor { floor: f64, aim: f64 },
    /// Shown without a goal.
    None,
}

impl Aim {
    /// No more than the peer; half of it is the aim.
    pub(crate) const HALF_OF_PEER: Self = Self::ShareOfPeer {
        required: 1.0,
        aim: 0.5,
    };

    /// No more than `required`; no more than `aim` is the aim.
    pub(crate) const fn at_most(required: f64, aim: f64) -> Self {
        Self::AtMost { required, aim }
    }

    /// The two limits as numbers; without a peer there may be none.
    fn limits(self, peer: Option<f64>) -> (Option<f64>, Option<f64>) {
        match self {
            Self::AtMost { required, aim } => (Some(required), Some(aim)),
            Self::ShareOfPeer { required, aim } => (
                peer.map(|peer| peer * required),
                peer.map(|peer| peer * aim),
            ),
            Self::PeerThenFloor { floor, aim } => (peer, Some(floor * aim)),
            Self::None => (None, None),
        }
    }
}

/// One metric.
#[derive(Debug)]
pub(crate) struct Row {
    metric: String,
    unit: &'static str,
    aim: Aim,
    floor: Option<f64>,
    peer: Option<f64>,
    ours: Option<f64>,
}

impl Row {
    pub(crate) fn new(metric: impl Into<String>, unit: &'static str, aim: Aim) -> Self {
        Self {
            metric: metric.into(),
            unit,
            aim,
            floor: None,
            peer: None,
            ours: None,
        }
    }

    /// The figure of "ours", "peer" or "floor".
    pub(crate) fn set(&mut self, whose: &str, figure: f64) {
        match whose {
            "ours" => self.ours = Some(figure),
            "peer" => self.peer = Some(figure),
            _ => self.floor = Some(figure),
        }
    }

    fn ratio(&self) -> Option<f64> {
        Some(self.ours? / self.peer?)
    }

    fn verdict(&self) -> &'static str {
        /// Two measurements of the same thing differ by less.
        const SAME: f64 = 1.005;
        let (required, aim) = self.aim.limits(self.peer);
        match (self.ours, required, aim) {
            (Some(ours), _, Some(aim)) if ours <= aim * SAME => "aim met",
            (Some(ours), Some(required), _) if ours <= required * SAME => "required met",
            (Some(_), Some(_), _) => "missed",
            _ => "–",
        }
    }
}

/// All metrics, and what must be said about them.
#[derive(Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Table {
    pub(crate) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    /// Four rows of a distribution, in µs; the median has goals where the floor is known.
    pub(crate) fn push_distribution(
        &mut self,
        metric: &str,
        whose: &[(&str, Distribution)],
        floor: Option<u64>,
    ) {
        let goal = floor.map_or(Aim::None, |floor| Aim::PeerThenFloor {
            floor: floor as f64 / 1000.0,
            aim: 1.3,
        });
        let mut push = |name: &str, figure: fn(&Distribution) -> u64, aim: Aim| {
            let mut row = Row::new(format!("{metric}, {name}"), "µs", aim);
            for (subject, distribution) in whose {
                row.set(subject, figure(distribution) as f64 / 1000.0);
            }
            self.rows.push(row);
        };
        push("p50", |run| run.p50, goal);
        push("p99", |run| run.p99, Aim::None);
        push("p99.9", |run| run.p999, Aim::None);
        push("max", |run| run.max, Aim::None);
    }

    /// Four rows of how late buffers came back, in µs: less than a period, aimed at a millisecond.
    pub(crate) fn push_lateness(&mut self, metric: &str, lateness: &Distribution) {
        let within = Aim::at_most(10_000.0, 1000.0);
        for (name, figure, aim) in [
            ("p50", lateness.p50, Aim::None),
            ("p99", lateness.p99, Aim::None),
            ("p99.9", lateness.p999, within),
            ("max", lateness.max, Aim::None),
        ] {
            let mut row = Row::new(format!("{metric}, {name}"), "µs", aim);
            row.set("ours", figure as f64 / 1000.0);
            self.rows.push(row);
        }
    }

    pub(crate) fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Print it, and write it to the files that were asked for.
    pub(crate) fn write(&self, markdown: Option<&Path>, json: Option<&Path>) -> Result<()> {
        let text = self.to_markdown();
        print!("{text}");
        if let Some(path) = markdown {
            fs::write(path, text).map_err(io("write the table"))?;
        }
        if let Some(path) = json {
            fs::write(path, self.to_json()).map_err(io("write the figures"))?;
        }
        Ok(())
    }

    fn to_markdown(&self) -> String {
        let mut text = String::from(
            "| metric | floor | peer | ours | ours / peer | required | aim | verdict |\n\
             | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |\n",
        );
        for row in &self.rows {
            let shown = |figure| show(figure, row.unit);
            let (required, aim) = row.aim.limits(row.peer);
            let ratio = row
                .ratio()
                .map_or_else(|| "–".into(), |ratio| format!("{ratio:.2}"));
            let limit = |figure| match figure {
                Some(figure) => format!("≤ {}", show(Some(figure), row.unit)),
                None => "–".into(),
            };
            // Writing to a string cannot fail.
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {ratio} | {} | {} | {} |",
                row.metric,
                shown(row.floor),
                shown(row.peer),
                shown(row.ours),
                limit(required),
                limit(aim),
                row.verdict()
            );
        }
        for note in &self.notes {
            let _ = writeln!(text, "\n{note}");
        }
        text
    }

    fn to_json(&self) -> String {
        let number = |figure: Option<f64>| figure.map_or("null".into(), |it| format!("{it:.3}"));
        let rows: Vec<String> = self
            .rows
            .iter()
            .map(|row| {
                format!(
                    "  {{\"metric\": \"{}\", \"unit\": \"{}\", \"floor\": {}, \"peer\": {}, \
                     \"ours\": {}, \"ratio\": {}, \"verdict\": \"{}\"}}",
                    row.metric,
                    row.unit,
                    number(row.floor),
                    number(row.peer),
                    number(row.ours),
                    number(row.ratio()),
                    row.verdict()
                )
            })
            .collect();
        format!("[\n{}\n]\n", rows.join(",\n"))
    }
}

/// A figure with as many digits as it deserves.
fn show(figure: Option<f64>, unit: &str) -> String {
    let Some(figure) = figure else {
        return "–".into();
    };
    let number = if figure >= 100.0 {
        thousands(figure)
    } else {
        format!("{figure:.2}")
    };
    if unit.is_empty() {
        number
    } else {
        format!("{number} {unit}")
    }
}

/// A whole number with commas.
fn thousands(figure: f64) -> String {
    let digits = format!("{figure:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_judged_by_its_aim_then_by_what_is_required() {
        let judged = |ours: f64, aim: Aim| {
            let mut row = Row::new("metric", "", aim);
            row.set("ours", ours);
            row.set("peer", 100.0);
            row.verdict()
        };
        assert_eq!(judged(50.0, Aim::HALF_OF_PEER), "aim met");
        assert_eq!(judged(51.0, Aim::HALF_OF_PEER), "required met");
        assert_eq!(judged(101.0, Aim::HALF_OF_PEER), "missed");
        assert_eq!(
            judged(
                3.0,
                Aim::AtMost {
                    required: 3.0,
                    aim: 2.0
                }
            ),
            "required met"
        );
        assert_eq!(judged(1.0, Aim::None), "–");
    }

    #[test]
    fn figures_are_written_with_commas_or_two_digits() {
        assert_eq!(show(Some(6317.4), ""), "6,317");
        assert_eq!(show(Some(5.5), "µs"), "5.50 µs");
        assert_eq!(show(Some(1_234_567.0), ""), "1,234,567");
        assert_eq!(show(None, "µs"), "–");
    }
}
