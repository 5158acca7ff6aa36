// SPDX-License-Identifier: Apache-2.0

//! A card below its keeper, and frames that can be told apart.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use frontend::Deadline;
use frontend::clients::snd::SndClient;
use frontend::clients::snd::wire::{Params, request, status};
use frontend::protocol::feature;
use frontend::service_under_test::{Launch, ServiceUnderTest};
use rustix::process::{Pid, Signal, kill_process};

pub(crate) const OUTPUT: u32 = 0;
pub(crate) const INPUT: u32 = 2;
/// 10 ms.
pub(crate) const PERIOD: usize = 1920;
pub(crate) const FRAME: usize = 4;
/// Bytes before the samples in the files that the service writes.
const HEADER: usize = 80;

/// The keeper beside our service; built where it is not there, because only the sound service's tests
/// were asked for.
pub(crate) fn keeper() -> PathBuf {
    let service = Path::new(env!("CARGO_BIN_EXE_agl-virtio-snd"));
    let keeper = service.with_file_name("agl-virtio-keeper");
    if keeper.exists() {
        return keeper;
    }
    let mut build = Command::new(env!("CARGO"));
    build.args(["build", "--quiet", "--package", "agl-virtio-keeper"]);
    let folder = service.parent().unwrap();
    if folder.ends_with("release") {
        build.arg("--release");
    }
    assert!(
        build.status().unwrap().success(),
        "the keeper does not build"
    );
    keeper
}

/// The service of the default card, without a keeper, playing into `folder`/out.
pub(crate) fn card(folder: &Path) -> Launch {
    Launch::new(env!("CARGO_BIN_EXE_agl-virtio-snd"), folder.join("socket"))
        .args(["--log", "error", "--bus", "none", "--output"])
        .args([folder.join("out")])
}

/// The same below a keeper.
pub(crate) fn kept_card(folder: &Path) -> ServiceUnderTest {
    card(folder).below_keeper(keeper()).start().unwrap()
}

/// A driver that has set the device up, with EVENT_IDX or without, and its event queue left empty.
pub(crate) fn driver(service: &ServiceUnderTest, event_idx: bool) -> SndClient {
    let mut options = SndClient::options();
    if !event_idx {
        options.wishes.features &= !feature::EVENT_IDX;
    }
    let stream = service.connect(Deadline::patient()).unwrap();
    let mut guest = frontend::Guest::connect(stream, &options).unwrap();
    guest.start().unwrap();
    let agreed = guest.session().unwrap().features();
    assert_eq!(agreed & feature::EVENT_IDX != 0, event_idx);
    SndClient::over(guest)
}

pub(crate) fn kill(service: &ServiceUnderTest) -> u32 {
    let pid = service.wait_service_pid(None, Deadline::patient()).unwrap();
    kill_process(
        Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(),
        Signal::KILL,
    )
    .unwrap();
    pid
}

/// SET_PARAMS and PREPARE.
pub(crate) fn prepare(client: &mut SndClient, stream: u32) {
    assert_eq!(
        client.set_params(stream, &Params::CD_LIKE).unwrap(),
        status::OK
    );
    pcm(client, request::PCM_PREPARE, stream);
}

/// A request about a stream, which must succeed.
pub(crate) fn pcm(client: &mut SndClient, number: u32, stream: u32) {
    assert_eq!(
        client.pcm(number, stream).unwrap(),
        status::OK,
        "{number:#x}"
    );
}

/// Every buffer of a queue is back; those of a queue that took long to start come after the answer.
pub(crate) fn all_back(client: &mut SndClient, queue: u16) {
    while client.guest().ring(queue).outstanding() > 0 {
        let ring = client.guest_mut().ring_mut(queue);
        ring.wait(Deadline::patient()).unwrap();
    }
}

/// Each frame is its own number, so that what is missing or twice in a file shows.
pub(crate) struct Counted(pub(crate) u32);

impl Counted {
    pub(crate) fn period(&mut self) -> Vec<u8> {
        let frames = (PERIOD / FRAME) as u32;
        let numbers = self.0..self.0 + frames;
        self.0 += frames;
        numbers.flat_map(u32::to_le_bytes).collect()
    }
}

/// The numbers of the frames that were played, in their order, once there are so many.
pub(crate) fn played(folder: &Path, frames: usize) -> Vec<u32> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let mut files: Vec<(u32, PathBuf)> = std::fs::read_dir(folder.join("out"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter_map(|path| {
                let name = path.file_stem()?.to_str()?.strip_prefix("Multimedia-")?;
                Some((name.parse().ok()?, path))
            })
            .collect();
        files.sort();
        let mut words = Vec::new();
        for (_, path) in files {
            let content = std::fs::read(path).unwrap();
            let samples = content
                .get(HEADER..)
                .unwrap_or_default()
                .chunks_exact(FRAME);
            words.extend(samples.map(|word| u32::from_le_bytes(word.try_into().unwrap())));
        }
        if words.len() >= frames || Instant::now() > end {
            return words;
        }
        std::thread::yield_now();
    }
}

/// No frame was played twice or out of order; returns how many of those sent were not played.
pub(crate) fn lost_of(frames: &[u32], sent: u32) -> u32 {
    let repeated = frames.windows(2).find(|pair| pair[1] <= pair[0]);
    assert_eq!(repeated, None, "a frame was repeated");
    sent - frames.len() as u32
}
