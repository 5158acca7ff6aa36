// SPDX-License-Identifier: Apache-2.0

//! Codecs that crash, hang or are killed: each ends its own stream, and no other stream notices.

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
#[allow(dead_code, reason = "the device's own tests use the rest")]
mod player;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use agl_virtio_codec::{Codec, Size};
use bench::{Clip, encode, plain};
use frontend::clients::video::{
    DONE, DONE_SIZE, ERROR, INPUT, INVALID_OPERATION, OK, OUTPUT, Params, RESOLUTION_CHANGED,
    VideoClient, done, request, word,
};
use frontend::message_bus::{MessageBus, Policy};
use frontend::service_under_test::{Launch, ServiceUnderTest, descendants};
use frontend::{ChainId, Deadline};
use player::{CODED, LIBVPX8, LIBVPX9, NV12, PATIENCE, Resource, VP8, VP9, client, sum_of};
use rustix::process::{Pid, Signal, kill_process};

const NAME: &str = "org.automotivelinux.Virtio1.Device.guest.decoder";
const DEVICE: &str = "/org/automotivelinux/Virtio1/guests/guest/decoder";
const INTERFACE: &str = "org.automotivelinux.Virtio1.Video";
/// A request's type.
const QUEUE_CLEAR: u32 = 0x107;
/// Streams at once.
const STREAMS: u32 = 8;
/// How often a codec is killed, where `AGL_VIRTIO_KILLS` says nothing else.
const KILLS: usize = 20;

/// A service with its bus.
struct Scene {
    service: ServiceUnderTest,
    _bus: MessageBus,
    folders: [tempfile::TempDir; 2],
    address: String,
}

/// What the service said, where a test has failed.
impl Drop for Scene {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

impl Scene {
    fn start(with: impl FnOnce(Launch, &Path) -> Launch) -> Self {
        let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let bus = MessageBus::start(folders[1].path(), &Policy::Open).unwrap();
        let address = bus.address();
        let launch = Launch::new(
            env!("CARGO_BIN_EXE_agl-virtio-video"),
            folders[0].path().join("socket"),
        )
        .args(["--log", "warn", "--bus"])
        .args([&address]);
        let launch = launch.log(folders[0].path().join("log"));
        let service = with(launch, folders[0].path()).start().unwrap();
        Self {
            service,
            _bus: bus,
            folders,
            address,
        }
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folders[0].path().join("log")).unwrap()
    }

    fn client(&self) -> VideoClient {
        client(&self.service)
    }

    /// What the service says on its bus; waits until it does.
    fn ask(&self, words: &[&str]) -> String {
        let deadline = Deadline::after(PATIENCE);
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

    /// The process of a stream's codec.
    fn codec_of(&self, stream: u32) -> Pid {
        let path = format!("{DEVICE}/sessions/{stream}");
        let interface = format!("{INTERFACE}.Session");
        let deadline = Deadline::after(PATIENCE);
        let pid = loop {
            let said = self.ask(&["get-property", NAME, &path, &interface, "Process"]);
            let pid: i32 = said.trim().trim_start_matches("u ").parse().unwrap();
            if let Some(pid) = Pid::from_raw(pid) {
                break pid;
            }
            assert!(!deadline.passed(), "it has no process of its own");
        };
        let all = descendants(self.service.service_pid().unwrap());
        assert!(
            all.contains(&(pid.as_raw_nonzero().get() as u32)),
            "{pid:?} of {all:?}"
        );
        pid
    }

    fn counted(&self, counter: &str) -> u64 {
        let said = self.ask(&["call", NAME, DEVICE, INTERFACE, "Statistics"]);
        let (_, rest) = said.split_once(&format!("\"{counter}\" ")).unwrap();
        rest.split_whitespace().next().unwrap().parse().unwrap()
    }
}

/// A stream that is decoded picture by picture, in turns with others.
struct Stream {
    id: u32,
    coded: u32,
    input: Resource,
    output: Option<(Resource, Params)>,
    sums: Vec<u64>,
}

impl Stream {
    fn new(driver: &mut VideoClient, id: u32, coded: u32) -> Self {
        let input = Resource::new(driver, CODED);
        let mut stream = Self {
            id,
            coded,
            input,
            output: None,
            sums: Vec::new(),
        };
        stream.create(driver);
        stream
    }

