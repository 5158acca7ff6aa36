// SPDX-License-Identifier: Apache-2.0

//! A codec that is killed ends its own session, and no other one notices.

#![cfg(feature = "gstreamer")]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

#[path = "../../codec/tests/bench/mod.rs"]
#[allow(dead_code, reason = "the codec's own tests use the rest")]
mod bench;
mod driver;

use std::process::Command;
use std::time::Duration;

use agl_virtio_codec::{Codec, Size};
use agl_virtio_media::v4l2::event::SOURCE_CHANGE;
use agl_virtio_media::v4l2::{
    BufType, Buffer, BufferFlags, EventSubscription, Format, PixFormatMplane, Plane, RequestBuffers,
};
use agl_virtio_media::wire::SgEntry;
use bench::{Clip, Fnv, encode, plain};
use driver::Driver;
use frontend::Deadline;
use frontend::memory::Buffer as GuestBuffer;
use frontend::message_bus::{MessageBus, Policy};
use frontend::service_under_test::{Launch, ServiceUnderTest, descendants};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

const G_FMT: u32 = 4;
const S_FMT: u32 = 5;
const REQBUFS: u32 = 8;
const QBUF: u32 = 15;
const STREAMON: u32 = 18;
const SUBSCRIBE_EVENT: u32 = 90;
/// The queue of coded bytes, and that of pictures.
const OUTPUT: u32 = 10;
const CAPTURE: u32 = 9;
/// Codes of events.
const ERROR: u32 = 0;
const DONE: u32 = 1;
const TOLD: u32 = 2;

const SIZE: Size = Size::new(176, 144);
const VP8: &str = "vp8enc deadline=1 cpu-used=8 keyframe-max-dist=12";
const NAME: &str = "org.automotivelinux.Virtio1.Device.guest.media";
const DEVICE: &str = "/org/automotivelinux/Virtio1/guests/guest/media";
const INTERFACE: &str = "org.automotivelinux.Virtio1.Media";

/// A decoder with its bus.
struct Scene {
    service: ServiceUnderTest,
    _bus: MessageBus,
    _folders: [tempfile::TempDir; 2],
    address: String,
}

impl Scene {
    fn start(isolation: &str) -> Self {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let bus = MessageBus::start(folders[1].path(), &Policy::Open).unwrap();
        let address = bus.address();
        let file = folders[0].path().join("guest.toml");
        let text = format!(
            "[devices.media]\ntype = \"media\"\nfunction = \"decoder\"\ncodecs = [\"vp8\"]\n\
             watchdog = 600\nisolation = \"{isolation}\"\n"
        );
        std::fs::write(&file, text).unwrap();
        let service = Launch::new(
            env!("CARGO_BIN_EXE_agl-virtio-media"),
            folders[0].path().join("socket"),
        )
        .args(["--log", "error", "--bus", &address, "--config"])
        .args([file])
        .start()
        .unwrap();
        Self {
            service,
            _bus: bus,
            _folders: folders,
            address,
        }
    }

    /// What the service says on its bus; waits until it does.
    fn ask(&self, words: &[&str]) -> String {
        let deadline = Deadline::after(Duration::from_secs(120));
        loop {
            let mut command = Command::new("busctl");
            command
                .arg(format!("--address={}", self.address))
                .args(words);
            let output = command.output().unwrap();
            if output.status.success() {
                return String::from_utf8(output.stdout).unwrap();
            }
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!deadline.passed(), "{words:?}: {said}");
            std::thread::yield_now();
        }
    }

    fn property(&self, name: &str) -> String {
        let said = self.ask(&["get-property", NAME, DEVICE, INTERFACE, name]);
        said.trim().to_owned()
    }

    /// The number of the process of a session's codec.
    fn codec_of(&self, session: u32) -> u32 {
        let said = self.property("Sessions");
        let words: Vec<&str> = said.split_whitespace().skip(2).collect();
        let mut rows = words.chunks(6);
        let row = rows.find(|row| row[0] == session.to_string());
        let row = row.unwrap_or_else(|| panic!("no session {session}: {said}"));
        assert_eq!(row[1..4], ["\"VP80\"", "176", "144"], "{said}");
        row[5].parse().unwrap()
    }

    fn counted(&self, counter: &str) -> u64 {
        let said = self.ask(&["call", NAME, DEVICE, INTERFACE, "Statistics"]);
        let (_, rest) = said.split_once(&format!("\"{counter}\" ")).unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    }
}

/// A program that decodes picture by picture, in turns with others.
struct Program {
    session: u32,
    coded: GuestBuffer,
    raw: Option<GuestBuffer>,
    sums: Vec<u64>,
}

/// Asks for buffers of a queue, and has it stream.
fn stream(driver: &mut Driver, session: u32, queue: u32) {
    let mut request = RequestBuffers::new_zeroed();
    (request.count, request.type_, request.memory) = (2, queue, 2);
    assert_eq!(driver.ioctl(session, REQBUFS, &mut request), 0);
    assert_eq!(driver.word(session, STREAMON, queue), 0);
}

fn queue(driver: &mut Driver, session: u32, queue: u32, pages: &GuestBuffer, used: u32) {
    let mut buffer = Buffer::new_zeroed();
    (buffer.type_, buffer.memory, buffer.length) = (queue, 2, 1);
    let mut plane = Plane::new_zeroed();
    (plane.length, plane.bytesused) = (pages.len, used);
    let entry = SgEntry {
        start: pages.addr,
        len: pages.len,
        reserved: 0,
    };
    let payload = [buffer.as_bytes(), plane.as_bytes(), entry.as_bytes()].concat();
    let answer = driver.command(&[3, 0, session, QBUF], &payload, 152);
    assert_eq!(answer.0, 0);
}

