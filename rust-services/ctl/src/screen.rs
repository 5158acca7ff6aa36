// SPDX-License-Identifier: Apache-2.0
//! What `top` shows, as lines: all of it is decided here, and nothing depends on a terminal.

use crate::snapshot::{Device, Guest, Service};
use crate::table::{Tone, count, cut, span, wrap};
use crate::views::{micros, stream_line, uptime};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use serde::Serialize;
use std::collections::BTreeMap;
use std::time::Instant;

/// How much a device did in a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Rate {
    pub(crate) requests_per_s: f64,
    pub(crate) bytes_per_s: f64,
}

/// A guest and a device of it.
type Key = (String, String);

/// What the counters of a device were: requests and bytes.
type Counters = BTreeMap<Key, (u64, u64)>;

/// A look at everything, and the rates since the look before.
#[derive(Debug, Default)]
pub(crate) struct Look {
    pub(crate) guests: Vec<Guest>,
    pub(crate) rates: BTreeMap<Key, Rate>,
    pub(crate) fault: Option<String>,
}

impl Look {
    /// What was seen now; `before` is what was seen the time before, and becomes this.
    pub(crate) fn new(
        guests: Vec<Guest>,
        before: &mut Option<(Counters, Instant)>,
        now: Instant,
    ) -> Self {
        let devices = guests.iter().flat_map(|guest| &guest.devices);
        let counters: Counters = devices
            .filter_map(|device| {
                let service = device.service.as_ref()?;
                let read = service.total("bytes_read");
                let bytes = read.saturating_add(service.total("bytes_written"));
                Some((key(device), (service.total("requests"), bytes)))
            })
            .collect();
        let mut rates = BTreeMap::new();
        if let Some((old, then)) = before {
            let seconds = now.saturating_duration_since(*then).as_secs_f64();
            // A service that was restarted counts from zero.
            #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
            let per_second =
                |new: u64, old: u64| new.saturating_sub(old) as f64 / seconds.max(0.001);
            for (key, (requests, bytes)) in &counters {
                if let Some((old_requests, old_bytes)) = old.get(key) {
                    let rate = Rate {
                        requests_per_s: per_second(*requests, *old_requests),
                        bytes_per_s: per_second(*bytes, *old_bytes),
                    };
                    rates.insert(key.clone(), rate);
                }
            }
        }
        *before = Some((counters, now));
        Self {
            guests,
            rates,
            fault: None,
        }
    }

    pub(crate) fn rate(&self, device: &Device) -> Option<Rate> {
        self.rates.get(&key(device)).copied()
    }
}

fn key(device: &Device) -> Key {
    (device.guest.clone(), device.name.clone())
}

pub(crate) fn style(tone: Tone) -> Style {
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

/// The line at the top.
pub(crate) fn title(look: &Look) -> Line<'static> {
    if let Some(fault) = &look.fault {
        return Line::styled(fault.clone(), style(Tone::Bad));
    }
    let of = |states: &[&str]| {
        let states = |guest: &&Guest| states.contains(&guest.state.as_str());
        look.guests.iter().filter(states).count()
    };
    let mut spans = vec![
        Span::styled("agl-virtio", style(Tone::Head)),
        Span::raw(format!(
            "  {} of {} guests run",
            of(&["running"]),
            look.guests.len()
        )),
    ];
    let lost = of(&["failed", "isolated"]);
    if lost > 0 {
        spans.push(Span::raw(", "));
        spans.push(Span::styled(format!("{lost} failed"), style(Tone::Bad)));
    }
    Line::from(spans)
}

/// What is right of a name, each with a space before it.
const TYPE: usize = 5;
const STATE: usize = 11;
const NUMBERS: [(&str, usize); 5] = [
    ("REQ/S", 6),
    ("BYTE/S", 7),
    ("ERRORS", 6),
    ("XRUNS", 5),
    ("LATENCY", 8),
];

/// All of these together.
fn right() -> usize {
    let numbers = NUMBERS.into_iter().map(|(_, width)| width);
    [TYPE, STATE]
        .into_iter()
        .chain(numbers)
        .fold(0, |sum, width| sum.saturating_add(width).saturating_add(1))
}

/// How wide the names' column is: as the longest name, as far as there is room.
pub(crate) fn name_width(look: &Look, width: usize) -> usize {
    let guests = look.guests.iter().map(|guest| guest.name.chars().count());
    let devices = look.guests.iter().flat_map(|guest| &guest.devices);
    let devices = devices.map(|device| device.name.chars().count().saturating_add(2));
    let longest = guests.chain(devices).max().unwrap_or(0);
    longest.max(16).min(width.saturating_sub(right())).max(8)
}