    fn create(&mut self, driver: &mut VideoClient) {
        assert_eq!(driver.create(self.id, self.coded).unwrap(), OK);
        let mut params = Params::new(INPUT, self.coded, 64, 64);
        params.0[12] = CODED;
        assert_eq!(driver.set_params(self.id, &params).unwrap(), OK);
        let params = Params::new(OUTPUT, NV12, 64, 64);
        assert_eq!(driver.set_params(self.id, &params).unwrap(), OK);
        let attached = driver.attach(self.id, INPUT, 1, &[&self.input.runs]);
        assert_eq!(attached.unwrap(), OK);
        self.output = None;
        self.sums.clear();
    }

    fn queue_input(&self, driver: &mut VideoClient, unit: &[u8]) -> ChainId {
        self.input.write(driver, unit);
        let bytes = u32::try_from(unit.len()).unwrap();
        driver.queue(self.id, INPUT, 1, 7, bytes).unwrap()
    }

    /// The next event is of this stream.
    fn event(&self, driver: &mut VideoClient, kind: u32) {
        let event = driver.event(Deadline::after(PATIENCE));
        assert_eq!(event.unwrap(), (kind, self.id));
    }

    /// Decodes the next picture.
    fn step(&mut self, driver: &mut VideoClient, unit: &[u8]) {
        let input = self.queue_input(driver, unit);
        if self.output.is_none() {
            self.event(driver, RESOLUTION_CHANGED);
            let params = driver.params(self.id, OUTPUT).unwrap();
            let resource = Resource::new(driver, params.plane(0).0);
            let attached = driver.attach(self.id, OUTPUT, 1, &[&resource.runs]);
            assert_eq!(attached.unwrap(), OK);
            self.output = Some((resource, params));
        }
        let output = driver.queue(self.id, OUTPUT, 1, 0, 0).unwrap();
        let mut open = vec![input, output];
        while !open.is_empty() {
            let (chain, bytes) = driver.next(Deadline::after(PATIENCE)).unwrap();
            assert_eq!(done(&bytes).kind, DONE, "stream {}", self.id);
            open.retain(|one| *one != chain);
        }
        let (resource, params) = self.output.as_ref().unwrap();
        let memory = resource.read(driver);
        self.sums.push(sum_of(&memory, params, NV12));
    }

    /// Its codec is gone: what waits comes back, and it can be made anew at once.
    fn is_lost(&mut self, driver: &mut VideoClient, waiting: ChainId) {
        assert_eq!(done(&answer(driver, waiting)).kind, INVALID_OPERATION);
        self.event(driver, ERROR);
        assert_eq!(driver.destroy(self.id).unwrap(), OK);
        self.create(driver);
    }

