// SPDX-License-Identifier: Apache-2.0
//! Guests and devices with their rates, live on the whole terminal.

use crate::error::CtlError;
use crate::snapshot::{self, Device, Guest};
use crate::table::{Tone, count, span};
use crate::views::uptime;
use agl_virtio_client::zbus::Connection;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table};
use ratatui::{DefaultTerminal, Frame};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What the counters of a device were.
type Counters = BTreeMap<(String, String), (u64, u64)>;

/// A look at everything, and the rates since the look before.
struct Look {
    guests: Vec<Guest>,
    rates: BTreeMap<(String, String), (f64, f64)>,
    fault: Option<String>,
}

pub(crate) async fn run(bus: &Connection, interval: f64) -> Result<(), CtlError> {
    if !(0.1..=3600.0).contains(&interval) {
        let text = "write an interval from 0.1 to 3600 seconds".to_owned();
        return Err(CtlError::Usage(text));
    }
    let interval = Duration::from_secs_f64(interval);
    // Before the screen is taken: a manager that is not there is said in a line.
    snapshot::take(bus).await?;
    let mut terminal = ratatui::try_init().map_err(CtlError::Terminal)?;
    let result = watch(bus, interval, &mut terminal).await;
    ratatui::restore();
    result
}

async fn watch(
    bus: &Connection,
    interval: Duration,
    terminal: &mut DefaultTerminal,
) -> Result<(), CtlError> {
    let mut before: Option<(Counters, Instant)> = None;
    loop {
        let now = Instant::now();
        let look = match snapshot::take(bus).await {
            Ok(guests) => look(guests, &mut before, now),
            Err(error) => Look {
                guests: Vec::new(),
                rates: BTreeMap::new(),
                fault: Some(CtlError::from(error).to_string()),
            },
        };
        loop {
            terminal
                .draw(|frame| draw(frame, &look))
                .map_err(CtlError::Terminal)?;
            let left = interval.saturating_sub(now.elapsed());
            if left.is_zero() || !event::poll(left).map_err(CtlError::Terminal)? {
                break;
            }
            let event = event::read().map_err(CtlError::Terminal)?;
            if is_end(&event) {
                return Ok(());
            }
        }
    }
}

fn is_end(event: &Event) -> bool {
    let Event::Key(key) = event else {
        return false;
    };
    let interrupt = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press
        && (interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

fn look(guests: Vec<Guest>, before: &mut Option<(Counters, Instant)>, now: Instant) -> Look {
    let counters: Counters = guests
        .iter()
        .flat_map(|guest| &guest.devices)
        .filter_map(|device| {
            let service = device.service.as_ref()?;
            let bytes = service
                .total("bytes_read")
                .saturating_add(service.total("bytes_written"));
            let key = (device.guest.clone(), device.name.clone());
            Some((key, (service.total("requests"), bytes)))
        })
        .collect();
    let mut rates = BTreeMap::new();
    if let Some((old, then)) = before {
        let seconds = now.saturating_duration_since(*then).as_secs_f64();
        for (key, (requests, bytes)) in &counters {
            if let Some((old_requests, old_bytes)) = old.get(key) {
                let per_second = |new: u64, old: u64| {
                    // A service that was restarted counts from zero.
                    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
                    let difference = new.saturating_sub(old) as f64;
                    difference / seconds.max(0.001)
                };
                let rate = (
                    per_second(*requests, *old_requests),
                    per_second(*bytes, *old_bytes),
                );
                rates.insert(key.clone(), rate);
            }
        }
    }
    *before = Some((counters, now));
    Look {
        guests,
        rates,
        fault: None,
    }
}

fn style(tone: Tone) -> Style {
    let style = Style::new();
    match tone {
        Tone::Plain => style,
        Tone::Head => style.add_modifier(Modifier::BOLD),
        Tone::Good => style.fg(Color::Green),
        Tone::Busy => style.fg(Color::Yellow),
        Tone::Bad => style.fg(Color::Red).add_modifier(Modifier::BOLD),
        Tone::Quiet => style.add_modifier(Modifier::DIM),
    }
}

fn draw(frame: &mut Frame<'_>, look: &Look) {
    let [head, body, foot] = Layout::vertical([
        Constraint::Length(2),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let running = look
        .guests
        .iter()
        .filter(|guest| guest.state == "running")
        .count();
    let title = match &look.fault {
        Some(fault) => Line::styled(fault.clone(), style(Tone::Bad)),
        None => Line::from(vec![
            Span::styled("agl-virtio", style(Tone::Head)),
            Span::raw(format!("  {running} of {} guests run", look.guests.len())),
        ]),
    };
    frame.render_widget(Paragraph::new(title), head);
    let widths = [
        Constraint::Min(16),
        Constraint::Length(5),
        Constraint::Length(11),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(7),
        Constraint::Length(6),
        Constraint::Length(8),
    ];
    let heads = [
        "GUEST/DEVICE",
        "TYPE",
        "STATE",
        "REQ/S",
        "BYTE/S",
        "ERRORS",
        "XRUNS",
        "LATENCY",
    ];
    let rows = look.guests.iter().flat_map(|guest| {
        let devices = guest.devices.iter().map(|device| device_row(device, look));
        std::iter::once(guest_row(guest)).chain(devices)
    });
    let table = Table::new(rows, widths)
        .column_spacing(1)
        .header(Row::new(heads).style(style(Tone::Head)));
    frame.render_widget(table, body);
    let keys = Line::styled("q: end", style(Tone::Quiet));
    frame.render_widget(Paragraph::new(keys), foot);
}

fn guest_row(guest: &Guest) -> Row<'static> {
    let tone = Tone::of_state(&guest.state);
    Row::new(vec![
        Cell::from(guest.name.clone()).style(style(Tone::Head)),
        Cell::from(guest.vmm.clone()),
        Cell::from(guest.state.clone()).style(style(tone)),
        Cell::from(uptime(guest).map_or(String::new(), span)),
    ])
}

fn device_row(device: &Device, look: &Look) -> Row<'static> {
    let key = (device.guest.clone(), device.name.clone());
    let rate = look.rates.get(&key);
    let service = device.service.as_ref();
    let state = match service {
        Some(service) => service.state.clone(),
        None => device.service_state.clone(),
    };
    let latency = service
        .into_iter()
        .flat_map(|service| &service.streams)
        .filter(|stream| stream.state == "running")
        .map(|stream| stream.latency_usec)
        .max()
        // A device without streams: what nearly all of its requests have needed.
        .or_else(|| service.and_then(|service| service.latency(0.99)));
    let number = |value: Option<u64>| value.map_or("-".to_owned(), |value| value.to_string());
    Row::new(vec![
        Cell::from(format!("  {}", device.name)),
        Cell::from(device.device_type.clone()),
        Cell::from(state.clone()).style(style(Tone::of_state(&state))),
        Cell::from(rate.map_or("-".to_owned(), |(requests, _)| count(*requests))),
        Cell::from(rate.map_or("-".to_owned(), |(_, bytes)| count(*bytes))),
        Cell::from(number(service.map(|service| service.total("errors")))),
        Cell::from(number(service.map(crate::snapshot::Service::xruns))),
        Cell::from(latency.map_or("-".to_owned(), crate::views::micros)),
    ])
}
