// SPDX-License-Identifier: Apache-2.0
//! Guests and devices with their rates, live on the whole terminal, or as JSON.

use crate::error::CtlError;
use crate::say;
use crate::screen::{Look, heading, name_width, rows, style, title};
use crate::snapshot;
use crate::table::Tone;
use agl_virtio_client::zbus::Connection;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::text::Line;
use ratatui::widgets::Paragraph;
use ratatui::{DefaultTerminal, Frame};
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A service has so long to answer: no key is heard meanwhile.
const ANSWER: Duration = Duration::from_secs(2);

pub(crate) async fn run(bus: &Connection, interval: f64, json: bool) -> Result<(), CtlError> {
    if !(0.1..=3600.0).contains(&interval) {
        let text = "write an interval from 0.1 to 3600 seconds".to_owned();
        return Err(CtlError::Usage(text));
    }
    let interval = Duration::from_secs_f64(interval);
    if json {
        return tell(bus, interval).await;
    }
    if !std::io::stdin().is_terminal() || !std::io::stdout().is_terminal() {
        let text = "top needs a terminal: write top --json, or status".to_owned();
        return Err(CtlError::Usage(text));
    }
    // Before the screen is taken: a manager that is not there is said in a line.
    snapshot::take(bus).await?;
    let mut terminal = ratatui::try_init().map_err(CtlError::Terminal)?;
    let result = watch(bus, interval, &mut terminal).await;
    ratatui::restore();
    result
}

/// A line of JSON for each look, until interrupted.
async fn tell(bus: &Connection, interval: Duration) -> Result<(), CtlError> {
    let mut before = None;
    let mut clock = tokio::time::interval(interval);
    loop {
        clock.tick().await;
        let look = Look::new(snapshot::take(bus).await?, &mut before, Instant::now());
        say(&format!("{}\n", as_json(&look)))?;
    }
}

fn as_json(look: &Look) -> Value {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let usec = since.map_or(0, |since| {
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    });
    let rates = look.guests.iter().flat_map(|guest| &guest.devices);
    let rates = rates.filter_map(|device| {
        let rate = look.rate(device)?;
        Some(json!({ "guest": device.guest, "device": device.name, "rate": rate }))
    });
    json!({ "usec": usec, "guests": look.guests, "rates": rates.collect::<Vec<_>>() })
}

async fn watch(
    bus: &Connection,
    interval: Duration,
    terminal: &mut DefaultTerminal,
) -> Result<(), CtlError> {
    let mut before = None;
    // The first line that is shown.
    let mut first = 0;
    loop {
        let now = Instant::now();
        let look = match snapshot::take_within(bus, ANSWER).await {
            Ok(guests) => Look::new(guests, &mut before, now),
            Err(error) => Look {
                fault: Some(CtlError::from(error).to_string()),
                ..Look::default()
            },
        };
        loop {
            terminal
                .draw(|frame| draw(frame, &look, &mut first))
                .map_err(CtlError::Terminal)?;
            let left = interval.saturating_sub(now.elapsed());
            if left.is_zero() || !event::poll(left).map_err(CtlError::Terminal)? {
                break;
            }
            if let Event::Key(key) = event::read().map_err(CtlError::Terminal)? {
                if is_end(&key) {
                    return Ok(());
                }
                first = scrolled(first, &key);
            }
        }
    }
}

fn is_end(key: &KeyEvent) -> bool {
    let interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press
        && (interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

fn scrolled(first: usize, key: &KeyEvent) -> usize {
    match key.code {
        KeyCode::Down => first.saturating_add(1),
        KeyCode::Up => first.saturating_sub(1),
        KeyCode::PageDown => first.saturating_add(10),
        KeyCode::PageUp => first.saturating_sub(10),
        KeyCode::Home => 0,
        KeyCode::End => usize::MAX,
        _ => first,
    }
}

/// `first` does not stay beyond the last line.
fn draw(frame: &mut Frame<'_>, look: &Look, first: &mut usize) {
    let [head, columns, body, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(1),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let width = usize::from(frame.area().width);
    let name = name_width(look, width);
    let lines = rows(look, name, width);
    let (room, all) = (usize::from(body.height), lines.len());
    *first = (*first).min(all.saturating_sub(room));
    let mut keys = "q: end".to_owned();
    if all > room {
        let from = first.saturating_add(1);
        let to = first.saturating_add(room).min(all);
        keys.push_str(&format!(
            "   arrows: scroll   lines {from} to {to} of {all}"
        ));
    }
    let lines: Vec<Line<'_>> = lines.into_iter().skip(*first).take(room).collect();
    frame.render_widget(Paragraph::new(title(look)), head);
    frame.render_widget(Paragraph::new(heading(name)), columns);
    frame.render_widget(Paragraph::new(lines), body);
    let keys = Line::styled(keys, style(Tone::Quiet));
    frame.render_widget(Paragraph::new(keys), foot);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Guest;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn shown(look: &Look, first: &mut usize) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(80, 8)).unwrap();
        terminal.draw(|frame| draw(frame, look, first)).unwrap();
        let cells = terminal.backend().buffer().content();
        let lines = cells.chunks(80).map(|cells| {
            let line: String = cells.iter().map(|cell| cell.symbol()).collect();
            line.trim_end().to_owned()
        });
        lines.collect()
    }

    #[test]
    fn what_does_not_fit_can_be_scrolled_to_and_not_beyond() {
        let guest = |index: usize| Guest {
            name: format!("guest{index}"),
            state: "stopped".to_owned(),
            ..Guest::default()
        };
        let look = Look {
            guests: (0..9).map(guest).collect(),
            ..Look::default()
        };
        let mut first = 0;
        let lines = shown(&look, &mut first);
        assert!(lines[3].starts_with("guest0 "), "{lines:#?}");
        assert_eq!(lines[7], "q: end   arrows: scroll   lines 1 to 4 of 9");
        first = scrolled(first, &KeyEvent::from(KeyCode::End));
        let lines = shown(&look, &mut first);
        assert!(lines[6].starts_with("guest8 "), "{lines:#?}");
        assert_eq!(
            (first, lines[7].as_str()),
            (5, "q: end   arrows: scroll   lines 6 to 9 of 9")
        );
        first = scrolled(first, &KeyEvent::from(KeyCode::Up));
        assert!(shown(&look, &mut first)[3].starts_with("guest4 "));
    }

    #[test]
    fn a_manager_that_left_is_told_where_the_guests_were() {
        let look = Look {
            fault: Some("the manager is not on the bus".to_owned()),
            ..Look::default()
        };
        assert_eq!(shown(&look, &mut 0)[0], "the manager is not on the bus");
    }
}
