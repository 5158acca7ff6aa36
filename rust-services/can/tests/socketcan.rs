// SPDX-License-Identifier: Apache-2.0

//! The service on a CAN interface. Most machines that build have none: `tests/bench/check-can-host`
//! runs this in a user-mode Linux that has a virtual one, whose name is in `AGL_VIRTIO_CAN`.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

mod support;

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use frontend::Deadline;
use frontend::clients::can::{
    CanClient, EXTENDED, FD, NOT_OK, OK, RTR, START, STATUS_BUS_OFF, TX_MESSAGE, frame, message,
};
use frontend::message_bus::{MessageBus, Policy};
use frontend::service_under_test::{Launch, ServiceUnderTest};
use socketcan::{CanAnyFrame, CanFdSocket, EmbeddedFrame, Frame, Socket};
use support::{client, write_config};

/// The interface: without one named there is nothing to test.
fn interface() -> String {
    std::env::var("AGL_VIRTIO_CAN").unwrap()
}

/// The service on the interface, with these lines for its controller.
fn start(directory: &Path, controller: &str) -> ServiceUnderTest {
    let config = write_config(directory, "", controller);
    launch(directory, config, "none").start().unwrap()
}

fn launch(directory: &Path, config: PathBuf, bus: &str) -> Launch {
    Launch::new(
        env!("CARGO_BIN_EXE_agl-virtio-can"),
        directory.join("socket"),
    )
    .args(["--log", "error", "--bus", bus, "--interface"])
    .args([interface()])
    .args(["--config".into(), config])
}

fn host(words: &[&str]) {
    let done = Command::new(words[0]).args(&words[1..]).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{words:?}: {said}");
}

fn socket() -> CanFdSocket {
    let socket = CanFdSocket::open(&interface()).unwrap();
    socket.set_read_timeout(Duration::from_secs(60)).unwrap();
    socket
}

/// A frame of the interface: identifier, whether it is a remote or an FD frame, data.
fn read(socket: &CanFdSocket) -> (u32, bool, bool, Vec<u8>) {
    let frame = socket.read_frame().unwrap();
    let remote = matches!(frame, CanAnyFrame::Remote(_));
    let fd = matches!(frame, CanAnyFrame::Fd(_));
    let data = if remote {
        Vec::new()
    } else {
        frame.data().to_vec()
    };
    (frame.raw_id() & 0x1fff_ffff, remote, fd, data)
}

#[test]
#[ignore = "needs a CAN interface: tests/bench/check-can-host has one"]
fn frames_of_every_kind_go_to_the_interface_and_come_from_cansend() {
    let directory = tempfile::tempdir().unwrap();
    let service = start(directory.path(), "");
    let mut client = client(&service);
    let socket = socket();
    let table = [
        (0, 0x123, 3, vec![1_u8, 2, 3], "123#010203"),
        (
            EXTENDED,
            0x1fff_ffff,
            8,
            vec![8; 8],
            "1FFFFFFF#0808080808080808",
        ),
        (RTR, 0x7ff, 4, vec![0; 4], "7FF#R4"),
        (FD, 0x55, 12, vec![7; 12], "055##1070707070707070707070707"),
    ];
    for (flags, id, length, data, text) in table {
        let sent = message(TX_MESSAGE, length, flags, id, &data);
        assert_eq!(client.send(&sent).unwrap(), OK);
        let remote = flags & RTR != 0;
        let payload = if remote { Vec::new() } else { data.clone() };
        assert_eq!(read(&socket), (id, remote, flags & FD != 0, payload));
        host(&["cansend", &interface(), text]);
        let heard = client.hear(Deadline::patient()).unwrap();
        assert_eq!((heard.flags, heard.id, heard.length), (flags, id, length));
        assert_eq!(heard.data, data);
        // What cansend sent, this socket has heard too.
        read(&socket);
    }
}

#[test]
#[ignore = "needs a CAN interface: tests/bench/check-can-host has one"]
fn thousands_of_frames_keep_their_order_and_each_is_acknowledged_by_the_kernel() {
    let directory = tempfile::tempdir().unwrap();
    let service = start(directory.path(), "");
    let mut client = client(&service);
    let socket = socket();
    let mut number = 0_u32;
    for _ in 0..100 {
        for offset in 0..50 {
            client
                .post(&frame(0, 0x100, &(number + offset).to_le_bytes()))
                .unwrap();
        }
        client.kick().unwrap();
        for _ in 0..50 {
            assert_eq!(client.answered(Deadline::patient()).unwrap().1, OK);
            assert_eq!(read(&socket).3, number.to_le_bytes());
            number += 1;
        }
    }
}

