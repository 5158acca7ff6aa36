// SPDX-License-Identifier: Apache-2.0
//! The D-Bus reference, written from what introspection says.

use super::{DeviceObject, GuestObject, ManagerObject};
use agl_virtio_service::bus::Place;
use std::sync::{Arc, OnceLock};
use zbus::object_server::Interface;

const HEAD: &str = "\
# D-Bus reference of the manager

Written from the manager's introspection by a test (`AGL_VIRTIO_UPDATE=1 cargo test -p agl-virtiod`): change the
comments in `rust-services/manager/src/bus` instead. What services show is in [dbus.md](dbus.md).

## What is promised

The bus name `org.automotivelinux.Virtio1`, the paths, and every interface, method, signal, property, type and word of a
state below stay as they are for as long as the name ends in 1. There may be more of each at any time: a client passes over
what it does not know. What has to change comes as `org.automotivelinux.Virtio2`, beside `Virtio1`, which then stays for
one release of AGL at least, both served by the same manager.

Who may call what: [dbus.md](dbus.md#who-may-do-what). `Define` and `Remove` ask polkit for `org.automotivelinux.virtio1.define`,
every other method that changes something for `org.automotivelinux.virtio1.run`; those whose names begin with `Get` are free but
for what is said of them, as is reading.

| object | interfaces |
| --- | --- |
| `/org/automotivelinux/Virtio1` | `org.freedesktop.DBus.ObjectManager`, `…Virtio1.Manager` |
| `/org/automotivelinux/Virtio1/guests/GUEST` | `…Virtio1.Guest` |
| `/org/automotivelinux/Virtio1/guests/GUEST/DEVICE` | `…Virtio1.ManagedDevice` |
";

/// The whole reference as Markdown.
#[must_use]
pub fn reference() -> String {
    let cell = Arc::new(OnceLock::new());
    let mut text = HEAD.to_owned();
    let manager = ManagerObject::new(Arc::clone(&cell));
    let guest = GuestObject::new("guest", Arc::clone(&cell), None);
    let device = DeviceObject::new(Place::new("guest", "device"), cell, None);
    text.push_str(&of(&manager));
    text.push_str(&of(&guest));
    text.push_str(&of(&device));
    text
}

/// An interface: a heading, its methods, and a table of its properties.
fn of(interface: &impl Interface) -> String {
    let mut xml = String::new();
    interface.introspect_to_writer(&mut xml, 0);
    let (mut text, mut methods, mut properties) = (String::new(), String::new(), String::new());
    let mut note = String::new();
    let mut method: Option<Method> = None;
    let mut comment = false;
    let mut property: Option<(String, String, String)> = None;
    for line in xml.lines().map(str::trim) {
        if line.starts_with("<!--") {
            note.clear();
            comment = !line.contains("-->");
            append(
                &mut note,
                line.trim_start_matches("<!--").trim_end_matches("-->"),
            );
        } else if comment {
            comment = !line.contains("-->");
            append(&mut note, line.trim_end_matches("-->"));
        } else if line.starts_with("<interface") {
            text = format!("\n## {}\n", attribute(line, "name"));
        } else if line.starts_with("<method") {
            let found = Method {
                name: attribute(line, "name"),
                note: std::mem::take(&mut note),
                ..Method::default()
            };
            method = Some(found);
        } else if line.starts_with("<arg") {
            if let Some(method) = &mut method {
                method.argument(line);
            }
        } else if line.starts_with("<property") {
            let access = match attribute(line, "access").as_str() {
                "read" => "",
                _ => " (writable)",
            };
            let name = format!("`{}`{access}", attribute(line, "name"));
            let found = (name, attribute(line, "type"), std::mem::take(&mut note));
            property = Some(found);
            if line.ends_with("/>") {
                flush(&mut properties, property.take(), "told");
            }
        } else if line.starts_with("<annotation") {
            let changes = match attribute(line, "value").as_str() {
                "const" => "never",
                "false" => "not told",
                _ => "told",
            };
            flush(&mut properties, property.take(), changes);
        } else if line.starts_with("</property") {
            flush(&mut properties, property.take(), "told");
        }
        if line.starts_with("</method") || (line.starts_with("<method") && line.ends_with("/>")) {
            methods.push_str(&method.take().map(|found| found.text()).unwrap_or_default());
        }
    }
    text.push_str(&methods);
    if !properties.is_empty() {
        text.push_str("\n| property | type | changes | meaning |\n| --- | --- | --- | --- |\n");
        text.push_str(&properties);
    }
    text
}

#[derive(Default)]
struct Method {
    name: String,
    note: String,
    takes: Vec<String>,
    gives: Vec<String>,
}

impl Method {
    fn argument(&mut self, line: &str) {
        let (name, kind) = (attribute(line, "name"), attribute(line, "type"));
        match attribute(line, "direction").as_str() {
            "out" => self.gives.push(kind),
            _ => self.takes.push(format!("{name}: {kind}")),
        }
    }

    fn text(&self) -> String {
        let gives = match self.gives.join(", ") {
            none if none.is_empty() => none,
            some => format!(" → {some}"),
        };
        format!(
            "\n### {}({}){gives}\n{}\n",
            self.name,
            self.takes.join(", "),
            self.note
        )
    }
}

fn flush(properties: &mut String, property: Option<(String, String, String)>, changes: &str) {
    if let Some((name, kind, note)) = property {
        properties.push_str(&format!("| {name} | {kind} | {changes} | {note} |\n"));
    }
}

fn append(note: &mut String, line: &str) {
    let line = line.trim();
    if !note.is_empty() && !line.is_empty() {
        note.push(' ');
    }
    note.push_str(line);
}

fn attribute(line: &str, name: &str) -> String {
    let start = format!("{name}=\"");
    let value = line
        .split_once(&start)
        .and_then(|(_, rest)| rest.split_once('"'));
    value.map(|(value, _)| value.to_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// AGL_VIRTIO_UPDATE=1 writes what is checked in.
    #[test]
    fn the_published_reference_is_in_step() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/dbus-manager.md");
        let made = reference();
        if std::env::var_os("AGL_VIRTIO_UPDATE").is_some() {
            std::fs::write(file, &made).unwrap();
        }
        let published = std::fs::read_to_string(file).unwrap();
        assert!(
            made == published,
            "docs/dbus-manager.md is out of step: run this test with AGL_VIRTIO_UPDATE=1"
        );
    }

    #[test]
    fn introspection_is_xml_to_a_strict_reader_too() {
        let cell = Arc::new(OnceLock::new());
        let mut xml = String::new();
        ManagerObject::new(Arc::clone(&cell)).introspect_to_writer(&mut xml, 0);
        GuestObject::new("guest", Arc::clone(&cell), None).introspect_to_writer(&mut xml, 0);
        let device = DeviceObject::new(Place::new("guest", "device"), cell, None);
        device.introspect_to_writer(&mut xml, 0);
        let mut comments = 0;
        for comment in xml.split("<!--").skip(1) {
            let (comment, _) = comment.split_once("-->").unwrap();
            assert!(
                !comment.contains("--"),
                "no comment of XML has this: {comment}"
            );
            comments += 1;
        }
        assert!(comments > 20, "{comments}");
    }

    #[test]
    fn everything_in_the_reference_has_a_meaning() {
        let text = reference();
        assert!(!text.contains("|  |\n"), "{text}");
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if line.starts_with("### ") {
                assert!(lines.next().is_some_and(|note| note.len() > 10), "{line}");
            }
        }
        for word in [
            "### Start()",
            "### Stop(timeout_ms: u)",
            "### GetGuest(name: s) → o",
        ] {
            assert!(text.contains(word), "{word}\n{text}");
        }
    }
}
