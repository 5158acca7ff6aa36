// SPDX-License-Identifier: Apache-2.0

//! A guest's driver that keeps its streams supplied, as Linux does.

use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use frontend::Deadline;
use frontend::clients::snd::wire::{request, status};
use frontend::clients::snd::{RX, SndClient, TX, Transfer};
use frontend::service_under_test::{Launch, ServiceUnderTest};

use crate::sound::{self, PERIODS, Shape};

/// One stream of the card.
struct Supply {
    shape: Shape,
    running: bool,
    /// Bytes sent, and of these come back.
    sent: usize,
    done: usize,
    /// What is left to be sent, where there is an end.
    left: usize,
    /// What the host had still to play when a buffer came back, in microseconds.
    latencies: Vec<u64>,
    /// When each buffer came back.
    times: Vec<Instant>,
    recorded: Vec<u8>,
}

/// The service, and a driver for its card.
pub(crate) struct Driver {
    pub(crate) client: SndClient,
    streams: Vec<Option<Supply>>,
    folder: tempfile::TempDir,
    // Killed last.
    _service: ServiceUnderTest,
}

impl Driver {
    /// Starts the service, in its sandbox, with these lines for each of the streams.
    pub(crate) fn start(streams: &[impl AsRef<str>]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("ivi.toml");
        let mut text = "[devices.cabin]\ntype = \"snd\"\n".to_owned();
        for (index, lines) in streams.iter().enumerate() {
            text += "\n[[devices.cabin.streams]]\n";
            text += &format!(
                "name = \"Card {index}\"\ndevice = {index}\n{}\n",
                lines.as_ref()
            );
        }
        fs::write(&config, text).unwrap();
        let service = Launch::new(
            env!("CARGO_BIN_EXE_agl-virtio-snd"),
            folder.path().join("socket"),
        )
        .args(["--bus", "none", "--device", "cabin", "--config"])
        .args([config])
        .log(folder.path().join("log"))
        .start()
        .unwrap();
        let stream = service.connect(Deadline::patient()).unwrap();
        let client = SndClient::start(stream, &SndClient::options()).unwrap();
        Self {
            client,
            streams: streams.iter().map(|_| None).collect(),
            folder,
            _service: service,
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What the service has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap_or_default()
    }

    /// Starts an output from the beginning of the sound; after `milliseconds` of it there is
    /// nothing more to come, where a number is given.
    pub(crate) fn play(&mut self, stream: usize, shape: &Shape, milliseconds: Option<u32>) {
        self.begin(stream, shape, TX, milliseconds);
    }

    /// Starts an input.
    pub(crate) fn record(&mut self, stream: usize, shape: &Shape) {
        self.begin(stream, shape, RX, None);
    }

    fn begin(&mut self, stream: usize, shape: &Shape, queue: u16, milliseconds: Option<u32>) {
        let set = self.client.set_params(stream as u32, &shape.params());
        assert_eq!(set.unwrap(), status::OK, "{shape:?}");
        self.request(request::PCM_PREPARE, stream);
        self.streams[stream] = Some(Supply {
            shape: *shape,
            running: true,
            sent: 0,
            done: 0,
            left: milliseconds.map_or(usize::MAX, |length| shape.bytes(length)),
            latencies: Vec::new(),
            times: Vec::new(),
            recorded: Vec::new(),
        });
        for _ in 0..PERIODS {
            self.send(stream, queue);
        }
        self.client.kick(queue).unwrap();
        self.request(request::PCM_START, stream);
    }

    /// Waits until everything was played, then stops the stream and gives it up. What the guest was
    /// told of the latency after each buffer, in microseconds.
    pub(crate) fn finish(&mut self, stream: usize) -> Vec<u64> {
        while self.supply(stream).done < self.supply(stream).sent {
            self.settle(TX);
        }
        self.end(stream, TX)
    }

    /// Stops a stream and gives it up.
    pub(crate) fn end(&mut self, stream: usize, queue: u16) -> Vec<u64> {
        self.supply(stream).running = false;
        self.request(request::PCM_STOP, stream);
        self.request(request::PCM_RELEASE, stream);
        while self.supply(stream).done < self.supply(stream).sent {
            self.settle(queue);
        }
        self.streams[stream].take().unwrap().latencies
    }

    /// Waits for the next buffer that comes back by this queue, and sends another of its stream.
    pub(crate) fn settle(&mut self, queue: u16) {
        let completion = self.client.guest_mut().ring_mut(queue);
        let completion = completion.wait(Deadline::patient()).unwrap();
        let transfer = self.client.settle(queue, completion).unwrap();
        self.renew(transfer, queue);
    }

    fn renew(&mut self, transfer: Transfer, queue: u16) {
        assert_eq!(transfer.status, status::OK);
        let stream = transfer.stream as usize;
        let supply = self.supply(stream);
        let frames = transfer.latency_bytes as usize / supply.shape.frame();
        let latency = frames as u64 * 1_000_000 / u64::from(supply.shape.hertz);
        supply.latencies.push(latency);
        supply.times.push(Instant::now());
        supply.recorded.extend(transfer.data);
        supply.done += supply.shape.params().period_bytes as usize;
        if supply.running {
            self.send(stream, queue);
            self.client.kick(queue).unwrap();
        }
    }

    fn send(&mut self, stream: usize, queue: u16) {
        let supply = self.supply(stream);
        let (from, period) = (supply.sent, supply.shape.params().period_bytes as usize);
        if supply.left < period {
            return;
        }
        supply.left -= period;
        supply.sent += period;
        let sent = if queue == RX {
            self.client.record(stream as u32, period as u32)
        } else {
            self.client.play(stream as u32, &sound::bytes(from, period))
        };
        sent.unwrap();
    }

    fn request(&mut self, code: u32, stream: usize) {
        let answer = self.client.pcm(code, stream as u32).unwrap();
        assert_eq!(answer, status::OK, "{code:#x}");
    }

    fn supply(&mut self, stream: usize) -> &mut Supply {
        self.streams[stream].as_mut().unwrap()
    }

    /// Milliseconds of a stream that came back so far.
    pub(crate) fn time(&mut self, stream: usize) -> u64 {
        let supply = self.supply(stream);
        let frames = supply.done / supply.shape.frame();
        frames as u64 * 1000 / u64::from(supply.shape.hertz)
    }

    /// When each of a stream's buffers came back.
    pub(crate) fn times(&mut self, stream: usize) -> &[Instant] {
        &self.supply(stream).times
    }

    /// What a stream has recorded so far.
    pub(crate) fn recorded(&mut self, stream: usize) -> &[u8] {
        &self.supply(stream).recorded
    }
}
