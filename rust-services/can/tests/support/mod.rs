// SPDX-License-Identifier: Apache-2.0

//! What the tests of the process share: starting it, and a program of the host on its bus.

#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::Command;

use frontend::Deadline;
use frontend::clients::can::CanClient;
use frontend::service_under_test::{Launch, ServiceUnderTest};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with,
};

/// The service with its built-in bus at its highest rate.
pub fn launch(directory: &Path) -> Launch {
    launch_on(directory, "none")
}

/// [`launch`], on a message bus.
pub fn launch_on(directory: &Path, bus: &str) -> Launch {
    Launch::new(
        env!("CARGO_BIN_EXE_agl-virtio-can"),
        directory.join("socket"),
    )
    .args(["--log", "warn", "--bitrate", "1000000", "--bus", bus])
    .args(["--programs".into(), directory.join("programs")])
}

/// The configuration with one bus and one controller, and these lines for each.
pub fn write_config(directory: &Path, bus: &str, controller: &str) -> std::path::PathBuf {
    let path = directory.join("guest.toml");
    let text = format!(
        "[devices.can]\ntype = \"can\"\n[[devices.can.buses]]\n{bus}\n\
         [[devices.can.controllers]]\n{controller}\n"
    );
    std::fs::write(&path, text).unwrap();
    path
}

/// [`launch`] with a configuration.
pub fn launch_with(directory: &Path, bus: &str, controller: &str) -> ServiceUnderTest {
    let config = write_config(directory, bus, controller);
    launch(directory)
        .args(["--config".into(), config])
        .start()
        .unwrap()
}

/// A guest with a started controller.
pub fn client(service: &ServiceUnderTest) -> CanClient {
    let stream = service.connect(Deadline::patient()).unwrap();
    CanClient::start(stream, &CanClient::options()).unwrap()
}

/// Calls a method of the service on a message bus.
pub fn call(bus: &str, method: &str, words: &[&str]) -> String {
    // busctl wants all types before all values.
    let (types, values): (Vec<_>, Vec<_>) = words.chunks(2).map(|pair| (pair[0], pair[1])).unzip();
    let types = types.concat();
    ask(bus, "call", &[&[method, &types], &values[..]].concat())
}

/// A property of the service on a message bus, with its type.
pub fn property(bus: &str, name: &str) -> String {
    ask(bus, "get-property", &[name])
}

fn ask(bus: &str, what: &str, words: &[&str]) -> String {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(40);
    loop {
        let done = Command::new("busctl")
            .arg(format!("--address={bus}"))
            .args([what, "org.automotivelinux.Virtio1.Device.guest.can"])
            .arg("/org/automotivelinux/Virtio1/guests/guest/can")
            .arg("org.automotivelinux.Virtio1.Can")
            .args(words)
            .output()
            .unwrap();
        if done.status.success() {
            return String::from_utf8(done.stdout).unwrap();
        }
        // It may not be on the bus yet.
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(std::time::Instant::now() < end, "{words:?}: {said}");
        std::thread::yield_now();
    }
}

/// A frame as Linux has it.
pub fn raw(id: u32, data: &[u8], size: usize) -> Vec<u8> {
    let mut raw = id.to_ne_bytes().to_vec();
    raw.extend([data.len() as u8, 0, 0, 0]);
    raw.extend(data);
    raw.resize(size, 0);
    raw
}

/// A program of the host on the bus.
pub struct Program(OwnedFd);

impl Program {
    /// Joins; the service is there or comes soon.
    pub fn join(directory: &Path) -> Self {
        let address = SocketAddrUnix::new(directory.join("programs")).unwrap();
        let end = std::time::Instant::now() + std::time::Duration::from_secs(40);
        loop {
            let flags = SocketFlags::CLOEXEC;
            let kind = SocketType::SEQPACKET;
            let socket = socket_with(AddressFamily::UNIX, kind, flags, None).unwrap();
            match connect(&socket, &address) {
                Ok(()) => {
                    let program = Self(socket);
                    // One that has died since is no bus.
                    if program.arrive() {
                        return program;
                    }
                }
                Err(error) => assert!(std::time::Instant::now() < end, "{error}"),
            }
            std::thread::yield_now();
        }
    }

    /// Waits for the frame that says that the program is on the bus.
    fn arrive(&self) -> bool {
        let greeting = self.try_hear();
        greeting.is_some_and(|raw| raw[..4] == 0x2000_0100_u32.to_ne_bytes())
    }

    pub fn send(&self, raw: &[u8]) {
        send(&self.0, raw, SendFlags::NOSIGNAL).unwrap();
    }

    pub fn send_frame(&self, id: u32, data: &[u8]) {
        self.send(&raw(id, data, 16));
    }

    /// The next frame; fails the test where none comes.
    pub fn hear(&self) -> Vec<u8> {
        self.try_hear().unwrap()
    }

    /// The next frame, or nothing if the service has gone.
    pub fn try_hear(&self) -> Option<Vec<u8>> {
        let mut set = [PollFd::new(&self.0, PollFlags::IN)];
        let patience = Timespec {
            tv_sec: 60,
            tv_nsec: 0,
        };
        assert_ne!(poll(&mut set, Some(&patience)).unwrap(), 0, "no frame came");
        let mut buffer = [0; 80];
        let (size, _) = recv(&self.0, buffer.as_mut_slice(), RecvFlags::empty()).ok()?;
        (size > 0).then(|| buffer[..size].to_vec())
    }
}
