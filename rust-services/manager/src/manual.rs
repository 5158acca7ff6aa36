// SPDX-License-Identifier: Apache-2.0
//! The manual page agl-virtiod(8), made from the command line itself.

use crate::daemon::Options;
use clap::CommandFactory;

/// What a command line does not say.
const MORE: &str = r#".SH SIGNALS
.TP
SIGHUP
The guests' files are read again, and the difference is applied. Where one is wrong, nothing changes.
.TP
SIGTERM, SIGINT
The manager ends. Guests and devices go on, and the next manager finds them.
.SH FILES
.TP
/etc/agl\-virtio/guests.d/NAME.toml
A guest.
.TP
/run/agl\-virtio
Sockets of devices.
.TP
/run/agl\-virtio/guests/NAME
Logs of a guest and its devices, and the note by which the next manager finds them.
.SH EXIT STATUS
0 after a signal; otherwise as in sysexits.h: 64 wrong usage, 69 another manager works in the same folder, 78 with \-\-check,
the files are wrong.
.SH SEE ALSO
.BR agl\-virtioctl (1),
.BR systemd.slice (5),
.BR dbus\-daemon (1)
"#;

fn page() -> String {
    let command = Options::command();
    command.clone().debug_assert();
    let manual = clap_mangen::Man::new(command)
        .section("8")
        .manual("agl-virtio");
    let mut text = Vec::new();
    manual.render(&mut text).unwrap();
    String::from_utf8(text).unwrap() + MORE
}

/// A package for another machine cannot run the program: what it installs is checked in.
/// AGL_VIRTIO_UPDATE=1 writes it.
#[test]
fn the_manual_page_that_is_installed_is_in_step() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/pages/agl-virtiod.8");
    if std::env::var_os("AGL_VIRTIO_UPDATE").is_some() {
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/pages")).unwrap();
        std::fs::write(file, page()).unwrap();
    }
    let installed = std::fs::read_to_string(file).unwrap();
    assert!(
        installed == page(),
        "pages/agl-virtiod.8 is out of step: run this test with AGL_VIRTIO_UPDATE=1"
    );
}
