// SPDX-License-Identifier: Apache-2.0
//! Lists and details, for a person in 80 columns or as JSON.

use crate::error::CtlError;
use crate::snapshot::{Device, Guest, Service, Stream};
use crate::table::{Table, Tone, colours, count, paint, span, width, wrap};
use crate::{say, say_json};
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// For how long a guest runs, in seconds.
pub(crate) fn uptime(guest: &Guest) -> Option<u64> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let started = guest.started_usec.checked_div(1_000_000)?;
    (started > 0).then(|| now.as_secs().saturating_sub(started))
}

pub(crate) fn list(guests: &[Guest], json: bool) -> Result<(), CtlError> {
    if json {
        return say_json(&guests);
    }
    if guests.is_empty() {
        return say("There are no guests. Their files belong in /etc/agl-virtio/guests.d\n");
    }
    let mut table = Table::new(&["GUEST", "STATE", "UPTIME", "RESTARTS", "DEVICES"], 5);
    for guest in guests {
        let devices: Vec<String> = guest
            .devices
            .iter()
            .map(
                |device| match (device.service_state.as_str(), device.attached) {
                    (_, true) => device.name.clone(),
                    ("isolated", _) => format!("{}!", device.name),
                    _ => format!("({})", device.name),
                },
            )
            .collect();
        table.row(vec![
            (guest.name.clone(), Tone::Plain),
            (guest.state.clone(), Tone::of_state(&guest.state)),
            (uptime(guest).map_or("-".to_owned(), span), Tone::Plain),
            (guest.restarts.to_string(), Tone::Plain),
            (devices.join(" "), Tone::Plain),
        ]);
    }
    say(&table.text(colours(), width()))
}

pub(crate) fn status(guests: &[Guest], name: Option<&str>, json: bool) -> Result<(), CtlError> {
    let wanted: Vec<&Guest> = guests
        .iter()
        .filter(|guest| name.is_none_or(|name| guest.name == name))
        .collect();
    if let (Some(name), true) = (name, wanted.is_empty()) {
        let known: Vec<&str> = guests.iter().map(|guest| guest.name.as_str()).collect();
        let known = known.join(", ");
        return Err(CtlError::Usage(format!(
            "there is no guest {name}: write one of {known}"
        )));
    }
    if json {
        return match wanted.as_slice() {
            [guest] if name.is_some() => say_json(guest),
            guests => say_json(&guests),
        };
    }
    let (colours, width) = (colours(), width());
    let texts: Vec<String> = wanted
        .iter()
        .map(|guest| details(guest, colours, width))
        .collect();
    say(&texts.join("\n"))
}

fn details(guest: &Guest, colours: bool, width: Option<usize>) -> String {
    let mut text = String::new();
    let state = paint(&guest.state, Tone::of_state(&guest.state), colours);
    let title = paint(&guest.name, Tone::Head, colours);
    let description = match guest.description.as_str() {
        "" => String::new(),
        description => {
            // The name's line has less room.
            let name = guest.name.chars().count().saturating_add(3);
            let room = width.map(|width| width.saturating_sub(name).max(20));
            let indent = " ".repeat(name);
            format!(
                " - {}",
                wrap(description, room).join(&format!("\n{indent}"))
            )
        }
    };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{title}{description}");
    let mut line = |name: &str, value: &str, tone: Tone| {
        let room = width.map(|width| width.saturating_sub(12));
        for (index, part) in wrap(value, room).iter().enumerate() {
            let (name, colon) = if index == 0 { (name, ':') } else { ("", ' ') };
            let _ = writeln!(text, "{name:>10}{colon} {}", paint(part, tone, colours));
        }
    };
    let since = uptime(guest).map_or(String::new(), |seconds| format!(" for {}", span(seconds)));
    line("State", &format!("{state}{since}"), Tone::Plain);
    if !guest.exit_reason.is_empty() {
        line("Last end", &guest.exit_reason, Tone::Plain);
    }
    let memory = guest.memory.checked_div(1 << 20).unwrap_or(0);
    let pid = match guest.pid {
        0 => String::new(),
        pid => format!(", process {pid}"),
    };
    let machine = format!("{}, {} CPU, {memory} MiB{pid}", guest.vmm, guest.cpus);
    line("Machine", &machine, Tone::Plain);
    let restarts = format!("{} (policy {})", guest.restarts, guest.restart_policy);
    line("Restarts", &restarts, Tone::Plain);
    if guest.changes_pending {
        let note = "the file has changes for the next start";
        line("Pending", note, Tone::Busy);
    }
    text.push_str(&devices(guest, colours, width));
    text
}