    /// Waits for a picture that never comes.
    fn wait_for_output(&self, driver: &mut VideoClient) -> ChainId {
        driver.queue(self.id, OUTPUT, 1, 0, 0).unwrap()
    }
}

/// The answer to a request, however long it takes.
fn answer(driver: &mut VideoClient, chain: ChainId) -> Vec<u8> {
    let deadline = Deadline::after(PATIENCE);
    loop {
        match driver.finish(chain) {
            Ok(answer) => return answer,
            Err(error) => assert!(!deadline.passed(), "{error}"),
        }
    }
}

/// Waits until a process is gone.
fn is_gone(process: Pid) {
    let deadline = Deadline::after(PATIENCE);
    while rustix::process::test_kill_process(process).is_ok() {
        assert!(!deadline.passed(), "{process:?} is still there");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn clip(codec: &str, pictures: u32) -> Clip {
    encode(codec, Size::new(176, 144), pictures)
}

#[test]
fn a_codec_that_is_killed_ends_its_stream_and_the_seven_others_go_on() {
    let kills = std::env::var("AGL_VIRTIO_KILLS")
        .ok()
        .map_or(KILLS, |text| text.parse().unwrap());
    let scene = Scene::start(|launch, _| launch);
    let mut driver = scene.client();
    let clip = clip(LIBVPX8, 16);
    let expected = plain(Codec::Vp8, &clip);
    let pid = scene.service.service_pid();
    let mut streams: Vec<Stream> = (1..=STREAMS)
        .map(|id| Stream::new(&mut driver, id, VP8))
        .collect();
    for round in 0..kills {
        for stream in &mut streams {
            // Each is elsewhere in the clip, and begins it anew at its end.
            if stream.sums.len() == clip.units.len() {
                assert_eq!(stream.sums, expected, "stream {}", stream.id);
                assert_eq!(driver.destroy(stream.id).unwrap(), OK);
                stream.create(&mut driver);
            }
            let unit = &clip.units[stream.sums.len()];
            stream.step(&mut driver, unit);
        }
        let victim = &mut streams[round * 5 % STREAMS as usize];
        let process = scene.codec_of(victim.id);
        let waiting = victim.wait_for_output(&mut driver);
        let signal = if round % 2 == 0 {
            Signal::KILL
        } else {
            Signal::ABORT
        };
        kill_process(process, signal).unwrap();
        victim.is_lost(&mut driver, waiting);
    }
    for stream in &mut streams {
        while stream.sums.len() < clip.units.len() {
            let unit = &clip.units[stream.sums.len()];
            stream.step(&mut driver, unit);
        }
        assert_eq!(stream.sums, expected, "stream {}", stream.id);
    }
    assert_eq!(scene.counted("codecs-died"), kills as u64);
    assert_eq!(scene.counted("sessions-failed"), kills as u64);
    // However many processes there were: no thread has inherited the filters of all before.
    let log = scene.log();
    assert!(!log.contains("not narrowed"), "{log}");
    assert_eq!(scene.service.service_pid(), pid, "the service never died");
}

#[test]
fn a_program_that_seeks_several_times_at_once_goes_on() {
    let scene = Scene::start(|launch, _| launch);
    let mut driver = scene.client();
    let clip = clip(LIBVPX8, 4);
    let expected = plain(Codec::Vp8, &clip);
    let mut stream = Stream::new(&mut driver, 1, VP8);
    stream.step(&mut driver, &clip.units[0]);
    for _ in 0..10 {
        let clear = request(QUEUE_CLEAR, 1, &[INPUT, 0]);
        let clears = [(); 4].map(|()| driver.post(&clear, DONE_SIZE).unwrap());
        for clear in clears {
            assert_eq!(word(&answer(&mut driver, clear), 0), OK);
        }
    }
    stream.sums.clear();
    for unit in &clip.units {
        stream.step(&mut driver, unit);
    }
    assert_eq!(stream.sums, expected);
    assert_eq!(scene.counted("codecs-hung"), 0);
}

#[test]
fn a_guest_that_makes_streams_without_end_has_few_processes_and_goes_on() {
    let scene = Scene::start(|launch, _| launch);
    let mut driver = scene.client();
    let clip = clip(LIBVPX8, 4);
    let expected = plain(Codec::Vp8, &clip);
    let service = scene.service.service_pid().unwrap();
    let mut most = 0;
    for _ in 0..60 {
        let stream = Stream::new(&mut driver, 1, VP8);
        let input = stream.queue_input(&mut driver, &clip.units[0]);
        answer(&mut driver, input);
        assert_eq!(driver.destroy(1).unwrap(), OK);
        stream.input.free(&mut driver);
        most = most.max(descendants(service).len());
    }
    // Those of its streams, two beside, and the nursery.
    assert!(most <= STREAMS as usize + 3, "{most} processes");
    let log = scene.log();
    assert!(!log.contains("not narrowed"), "{log}");
    let mut stream = Stream::new(&mut driver, 1, VP8);
    for unit in &clip.units {
        stream.step(&mut driver, unit);
    }
    assert_eq!(stream.sums, expected);
}

#[test]
fn a_codec_that_stands_still_ends_its_stream_and_is_ended() {
    // With the usual patience: codecs that are only slow live through it.
    let scene = Scene::start(|launch, _| launch);
    let mut driver = scene.client();
    let clip = clip(LIBVPX8, 6);
    let expected = plain(Codec::Vp8, &clip);
    let mut stream = Stream::new(&mut driver, 1, VP8);
    stream.step(&mut driver, &clip.units[0]);
    let process = scene.codec_of(1);
    kill_process(process, Signal::STOP).unwrap();
    let input = stream.queue_input(&mut driver, &clip.units[1]);
    let waiting = stream.wait_for_output(&mut driver);
    assert_eq!(done(&answer(&mut driver, input)).kind, DONE);
    stream.is_lost(&mut driver, waiting);
    assert_eq!(scene.counted("codecs-hung"), 1);
    for unit in &clip.units {
        stream.step(&mut driver, unit);
    }
    assert_eq!(stream.sums, expected);
    // Its process does not stay either.
    is_gone(process);
}

/// The element that crashes, built for the GStreamer of this host.
fn crashing_plugin(folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crashing/element.c");
    let flags = Command::new("pkg-config")
        .args(["--cflags", "--libs", "gstreamer-1.0"])
        .output()
        .unwrap();
    let flags = String::from_utf8(flags.stdout).unwrap();
    let plugins = folder.join("plugins");
    std::fs::create_dir(&plugins).unwrap();
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(plugins.join("libaglcrashing.so"))
        .arg(source)
        .args(flags.split_whitespace())
        .status()
        .unwrap();
    assert!(built.success());
    plugins
}

#[test]
fn an_element_that_crashes_ends_its_stream_only() {
    let scene = Scene::start(|launch, folder| {
        let plugins = crashing_plugin(folder);
        let file = folder.join("guest.toml");
        let text = format!(
            "[devices.decoder]\ntype = \"video\"\npaths = [\"{}\"]\n\
             [devices.decoder.elements.decoders]\n\
             vp8 = \"vp8dec ! aglcrashing\"\nvp9 = \"vp9parse ! vp9dec\"\n",
            plugins.display()
        );
        std::fs::write(&file, text).unwrap();
        launch
            .env("GST_PLUGIN_PATH", &plugins)
            // What is known of plugins, where the sandbox lets it be read and written.
            .env("XDG_CACHE_HOME", folder.join("cache"))
            .args(["--config"])
            .args([file])
    });
    let mut driver = scene.client();
    let (bad, good) = (clip(LIBVPX8, 4), clip(LIBVPX9, 8));
    let expected = plain(Codec::Vp9, &good);
    let mut beside = Stream::new(&mut driver, 1, VP9);
    let mut stream = Stream::new(&mut driver, 2, VP8);
    let pid = scene.service.service_pid();
    let mut said = Vec::new();
    for round in 0..2 {
        for (bad_unit, good_unit) in bad.units[..2].iter().zip(&good.units[round * 2..]) {
            stream.step(&mut driver, bad_unit);
            beside.step(&mut driver, good_unit);
        }
        let process = scene.codec_of(2).as_raw_nonzero();
        said.push(format!(
            "codec process {process}: aglcrashing: the third picture"
        ));
        said.push(format!(
            "stream 2 has failed: vp8: the process that codes was ended by signal 11 (process {process})"
        ));
        let waiting = stream.wait_for_output(&mut driver);
        let input = stream.queue_input(&mut driver, &bad.units[2]);
        answer(&mut driver, input);
        stream.is_lost(&mut driver, waiting);
    }
    for unit in &good.units[4..] {
        beside.step(&mut driver, unit);
    }
    assert_eq!(beside.sums, expected);
    assert_eq!(scene.counted("codecs-died"), 2);
    let log = scene.log();
    for line in said {
        assert_eq!(log.matches(&line).count(), 1, "{line}: {log}");
    }
    assert_eq!(scene.service.service_pid(), pid, "the service never died");
}

#[test]
fn a_codec_has_its_limits() {
    let scene = Scene::start(|launch, _| launch);
    let mut driver = scene.client();
    let clip = clip(LIBVPX8, 1);
    let mut stream = Stream::new(&mut driver, 1, VP8);
    stream.step(&mut driver, &clip.units[0]);
    let process = scene.codec_of(1).as_raw_nonzero();
    let read = |file| std::fs::read_to_string(format!("/proc/{process}/{file}")).unwrap();
    let limits = read("limits");
    // Soft and hard; a host may have lower ones.
    for (name, most) in [
        ("Max data size", 2048 << 20),
        ("Max processes", 4096),
        ("Max open files", 512),
        ("Max core file size", 0),
    ] {
        let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
        let numbers = line[name.len()..].split_whitespace().take(2);
        for number in numbers {
            assert!(number.parse::<u64>().unwrap() <= most, "{line}");
        }
    }
    assert_eq!(read("oom_score_adj").trim(), "500");
}

#[test]
fn with_the_service_its_codecs_go() {
    let scene = Scene::start(|launch, _| launch);
    let mut driver = scene.client();
    let clip = clip(LIBVPX8, 1);
    let mut stream = Stream::new(&mut driver, 1, VP8);
    stream.step(&mut driver, &clip.units[0]);
    let process = scene.codec_of(1);
    kill_process(process, Signal::STOP).unwrap();
    scene.service.kill_service().unwrap();
    is_gone(process);
}