/// The columns' heading.
pub(crate) fn heading(name: usize) -> Line<'static> {
    let mut text = format!(
        "{:<name$} {:<TYPE$} {:<STATE$}",
        "GUEST/DEVICE", "TYPE", "STATE"
    );
    for (head, width) in NUMBERS {
        text.push_str(&format!(" {head:>width$}"));
    }
    Line::styled(text, style(Tone::Head))
}

/// A line for each guest, each device of it, and each stream that plays or records.
pub(crate) fn rows(look: &Look, name: usize, width: usize) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for guest in &look.guests {
        lines.push(guest_line(guest, name, width));
        for device in &guest.devices {
            lines.push(device_line(device, look.rate(device), name, width));
            let streams = device.service.iter().flat_map(|service| &service.streams);
            for stream in streams.filter(|stream| stream.state == "running") {
                let room = Some(width.saturating_sub(6));
                for (index, line) in wrap(&stream_line(stream), room).iter().enumerate() {
                    let indent = if index == 0 { "    " } else { "      " };
                    lines.push(Line::raw(format!("{indent}{line}")));
                }
            }
        }
    }
    lines
}

fn begin(label: &str, tone: Tone, kind: &str, state: &str, name: usize) -> Vec<Span<'static>> {
    let label = cut(label, name);
    vec![
        Span::styled(format!("{label:<name$} "), style(tone)),
        Span::raw(format!("{:<TYPE$} ", cut(kind, TYPE))),
        Span::styled(format!("{state:<STATE$} "), style(Tone::of_state(state))),
    ]
}

/// How much room there is beside a name, its type and its state.
fn beside(name: usize, width: usize) -> usize {
    [name, TYPE, STATE].into_iter().fold(width, |room, column| {
        room.saturating_sub(column.saturating_add(1))
    })
}

fn guest_line(guest: &Guest, name: usize, width: usize) -> Line<'static> {
    let mut spans = begin(&guest.name, Tone::Head, "guest", &guest.state, name);
    let restarts = match guest.restarts {
        0 => String::new(),
        1 => ", 1 restart".to_owned(),
        restarts => format!(", {restarts} restarts"),
    };
    match (uptime(guest), guest.state.as_str()) {
        (Some(seconds), _) => {
            let text = format!("{}, {}{restarts}", span(seconds), guest.vmm);
            spans.push(Span::raw(text));
        }
        (None, "failed" | "isolated" | "restarting") => {
            // How often is told in every width; why, as far as there is room.
            let room = beside(name, width).saturating_sub(restarts.chars().count());
            let text = format!("{}{restarts}", cut(&guest.exit_reason, room));
            spans.push(Span::styled(text, style(Tone::of_state(&guest.state))));
        }
        (None, _) => spans.push(Span::raw(guest.vmm.clone())),
    }
    Line::from(spans)
}