fn devices(guest: &Guest, colours: bool, width: Option<usize>) -> String {
    if guest.devices.is_empty() {
        return "   Devices: none\n".to_owned();
    }
    let mut table = Table::new(
        &[
            "  DEVICE", "TYPE", "SERVICE", "DRIVER", "REQUESTS", "ERRORS", "RESTARTS",
        ],
        4,
    );
    for device in &guest.devices {
        table.row(device_row(device));
        if !device.reason.is_empty() {
            table.note(device.reason.clone(), Tone::Bad);
        }
        for line in device.service.iter().flat_map(service_lines) {
            table.note(line, Tone::Plain);
        }
        if !device.conformance_report.is_empty() {
            let line = format!(
                "self-test {}: {}",
                device.conformance, device.conformance_report
            );
            table.note(line, Tone::of_state(&device.conformance));
        }
        for stream in device.service.iter().flat_map(|service| &service.streams) {
            table.note(stream_line(stream), Tone::Plain);
        }
    }
    table.text(colours, width)
}

/// A time in microseconds with the unit that suits it.
pub(crate) fn micros(time: u64) -> String {
    match time {
        0..=9_999 => format!("{time} us"),
        _ => format!("{} ms", time.checked_div(1000).unwrap_or(0)),
    }
}

/// What a running service tells of its driver and of how long requests were with it.
fn service_lines(service: &Service) -> Vec<String> {
    let offered = service.features_offered;
    let mut lines = vec![match service.features_acknowledged {
        0 => format!("features {offered:#x} offered, and no driver yet"),
        acknowledged => format!("features {acknowledged:#x}, of {offered:#x} offered"),
    }];
    if service.first_queue("requests") > 0 {
        let within = |share| {
            service
                .latency(share)
                .map_or("more than 1 s".to_owned(), micros)
        };
        let (half, most) = (within(0.5), within(0.99));
        lines.push(format!(
            "first queue: half of the requests within {half}, 99 % within {most}"
        ));
    }
    lines
}

fn device_row(device: &Device) -> Vec<(String, Tone)> {
    let service = device.service.as_ref();
    let driver = match service {
        Some(service) => service.state.clone(),
        None => "-".to_owned(),
    };
    let total = |counter: &str| {
        service.map_or("-".to_owned(), |service| {
            #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
            let total = service.total(counter) as f64;
            count(total)
        })
    };
    let restarts = device
        .restarts
        .saturating_add(service.map_or(0, |service| service.restarts));
    let tone = Tone::of_state(&device.service_state);
    vec![
        (format!("  {}", device.name), Tone::Plain),
        (device.device_type.clone(), Tone::Plain),
        (device.service_state.clone(), tone),
        (driver.clone(), Tone::of_state(&driver)),
        (total("requests"), Tone::Plain),
        (total("errors"), Tone::Plain),
        (restarts.to_string(), Tone::Plain),
    ]
}

pub(crate) fn stream_line(stream: &Stream) -> String {
    let mut text = format!("{} {} ({})", stream.direction, stream.name, stream.role);
    let percent = (stream.volume * 100.0).round();
    let _ = write!(text, " {}, volume {percent} %", stream.state);
    if stream.mute {
        text.push_str(", muted");
    }
    if stream.duck < 0.0 {
        let _ = write!(text, ", steps back {} dB", -stream.duck);
    }
    if stream.state == "running" && stream.latency_usec > 0 {
        let _ = write!(text, ", latency {}", micros(stream.latency_usec));
    }
    match stream.xruns {
        0 => {}
        1 => text.push_str(", 1 xrun"),
        xruns => {
            let _ = write!(text, ", {xruns} xruns");
        }
    }
    text
}
