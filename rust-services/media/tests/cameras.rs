// SPDX-License-Identifier: Apache-2.0

//! Cameras of the host, through GStreamer as a car's are: shared by guests in PipeWire; and, where there
//! is one, of the kernel: `tests/bench/check-camera-host` runs the ignored test in a user-mode Linux
//! that has one (vivid).
#![cfg(feature = "gstreamer")]
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

#[path = "driver/camera.rs"]
#[allow(dead_code, reason = "the device's own tests use the rest")]
mod camera;
#[allow(dead_code, reason = "the device's own tests use the rest")]
mod driver;
#[path = "../../snd/tests/pipewire/server.rs"]
#[allow(dead_code, reason = "sound's own tests use the rest")]
mod server;

use std::fs;
use std::path::{Path, PathBuf};

use agl_virtio_media::v4l2::input::{CaptureParm, FrameInterval};
use agl_virtio_media::v4l2::{Buffer, Fraction};
use camera::{SIZE, STREAMON, errno};
use driver::Driver;
use frontend::memory::Buffer as GuestBuffer;
use frontend::service_under_test::{Launch, ServiceUnderTest};
use server::PipeWire;
use zerocopy::{FromBytes, FromZeros};

const G_PARM: u32 = 21;
const S_PARM: u32 = 22;
const ENUM_FRAMEINTERVALS: u32 = 75;
/// Buffers of a program that looks.
const BUFFERS: u32 = 3;

/// A camera of PipeWire's own.
const CAMERA: &str = "context.spa-libs = { videotestsrc = videotestsrc/libspa-videotestsrc }
    context.objects = [ { factory = spa-node-factory args = { factory.name = videotestsrc
        node.name = rear media.class = Video/Source media.role = Camera } } ]";

/// A guest with a program that looks at a camera.
struct Viewer {
    driver: Driver,
    session: u32,
    pages: Vec<GuestBuffer>,
    // Ends after its driver.
    _service: ServiceUnderTest,
}

impl Viewer {
    fn new(launch: Launch) -> Self {
        let service = launch.start().unwrap();
        let mut driver = Driver::new(&service);
        let session = driver.open().unwrap();
        driver.prepare(session, BUFFERS);
        let pages: Vec<_> = (0..BUFFERS).map(|_| driver.pages()).collect();
        for (index, pages) in (0..).zip(&pages) {
            assert_eq!(driver.queue(session, index, pages), 0);
        }
        assert_eq!(driver.word(session, STREAMON, 1), 0);
        Self {
            driver,
            session,
            pages,
            _service: service,
        }
    }

    /// The next picture, 320x240 in NV12; its buffer is queued again.
    fn picture(&mut self) -> Vec<u8> {
        let (code, of, rest) = self.driver.event();
        self.driver.0.offer_event().unwrap();
        assert_eq!((code, of), (1, self.session), "the camera goes on");
        let (buffer, _) = Buffer::read_from_prefix(&rest).unwrap();
        assert_eq!(buffer.bytesused, SIZE);
        let pages = self.pages[buffer.index as usize];
        let memory = self.driver.0.guest_mut().memory();
        let bytes = memory.bytes(pages.addr, SIZE).unwrap();
        assert_eq!(self.driver.queue(self.session, buffer.index, &pages), 0);
        bytes
    }
}

/// Whether the seven bars of a test picture are there, white at the left and blue at the right: each is
/// darker than the one before, and all but the first have a colour. `bars` is how many there are, `row` one
/// in which nothing else is.
fn has_bars(picture: &[u8], bars: usize, row: usize) -> bool {
    let columns = (0..7).map(|bar| 320 * (2 * bar + 1) / (2 * bars));
    let (luma, chroma) = picture.split_at(320 * 240);
    let light: Vec<u8> = columns.clone().map(|x| luma[row * 320 + x]).collect();
    let coloured = columns.skip(1).all(|x| {
        let at = row / 2 * 320 + x / 2 * 2;
        chroma[at..at + 2]
            .iter()
            .any(|part| part.abs_diff(128) > 20)
    });
    coloured && light.windows(2).all(|pair| pair[0] > pair[1] + 3)
}

fn with_paths(launch: Launch, paths: impl IntoIterator<Item = PathBuf>) -> Launch {
    paths.into_iter().fold(launch, |launch, path| {
        launch.args([PathBuf::from("--path"), path])
    })
}

fn launch(folder: &Path, pipeline: &str) -> Launch {
    Launch::new(
        env!("CARGO_BIN_EXE_agl-virtio-media"),
        folder.join("socket"),
    )
    .args(["--log", "info", "--bus", "none", "--pipeline", pipeline])
}

#[test]
fn two_guests_look_at_one_camera_through_pipewire() {
    let pipewire = PipeWire::with(CAMERA, "\"Video/Source\"");
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let mut viewers = folders.each_ref().map(|folder| {
        let mut launch = launch(folder.path(), "pipewiresrc target-object=rear");
        for (name, value) in pipewire.environment() {
            launch = launch.env(name, value);
        }
        Viewer::new(with_paths(launch, [pipewire.socket()]))
    });
    for _ in 0..30 {
        for viewer in &mut viewers {
            assert!(has_bars(&viewer.picture(), 7, 100), "the camera's picture");
        }
    }
    // One that leaves takes nothing from the other.
    let [first, mut second] = viewers;
    drop(first);
    for _ in 0..10 {
        assert!(has_bars(&second.picture(), 7, 100));
    }
}

