// SPDX-License-Identifier: Apache-2.0

//! The card under test.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use agl_virtio_snd::backend::file::FileConfig;
use agl_virtio_snd::config::{BackendConfig, SndConfig};
use agl_virtio_snd::device::SoundDevice;
use agl_virtio_snd::panel::Panel;
use frontend::Deadline;
use frontend::clients::snd::wire::{Params, request, status};
use frontend::clients::snd::{SndClient, TX};
use virtio_device::{Options, Server, Stop};

/// The streams of the default card.
pub(crate) const MULTIMEDIA: u32 = 0;
pub(crate) const EMERGENCY: u32 = 1;
pub(crate) const MICROPHONE: u32 = 2;

/// Bytes before the samples in the files that the service writes.
pub(crate) const HEADER: usize = 80;

pub(crate) struct Card {
    // Dropped first: its connection ends, and the server can.
    pub(crate) client: Option<SndClient>,
    pub(crate) panel: Arc<Panel>,
    stop: Stop,
    thread: Option<JoinHandle<()>>,
    pub(crate) folder: tempfile::TempDir,
}

impl Card {
    /// The default card, with files in a folder of its own.
    pub(crate) fn new() -> Self {
        Self::with(|_, _| {})
    }

    /// The default card with some changes.
    pub(crate) fn with(change: impl FnOnce(&mut SndConfig, &Path)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = SndConfig::default();
        let path = format!("{}/{{stream}}-{{n}}.wav", folder.path().display());
        for stream in &mut config.streams {
            stream.backend = BackendConfig::File(FileConfig {
                path: path.clone(),
                ..FileConfig::default()
            });
        }
        change(&mut config, folder.path());
        let device = SoundDevice::new("guest", "snd", &config, &(Arc::new(|_: &str| {}) as _));
        let device = device.unwrap();
        let panel = Arc::clone(device.panel());
        let server = Server::new(Arc::new(device), Options::default()).unwrap();
        let stop = server.stop_handle();
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let thread = std::thread::spawn(move || server.serve(&listener).unwrap());
        let stream = UnixStream::connect(socket).unwrap();
        let client = SndClient::start(stream, &SndClient::options()).unwrap();
        Self {
            client: Some(client),
            panel,
            stop,
            thread: Some(thread),
            folder,
        }
    }

    pub(crate) fn client(&mut self) -> &mut SndClient {
        self.client.as_mut().unwrap()
    }

    /// Sends a request about a stream, which must succeed.
    pub(crate) fn pcm(&mut self, number: u32, stream: u32) {
        assert_eq!(
            self.client().pcm(number, stream).unwrap(),
            status::OK,
            "{number:#x}"
        );
    }

    /// SET_PARAMS and PREPARE.
    pub(crate) fn prepare(&mut self, stream: u32, params: &Params) {
        assert_eq!(
            self.client().set_params(stream, params).unwrap(),
            status::OK
        );
        self.pcm(request::PCM_PREPARE, stream);
    }

    /// Plays `data` in periods from a prepared stream's START to its RELEASE, with all of the
    /// driver's buffer in flight. Returns how long it took.
    pub(crate) fn play(&mut self, stream: u32, params: &Params, data: &[u8]) -> Duration {
        let mut periods = data.chunks(params.period_bytes as usize);
        let in_flight = (params.buffer_bytes / params.period_bytes) as usize;
        let mut out = 0;
        for period in periods.by_ref().take(in_flight) {
            self.client().play(stream, period).unwrap();
            out += 1;
        }
        self.client().kick(TX).unwrap();
        let begin = Instant::now();
        self.pcm(request::PCM_START, stream);
        while out > 0 {
            let transfer = self.client().played(Deadline::patient()).unwrap();
            assert_eq!((transfer.status, transfer.stream), (status::OK, stream));
            out -= 1;
            if let Some(period) = periods.next() {
                self.client().play(stream, period).unwrap();
                self.client().kick(TX).unwrap();
                out += 1;
            }
        }
        let took = begin.elapsed();
        self.pcm(request::PCM_STOP, stream);
        self.pcm(request::PCM_RELEASE, stream);
        took
    }

    /// The samples of a file once it has `bytes` of them.
    pub(crate) fn file(&self, name: &str, bytes: usize) -> Vec<u8> {
        let path = self.folder.path().join(name);
        let mut content = Vec::new();
        until("the file is whole", || {
            content = std::fs::read(&path).unwrap_or_default();
            content.len() >= HEADER + bytes
        });
        content.split_off(HEADER)
    }
}

impl Drop for Card {
    fn drop(&mut self) {
        drop(self.client.take());
        self.stop.stop();
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            ended.unwrap().unwrap();
        }
    }
}

/// Waits for what must come, however slow the machine is.
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < end, "{what}");
        std::thread::yield_now();
    }
}

/// Bytes in which no period is like another.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x1234_5678_u32;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[1]
    };
    std::iter::repeat_with(next).take(len).collect()
}
