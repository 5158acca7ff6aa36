// SPDX-License-Identifier: Apache-2.0
//! The journal's native protocol: one datagram of fields per line.
//! (systemd.io/JOURNAL_NATIVE_PROTOCOL)

use super::Origin;
use log::{Level, Record};
use std::os::unix::net::UnixDatagram;

const SOCKET: &str = "/run/systemd/journal/socket";

/// A datagram larger than the socket's buffer would be refused; no line of ours needs more.
const LONGEST_MESSAGE: usize = 16 * 1024;

pub(super) struct Journal {
    socket: UnixDatagram,
    program: &'static str,
}

impl Journal {
    /// The journal, if standard error goes there (`JOURNAL_STREAM` names its device and inode).
    pub(super) fn if_listening(program: &'static str) -> Option<Self> {
        let stream = std::env::var("JOURNAL_STREAM").ok()?;
        let stat = rustix::fs::fstat(std::io::stderr()).ok()?;
        if !names(&stream, stat.st_dev, stat.st_ino) {
            return None;
        }
        let socket = UnixDatagram::unbound().ok()?;
        socket.connect(SOCKET).ok()?;
        // Rather lose a line than wait for a journal that is stuck.
        socket.set_nonblocking(true).ok()?;
        Some(Self { socket, program })
    }

    pub(super) fn write(&self, record: &Record<'_>, origin: Option<&Origin>) {
        let _ = self.socket.send(&datagram(self.program, record, origin));
    }
}

fn names(stream: &str, device: u64, inode: u64) -> bool {
    stream
        .split_once(':')
        .is_some_and(|(stream_device, stream_inode)| {
            stream_device.parse() == Ok(device) && stream_inode.parse() == Ok(inode)
        })
}

fn datagram(program: &str, record: &Record<'_>, origin: Option<&Origin>) -> Vec<u8> {
    let mut text = record.args().to_string();
    if text.len() > LONGEST_MESSAGE {
        let mut end = LONGEST_MESSAGE;
        while !text.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        text.truncate(end);
        text.push('…');
    }
    let mut out = Vec::with_capacity(text.len().saturating_add(256));
    field(&mut out, "MESSAGE", &text);
    field(&mut out, "PRIORITY", priority(record.level()));
    field(&mut out, "SYSLOG_IDENTIFIER", program);
    field(&mut out, "TARGET", record.target());
    if let Some(origin) = origin {
        field(&mut out, "AGL_VIRTIO_GUEST", &origin.guest);
        field(&mut out, "AGL_VIRTIO_DEVICE", &origin.device);
    }
    out
}

/// The priorities of syslog(3).
const fn priority(level: Level) -> &'static str {
    match level {
        Level::Error => "3",
        Level::Warn => "4",
        Level::Info => "6",
        Level::Debug | Level::Trace => "7",
    }
}

fn field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(name.as_bytes());
    if value.contains('\n') {
        // A value with line breaks is sent with its length, so that it cannot forge a field.
        out.push(b'\n');
        let length = u64::try_from(value.len()).unwrap_or(u64::MAX);
        out.extend_from_slice(&length.to_le_bytes());
    } else {
        out.push(b'=');
    }
    out.extend_from_slice(value.as_bytes());
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram_of(message: &str) -> Vec<u8> {
        let origin = Origin {
            guest: "ivi".to_owned(),
            device: "cabin".to_owned(),
        };
        datagram(
            "agl-virtio-test",
            &Record::builder()
                .args(format_args!("{message}"))
                .level(Level::Warn)
                .target("test")
                .build(),
            Some(&origin),
        )
    }

    #[test]
    fn a_line_carries_the_guest_and_the_device() {
        assert_eq!(
            String::from_utf8(datagram_of("no card")).unwrap(),
            "MESSAGE=no card\nPRIORITY=4\nSYSLOG_IDENTIFIER=agl-virtio-test\nTARGET=test\n\
             AGL_VIRTIO_GUEST=ivi\nAGL_VIRTIO_DEVICE=cabin\n"
        );
    }

    #[test]
    fn a_line_break_cannot_forge_a_field() {
        let bytes = datagram_of("a\nPRIORITY=0");
        assert!(bytes.starts_with(b"MESSAGE\n\x0c\0\0\0\0\0\0\0a\nPRIORITY=0\nPRIORITY=4\n"));
    }

    #[test]
    fn a_huge_line_is_cut_at_a_character() {
        let bytes = datagram_of(&"ä".repeat(LONGEST_MESSAGE));
        assert!(bytes.len() < LONGEST_MESSAGE + 256);
        assert!(std::str::from_utf8(&bytes).is_ok());
    }

    #[test]
    fn the_journal_is_recognised_by_device_and_inode() {
        assert!(names("9:1234", 9, 1234));
        assert!(!names("9:1234", 9, 1235));
        assert!(!names("nonsense", 9, 1234));
    }
}