fn device_line(device: &Device, rate: Option<Rate>, name: usize, width: usize) -> Line<'static> {
    let service = device.service.as_ref();
    let state = service.map_or(&device.service_state, |service| &service.state);
    let label = format!("  {}", device.name);
    let mut spans = begin(&label, Tone::Plain, &device.device_type, state, name);
    if service.is_none() && !device.reason.is_empty() {
        let reason = cut(&device.reason, beside(name, width));
        spans.push(Span::styled(reason, style(Tone::Bad)));
        return Line::from(spans);
    }
    let total = |of: fn(&Service) -> Option<u64>| service.and_then(of);
    let errors = total(|service| Some(service.total("errors")));
    let xruns = total(|service| (!service.streams.is_empty()).then(|| service.xruns()));
    let latency = total(|service| service.latency(0.99));
    let wrong = |count: Option<u64>| match count {
        Some(1..) => Tone::Bad,
        _ => Tone::Plain,
    };
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let short = |number: u64| count(number as f64);
    let cells = [
        (rate.map(|rate| count(rate.requests_per_s)), Tone::Plain),
        (rate.map(|rate| count(rate.bytes_per_s)), Tone::Plain),
        (errors.map(short), wrong(errors)),
        (xruns.map(short), wrong(xruns)),
        (latency.map(micros), Tone::Plain),
    ];
    for ((text, tone), (head, width)) in cells.into_iter().zip(NUMBERS) {
        let text = text.unwrap_or_else(|| "-".to_owned());
        // The space before the first number ends the state.
        let gap = if head == NUMBERS[0].0 { "" } else { " " };
        spans.push(Span::styled(format!("{gap}{text:>width$}"), style(tone)));
    }
    Line::from(spans)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Stream;
    use std::time::Duration;

    fn device(name: &str, requests: u64) -> Device {
        let counters = [
            ("requests", requests),
            ("bytes_read", requests),
            ("errors", 3),
        ];
        let queue = counters.map(|(name, count)| (name.to_owned(), count));
        Device {
            guest: "ivi".to_owned(),
            name: name.to_owned(),
            device_type: "snd".to_owned(),
            service_state: "running".to_owned(),
            service: Some(Service {
                state: "running".to_owned(),
                queues: vec![queue.into()],
                streams: vec![Stream {
                    name: "Play".to_owned(),
                    direction: "output".to_owned(),
                    state: "running".to_owned(),
                    role: "Multimedia".to_owned(),
                    volume: 1.0,
                    duck: -20.0,
                    xruns: 2,
                    latency_usec: 21_000,
                    ..Stream::default()
                }],
                ..Service::default()
            }),
            ..Device::default()
        }
    }

    fn guest(state: &str, devices: Vec<Device>) -> Guest {
        Guest {
            name: "ivi".to_owned(),
            state: state.to_owned(),
            vmm: "qemu".to_owned(),
            devices,
            ..Guest::default()
        }
    }

    fn texts(look: &Look, width: usize) -> Vec<String> {
        let name = name_width(look, width);
        let rows = rows(look, name, width);
        let lines = [heading(name)].into_iter().chain(rows);
        lines.map(|line| line.to_string()).collect()
    }

    #[test]
    fn rates_are_what_was_counted_since_the_look_before() {
        let mut before = None;
        let then = Instant::now();
        let first = Look::new(
            vec![guest("running", vec![device("cabin", 10)])],
            &mut before,
            then,
        );
        assert!(first.rates.is_empty());
        let now = then + Duration::from_secs(2);
        let devices = vec![device("cabin", 50), device("new", 7)];
        let second = Look::new(vec![guest("running", devices)], &mut before, now);
        let rate = second.rate(&device("cabin", 0)).unwrap();
        assert_eq!((rate.requests_per_s, rate.bytes_per_s), (20.0, 20.0));
        assert_eq!(second.rate(&device("new", 0)), None);
        let later = now + Duration::from_secs(1);
        let devices = vec![device("cabin", 1)];
        let restarted = Look::new(vec![guest("running", devices)], &mut before, later);
        let rate = restarted.rate(&device("cabin", 0)).unwrap();
        assert_eq!(rate.requests_per_s, 0.0, "a service that began anew");
    }

    #[test]
    fn eighty_columns_hold_every_number_below_its_heading_and_a_long_name_is_cut() {
        let long = device("announcements-and-navigation", 10);
        let mut before = None;
        let look = Look::new(
            vec![guest("running", vec![long])],
            &mut before,
            Instant::now(),
        );
        let lines = texts(&look, 80);
        for line in &lines {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(
            lines[2].starts_with("  announcements-and-navi…"),
            "{}",
            lines[2]
        );
        let end = |line: &str, word: &str| {
            line.find(word)
                .map(|at| line[..at].chars().count() + word.len())
        };
        assert_eq!(end(&lines[0], "ERRORS"), end(&lines[2], " 3"));
        assert_eq!(end(&lines[0], "XRUNS"), end(&lines[2], " 2"));
        assert_eq!(
            lines[3..5].join("|"),
            "    output Play (Multimedia) running, volume 100 %, steps back 20 dB, latency|      21 ms, 2 xruns"
        );
        let wide = texts(&look, 120);
        assert!(
            wide[2].contains("announcements-and-navigation snd"),
            "{}",
            wide[2]
        );
    }

    #[test]
    fn what_failed_says_why() {
        let mut lost = guest("failed", Vec::new());
        lost.exit_reason = "start: the monitor ended with code 1".to_owned();
        let look = Look {
            guests: vec![lost],
            ..Look::default()
        };
        assert_eq!(
            title(&look).to_string(),
            "agl-virtio  0 of 1 guests run, 1 failed"
        );
        let lines = texts(&look, 80);
        assert!(
            lines[1].contains("failed      start: the monitor ended"),
            "{}",
            lines[1]
        );
        let mut lost = guest("isolated", vec![device("card", 1)]);
        lost.exit_reason = "start: the monitor ended with code 1: there is no such disk".to_owned();
        lost.restarts = 3;
        lost.devices[0].service = None;
        lost.devices[0].reason = "has another type, function or socket in the file".to_owned();
        let look = Look {
            guests: vec![lost],
            ..Look::default()
        };
        let lines = texts(&look, 80);
        assert!(lines[1].ends_with("…, 3 restarts"), "{}", lines[1]);
        assert!(lines[2].ends_with('…'), "{}", lines[2]);
        assert!(lines.iter().all(|line| line.chars().count() <= 80));
        let lines = texts(&look, 140);
        assert!(
            lines[1].ends_with("no such disk, 3 restarts"),
            "{}",
            lines[1]
        );
    }
}