impl Program {
    fn new(driver: &mut Driver) -> Self {
        let session = driver.open().unwrap();
        let mut wish = EventSubscription::new_zeroed();
        wish.type_ = SOURCE_CHANGE;
        let subscribed = driver.command(&[3, 0, session, SUBSCRIBE_EVENT], wish.as_bytes(), 0);
        assert_eq!(subscribed.0, 0);
        let pix = PixFormatMplane {
            width: SIZE.width,
            height: SIZE.height,
            pixelformat: u32::from_le_bytes(*b"VP80"),
            ..PixFormatMplane::default()
        };
        let mut format = Format::multi(BufType::OutputMplane, &pix);
        assert_eq!(driver.ioctl(session, S_FMT, &mut format), 0);
        let [plane, ..] = format.pix_mplane().planes;
        stream(driver, session, OUTPUT);
        let memory = driver.0.guest_mut().memory();
        Self {
            session,
            coded: memory.alloc(plane.sizeimage, 4096).unwrap(),
            raw: None,
            sums: Vec::new(),
        }
    }

    /// The next event is for this program: what it is, and its rest.
    fn event(&self, driver: &mut Driver) -> (u32, Vec<u8>) {
        let (code, session, rest) = driver.event();
        driver.0.offer_event().unwrap();
        assert_eq!(session, self.session, "event {code}");
        (code, rest)
    }

    /// A buffer of this queue is back, and is right.
    fn done(rest: &[u8], queue: u32) -> bool {
        let (buffer, _) = Buffer::read_from_prefix(rest).unwrap();
        assert!(!BufferFlags(buffer.flags).has(BufferFlags::ERROR));
        buffer.type_ == queue
    }

    /// Decodes the next picture of a clip.
    fn step(&mut self, driver: &mut Driver, clip: &Clip) {
        let unit = &clip.units[self.sums.len()];
        let memory = driver.0.guest_mut().memory();
        memory.write(self.coded.addr, unit).unwrap();
        let (session, used) = (self.session, unit.len() as u32);
        queue(driver, session, OUTPUT, &self.coded, used);
        let (code, rest) = self.event(driver);
        assert!(code == DONE && Self::done(&rest, OUTPUT));
        if self.raw.is_none() {
            assert_eq!(self.event(driver).0, TOLD, "the size is known");
            let mut format = Format::multi(BufType::CaptureMplane, &PixFormatMplane::default());
            assert_eq!(driver.ioctl(session, G_FMT, &mut format), 0);
            let [plane, ..] = format.pix_mplane().planes;
            assert_eq!({ plane.sizeimage }, SIZE.width * SIZE.height * 3 / 2);
            let memory = driver.0.guest_mut().memory();
            self.raw = Some(memory.alloc(plane.sizeimage, 4096).unwrap());
            stream(driver, session, CAPTURE);
        }
        let raw = self.raw.as_ref().unwrap();
        queue(driver, session, CAPTURE, raw, 0);
        let (code, rest) = self.event(driver);
        assert!(code == DONE && Self::done(&rest, CAPTURE));
        let bytes = driver.0.guest_mut().memory().bytes(raw.addr, raw.len);
        let mut sum = Fnv::new();
        sum.add(&bytes.unwrap());
        self.sums.push(sum.value());
    }
}

#[test]
fn a_codec_that_is_killed_ends_its_session_and_the_others_go_on() {
    let scene = Scene::start("process");
    assert_eq!(scene.property("Isolation"), "s \"process\"");
    let pid = scene.service.service_pid();
    let clip = encode(VP8, SIZE, 8);
    let expected = plain(Codec::Vp8, &clip);
    let mut driver = Driver::new(&scene.service);
    let mut programs: Vec<Program> = (0..3).map(|_| Program::new(&mut driver)).collect();
    for signal in [Signal::KILL, Signal::ABORT] {
        for _ in 0..3 {
            for program in &mut programs {
                program.step(&mut driver, &clip);
            }
        }
        let victim = programs.remove(1);
        let process = scene.codec_of(victim.session);
        let all = descendants(scene.service.service_pid().unwrap());
        assert!(all.contains(&process), "{process} of {all:?}");
        let process = Pid::from_raw(i32::try_from(process).unwrap()).unwrap();
        kill_process(process, signal).unwrap();
        let (code, rest) = victim.event(&mut driver);
        assert_eq!(code, ERROR);
        assert_eq!(rest[..4], Errno::IO.raw_os_error().to_le_bytes());
        driver.close(victim.session);
        // Another program begins at once.
        programs.insert(1, Program::new(&mut driver));
    }
    for program in &mut programs {
        while program.sums.len() < clip.units.len() {
            program.step(&mut driver, &clip);
        }
        assert_eq!(program.sums, expected, "session {}", program.session);
    }
    assert_eq!(scene.counted("codecs-died"), 2);
    assert_eq!(scene.counted("codecs-hung"), 0);
    assert_eq!(scene.counted("sessions-lost"), 2);
    assert_eq!(scene.service.service_pid(), pid, "the service never died");
}

#[test]
fn codecs_in_threads_have_no_process_of_their_own() {
    let scene = Scene::start("thread");
    assert_eq!(scene.property("Isolation"), "s \"thread\"");
    let clip = encode(VP8, SIZE, 2);
    let mut driver = Driver::new(&scene.service);
    let mut program = Program::new(&mut driver);
    for _ in &clip.units {
        program.step(&mut driver, &clip);
    }
    assert_eq!(program.sums, plain(Codec::Vp8, &clip));
    assert_eq!(scene.codec_of(program.session), 0);
    let pid = scene.service.service_pid().unwrap();
    assert_eq!(descendants(pid), [] as [u32; 0]);
}