/// Times from one picture of 320x240 in NV12 to the next, as the guest is told of them.
fn intervals(driver: &mut Driver, session: u32) -> Vec<Fraction> {
    let nth = |index| {
        let mut interval = FrameInterval::new_zeroed();
        (interval.index, interval.pixel_format) = (index, u32::from_le_bytes(*b"NV12"));
        (interval.width, interval.height) = (320, 240);
        let status = driver.ioctl(session, ENUM_FRAMEINTERVALS, &mut interval);
        (status == 0).then_some(interval.interval[0])
    };
    (0..).map_while(nth).collect()
}

const BROKEN: Fraction = Fraction {
    numerator: 1001,
    denominator: 30_000,
};
const HALVES: Fraction = Fraction {
    numerator: 2,
    denominator: 15,
};

#[test]
fn a_camera_has_the_rates_that_it_says_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let pipeline = "videotestsrc is-live=true ! video/x-raw,framerate={15/2,30000/1001}";
    let mut viewer = Viewer::new(launch(folder.path(), pipeline));
    let session = viewer.driver.open().unwrap();
    let told = intervals(&mut viewer.driver, session);
    assert_eq!(told, [BROKEN, HALVES]);
    let mut parm = CaptureParm::new_zeroed();
    parm.type_ = 1;
    assert_eq!(viewer.driver.ioctl(session, G_PARM, &mut parm), 0);
    assert_eq!(parm.interval, BROKEN);
    assert!(has_bars(&viewer.picture(), 7, 100));
    // Another rate is for when nobody looks.
    parm.interval = HALVES;
    let busy = errno(rustix::io::Errno::BUSY);
    assert_eq!(viewer.driver.ioctl(session, S_PARM, &mut parm), busy);
}

#[test]
fn a_camera_of_pipewire_is_asked_for_its_rates_there() {
    let pipewire = PipeWire::with(CAMERA, "\"Video/Source\"");
    let mut front = pipewire
        .command("gst-launch-1.0")
        .args(["-q", "videotestsrc", "is-live=true", "!"])
        .args([
            "video/x-raw,format=NV12,width=320,height=240,framerate=30000/1001",
            "!",
        ])
        .args(["pipewiresink", "mode=provide"])
        .arg("stream-properties=p,media.class=Video/Source,node.name=front")
        .spawn()
        .unwrap();
    server::wait_for("the other camera", || {
        let dump = pipewire.dump();
        (dump.contains("\"front\"") && dump.contains("30000")).then_some(())
    });
    let told = |camera: &str| {
        let folder = tempfile::tempdir().unwrap();
        let mut launch = launch(
            folder.path(),
            &format!("pipewiresrc target-object={camera}"),
        );
        for (name, value) in pipewire.environment() {
            launch = launch.env(name, value);
        }
        let service = with_paths(launch, [pipewire.socket()]).start().unwrap();
        let mut driver = Driver::new(&service);
        let session = driver.open().unwrap();
        intervals(&mut driver, session)
    };
    let (front_said, rear_said) = (told("front"), told("rear"));
    front.kill().unwrap();
    front.wait().unwrap();
    assert_eq!(front_said, [BROKEN]);
    // This one has any, and says so: the usual ones are as good.
    assert_eq!(rear_said.len(), 6);
}

/// The video device of the kernel with such a name.
fn video_device(name: &str) -> PathBuf {
    let all = fs::read_dir("/sys/class/video4linux").unwrap();
    let found = all.map(|entry| entry.unwrap().path()).find(|device| {
        let told = fs::read_to_string(device.join("name")).unwrap();
        told.trim_end() == name
    });
    let found = found.unwrap_or_else(|| panic!("no device {name}"));
    Path::new("/dev").join(found.file_name().unwrap())
}

#[test]
#[ignore = "needs a camera: tests/bench/check-camera-host has one"]
fn a_camera_of_the_kernel_is_shown() {
    let folder = tempfile::tempdir().unwrap();
    let device = video_device("vivid-000-vid-cap");
    let pipeline = format!("v4l2src device={}", device.display());
    let mut viewer = Viewer::new(with_paths(launch(folder.path(), &pipeline), [device]));
    let session = viewer.driver.open().unwrap();
    let told = intervals(&mut viewer.driver, session);
    // No list of ours has this one, twelve and a half a second.
    let own = Fraction {
        numerator: 2,
        denominator: 25,
    };
    assert!(told.contains(&own), "{told:?}");
    let pictures: Vec<_> = (0..10).map(|_| viewer.picture()).collect();
    assert!(pictures.iter().all(|picture| has_bars(picture, 8, 230)));
    // Its clock stands in them; one may come twice.
    assert_ne!(pictures.first(), pictures.last());
}