#[test]
#[ignore = "needs a CAN interface: tests/bench/check-can-host has one"]
fn an_interface_that_goes_down_takes_its_controllers_off_the_bus_until_it_is_back() {
    let directory = tempfile::tempdir().unwrap();
    let service = start(directory.path(), "");
    let mut client = client(&service);
    let off = |client: &mut CanClient| {
        let channel = client.guest_mut().session().unwrap().channel().unwrap();
        channel.wait_config_change(Deadline::patient()).unwrap();
        assert_eq!(client.status().unwrap(), STATUS_BUS_OFF);
        assert_eq!(client.send(&frame(0, 1, &[])).unwrap(), NOT_OK);
    };
    let back = |client: &mut CanClient| {
        let end = Instant::now() + Duration::from_secs(60);
        while client.control(START).unwrap() != OK {
            assert!(Instant::now() < end, "the controller does not start again");
        }
        assert_eq!(client.status().unwrap(), 0);
        assert_eq!(client.send(&frame(0, 1, &[])).unwrap(), OK);
    };
    host(&["ip", "link", "set", &interface(), "down"]);
    off(&mut client);
    assert_eq!(client.control(START).unwrap(), NOT_OK);
    host(&["ip", "link", "set", &interface(), "up"]);
    back(&mut client);
    // The error frame by which a real controller says that it is off its bus.
    host(&["cansend", &interface(), "20000040#0000000000000000"]);
    off(&mut client);
    back(&mut client);
}

#[test]
#[ignore = "needs a CAN interface: tests/bench/check-can-host has one"]
fn the_kernel_keeps_back_what_no_guest_may_hear() {
    let directory = tempfile::tempdir().unwrap();
    let policy = "send = [\"100-1ff\"]\nreceive = [\"200\", \"18FE0000-18FEFFFF\"]";
    let service = start(directory.path(), policy);
    let mut client = client(&service);
    let lists = ["sff", "eff", "fil"]
        .map(|list| std::fs::read_to_string(format!("/proc/net/can/rcvlist_{list}")).unwrap());
    let all = lists.concat();
    assert!(all.contains("98fe0000  9fff0000"), "{all}");
    host(&["cansend", &interface(), "300#00"]);
    host(&["cansend", &interface(), "200#01"]);
    assert_eq!(client.hear(Deadline::patient()).unwrap().id, 0x200);
    assert_eq!(client.send(&frame(0, 0x1ff, &[])).unwrap(), OK);
    assert_eq!(client.send(&frame(0, 0x200, &[])).unwrap(), NOT_OK);
}

/// Frames that a program may have on their way are fewer.
const MANY: u32 = 600;

#[test]
#[ignore = "needs a CAN interface: tests/bench/check-can-host has one"]
fn what_guests_may_not_hear_a_program_of_the_host_sends_and_hears_all_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let config = write_config(
        directory.path(),
        "",
        "send = [\"100\"]\nreceive = [\"200\"]",
    );
    let programs = directory.path().join("programs");
    let launch = launch(directory.path(), config, "none");
    let service = launch.args(["--programs".into(), programs]).start();
    let program = support::Program::join(directory.path());
    let socket = socket();
    for number in 0..MANY {
        program.send_frame(0x500, &number.to_le_bytes());
        assert_eq!(read(&socket).3, number.to_le_bytes());
    }
    host(&["cansend", &interface(), "501#01"]);
    assert_eq!(program.hear()[..4], 0x501_u32.to_ne_bytes());
    drop(service.unwrap());
}

#[test]
#[ignore = "needs a CAN interface: tests/bench/check-can-host has one"]
fn what_is_let_on_later_is_let_through_by_the_kernel_too() {
    let directory = tempfile::tempdir().unwrap();
    let bus_folder = tempfile::tempdir().unwrap();
    let message_bus = MessageBus::start(bus_folder.path(), &Policy::Open).unwrap();
    let bus = message_bus.address();
    let policy = "send = [\"100\"]\nreceive = [\"200\"]";
    let config = write_config(directory.path(), "", policy);
    let service = launch(directory.path(), config, &bus).start().unwrap();
    let mut client = client(&service);
    assert_eq!(client.send(&frame(0, 0x300, &[])).unwrap(), NOT_OK);
    support::call(
        &bus,
        "SetFilter",
        &["s", "guest", "s", "send", "as", "1", "", "300"],
    );
    assert_eq!(client.send(&frame(0, 0x300, &[])).unwrap(), OK);
    support::call(
        &bus,
        "SetFilter",
        &["s", "guest", "s", "receive", "as", "1", "", "400"],
    );
    host(&["cansend", &interface(), "400#01"]);
    assert_eq!(client.hear(Deadline::patient()).unwrap().id, 0x400);
}

#[test]
#[ignore = "needs a CAN interface: tests/bench/check-can-host has one"]
fn guests_that_share_an_interface_hear_it_and_one_another() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("second");
    let controllers = format!(
        "name = \"first\"\n[[devices.can.controllers]]\nname = \"second\"\nsocket = \"{}\"",
        path.display()
    );
    let service = start(directory.path(), &controllers);
    let mut first = client(&service);
    let stream = UnixStream::connect(path).unwrap();
    let mut second = CanClient::start(stream, &CanClient::options()).unwrap();
    let socket = socket();
    for number in 0..10_u8 {
        assert_eq!(first.send(&frame(0, 0x100, &[number])).unwrap(), OK);
        assert_eq!(second.send(&frame(0, 0x200, &[number])).unwrap(), OK);
        host(&["cansend", &interface(), &format!("300#{number:02X}")]);
        for (guest, others) in [(&mut first, 0x200), (&mut second, 0x100)] {
            for id in [others, 0x300] {
                let heard = guest.hear(Deadline::patient()).unwrap();
                assert_eq!((heard.id, heard.data), (id, vec![number]));
            }
        }
        for id in [0x100, 0x200, 0x300] {
            let (heard, _, _, data) = read(&socket);
            assert_eq!((heard, data), (id, vec![number]));
        }
    }
}
