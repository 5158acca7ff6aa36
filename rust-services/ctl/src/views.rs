// SPDX-License-Identifier: Apache-2.0
//! Lists and details, for a person in 80 columns or as JSON.

use crate::error::CtlError;
use crate::snapshot::{Device, Guest, Service, Stream};
use crate::table::{Table, Tone, colours, count, paint, span};
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
    let mut table = Table::new(&["GUEST", "STATE", "UPTIME", "RESTARTS", "DEVICES"]);
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
    say(&table.text(colours()))
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
    let colours = colours();
    let texts: Vec<String> = wanted.iter().map(|guest| details(guest, colours)).collect();
    say(&texts.join("\n"))
}

fn details(guest: &Guest, colours: bool) -> String {
    let mut text = String::new();
    let state = paint(&guest.state, Tone::of_state(&guest.state), colours);
    let title = paint(&guest.name, Tone::Head, colours);
    let dash = if guest.description.is_empty() {
        ""
    } else {
        " - "
    };
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{title}{dash}{}", guest.description);
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "{name:>10}: {value}");
    };
    let since = uptime(guest).map_or(String::new(), |seconds| format!(" for {}", span(seconds)));
    line("State", format!("{state}{since}"));
    if !guest.exit_reason.is_empty() {
        line("Last end", guest.exit_reason.clone());
    }
    let memory = guest.memory.checked_div(1 << 20).unwrap_or(0);
    let pid = match guest.pid {
        0 => String::new(),
        pid => format!(", process {pid}"),
    };
    line(
        "Machine",
        format!("{}, {} CPU, {memory} MiB{pid}", guest.vmm, guest.cpus),
    );
    line(
        "Restarts",
        format!("{} (policy {})", guest.restarts, guest.restart_policy),
    );
    if guest.changes_pending {
        let note = "the file has changes for the next start";
        line("Pending", paint(note, Tone::Busy, colours));
    }
    text.push_str(&devices(guest, colours));
    text
}

fn devices(guest: &Guest, colours: bool) -> String {
    if guest.devices.is_empty() {
        return "   Devices: none\n".to_owned();
    }
    let mut table = Table::new(&[
        "  DEVICE", "TYPE", "SERVICE", "DRIVER", "REQUESTS", "ERRORS", "RESTARTS",
    ]);
    let mut notes = String::new();
    for device in &guest.devices {
        table.row(device_row(device));
        if !device.reason.is_empty() {
            let reason = paint(&device.reason, Tone::Bad, colours);
            let _ = writeln!(notes, "  {}: {reason}", device.name);
        }
        for line in device.service.iter().flat_map(service_lines) {
            let _ = writeln!(notes, "  {}: {line}", device.name);
        }
        if !device.conformance_report.is_empty() {
            let word = Tone::of_state(&device.conformance);
            let word = paint(&device.conformance, word, colours);
            let line = format!("self-test {word}: {}", device.conformance_report);
            let _ = writeln!(notes, "  {}: {line}", device.name);
        }
        for stream in device.service.iter().flat_map(|service| &service.streams) {
            let _ = writeln!(notes, "  {}: {}", device.name, stream_line(stream));
        }
    }
    format!("{}{notes}", table.text(colours))
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
    let mut lines = vec![format!(
        "features {:#x}, of {:#x} offered",
        service.features_acknowledged, service.features_offered
    )];
    if service.total("requests") > 0 {
        let within = |share| {
            service
                .latency(share)
                .map_or("more than 1 s".to_owned(), micros)
        };
        let (half, most) = (within(0.5), within(0.99));
        lines.push(format!(
            "half of the requests within {half}, 99 % within {most}"
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
    if stream.xruns > 0 {
        let _ = write!(text, ", {} xruns", stream.xruns);
    }
    text
}
