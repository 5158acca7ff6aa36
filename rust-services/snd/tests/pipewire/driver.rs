// SPDX-License-Identifier: Apache-2.0

//! A driver that keeps its streams supplied, as Linux does.

use std::time::{Duration, Instant};

use frontend::Deadline;
use frontend::clients::snd::wire::{Params, request, status};
use frontend::clients::snd::{RX, SndClient, TX, Transfer};
use frontend::service_under_test::{Launch, ServiceUnderTest};

use crate::server::{PipeWire, wait_for};
use crate::signal;

/// Streams of the card: one that steps back, and one for which it does.
pub(crate) const MUSIC: usize = 0;
pub(crate) const ALARM: usize = 1;
/// The stream that records.
pub(crate) const MICROPHONE: usize = 2;

/// Frames of a period, and periods of the buffer.
const PERIOD: u64 = 480;
const PERIODS: u64 = 8;

const CONFIG: &str = r#"
[devices.cabin]
type = "snd"

[[devices.cabin.streams]]
name = "Music"
backend = { type = "alsa", pcm = "pipewire" }

[[devices.cabin.streams]]
name = "Alarm"
device = 1
role = "emergency"
backend = { type = "alsa", pcm = "pipewire" }

[[devices.cabin.streams]]
name = "Microphone"
direction = "input"
backend = { type = "alsa", pcm = "pipewire" }
"#;

/// What a method of the properties of a stream returns, once the service is on the bus.
fn properties(server: &PipeWire, stream: usize, method: &str, arguments: &[&str]) -> String {
    let path = "/org/automotivelinux/Virtio1/guests/ivi/cabin/streams";
    wait_for("an answer on the bus", || {
        let done = server
            .command("dbus-send")
            .arg(format!("--bus={}", server.bus()))
            .args([
                "--print-reply=literal",
                "--dest=org.automotivelinux.Virtio1.Device.ivi.cabin",
            ])
            .arg(format!("{path}/{stream}"))
            .arg(format!("org.freedesktop.DBus.Properties.{method}"))
            .arg("string:org.automotivelinux.Virtio1.Sound.Stream")
            .args(arguments)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&done.stdout).into_owned();
        done.status.success().then_some(said)
    })
}

pub(crate) struct Driver {
    client: SndClient,
    streams: [Supply; 3],
    recorded: Vec<u8>,
    /// What the service said after each buffer of music of what the host had still to play, in
    /// bytes.
    latencies: Vec<u32>,
    // Killed last.
    _service: ServiceUnderTest,
}

#[derive(Clone, Copy, Default)]
struct Supply {
    running: bool,
    /// Frames sent, and of these come back.
    sent: u64,
    played: u64,
}

impl Driver {
    /// Starts the service, in its sandbox, and a driver for its card.
    pub(crate) fn start(server: &PipeWire) -> Self {
        let config = server.path("ivi.toml");
        std::fs::write(&config, CONFIG).unwrap();
        let mut launch = Launch::new(
            env!("CARGO_BIN_EXE_agl-virtio-snd"),
            server.path("snd.sock"),
        )
        .args(["--bus", &server.bus(), "--device", "cabin", "--config"])
        .args([config]);
        for (name, value) in server.environment() {
            launch = launch.env(name, value);
        }
        let service = launch.start().unwrap();
        let stream = service.connect(Deadline::patient()).unwrap();
        let client = SndClient::start(stream, &SndClient::options()).unwrap();
        Self {
            client,
            streams: [Supply::default(); 3],
            recorded: Vec::new(),
            latencies: Vec::new(),
            _service: service,
        }
    }

    /// Gives a stream another role over D-Bus.
    pub(crate) fn set_role(&self, server: &PipeWire, stream: usize, role: &str) {
        let role = format!("variant:string:{role}");
        properties(server, stream, "Set", &["string:Role", &role]);
    }

    /// What D-Bus says of the latency of a stream, in microseconds.
    pub(crate) fn latency_usec(&self, server: &PipeWire, stream: usize) -> u32 {
        let said = properties(server, stream, "Get", &["string:LatencyUsec"]);
        let number = said.split_whitespace().last().unwrap_or_default();
        number.parse().unwrap_or_else(|_| panic!("{said}"))
    }

    /// Frames that came back.
    pub(crate) fn frames(&self, stream: usize) -> u64 {
        self.streams[stream].played
    }

    /// Starts a stream from the beginning of its sound.
    pub(crate) fn begin(&mut self, stream: usize) {
        let params = Params {
            period_bytes: (PERIOD * 4) as u32,
            buffer_bytes: (PERIOD * PERIODS * 4) as u32,
            ..Params::CD_LIKE
        };
        let number = stream as u32;
        assert_eq!(self.client.set_params(number, &params).unwrap(), status::OK);
        self.request(request::PCM_PREPARE, stream);
        self.streams[stream] = Supply {
            running: true,
            ..Supply::default()
        };
        for _ in 0..PERIODS {
            self.send(stream);
        }
        self.client.kick(TX).unwrap();
        self.client.kick(RX).unwrap();
        self.request(request::PCM_START, stream);
    }

    /// Stops a stream and gives it up.
    pub(crate) fn end(&mut self, stream: usize) {
        self.streams[stream].running = false;
        self.request(request::PCM_STOP, stream);
        self.request(request::PCM_RELEASE, stream);
        while self.streams[stream].played < self.streams[stream].sent {
            self.settle();
        }
    }

    /// Keeps all streams supplied for so long.
    pub(crate) fn play_for(&mut self, seconds: f64) {
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        while Instant::now() < end {
            self.settle();
        }
    }

    fn request(&mut self, code: u32, stream: usize) {
        assert_eq!(self.client.pcm(code, stream as u32).unwrap(), status::OK);
    }

    fn send(&mut self, stream: usize) {
        let from = self.streams[stream].sent;
        self.streams[stream].sent += PERIOD;
        if stream == MICROPHONE {
            self.client
                .record(MICROPHONE as u32, (PERIOD * 4) as u32)
                .unwrap();
            return;
        }
        let bytes = match stream {
            MUSIC => signal::bytes(from, PERIOD, signal::tone),
            _ => signal::bytes(from, PERIOD, signal::alarm),
        };
        self.client.play(stream as u32, &bytes).unwrap();
    }

    /// Waits for a buffer that was played, and sends another of its stream; the same for those that
    /// were recorded meanwhile.
    fn settle(&mut self) {
        let played = self.client.played(Deadline::patient()).unwrap();
        self.renew(&played);
        while let Some(completion) = self.client.guest_mut().ring_mut(RX).pop().unwrap() {
            let recorded = self.client.settle(RX, completion).unwrap();
            self.recorded.extend_from_slice(&recorded.data);
            self.renew(&recorded);
        }
    }

    fn renew(&mut self, transfer: &Transfer) {
        assert_eq!(transfer.status, status::OK);
        let stream = transfer.stream as usize;
        self.streams[stream].played += PERIOD;
        if stream == MUSIC {
            self.latencies.push(transfer.latency_bytes);
        }
        if self.streams[stream].running {
            self.send(stream);
            self.client
                .kick(if stream == MICROPHONE { RX } else { TX })
                .unwrap();
        }
    }

    /// What the host had still to play after each buffer of music, in frames.
    pub(crate) fn latencies(&self) -> impl Iterator<Item = u32> {
        self.latencies.iter().map(|bytes| bytes / 4)
    }

    /// What was recorded, as 16-bit samples.
    pub(crate) fn recorded(&self) -> Vec<[i16; 2]> {
        let sample = |bytes: &[u8]| i16::from_le_bytes(bytes.try_into().unwrap());
        self.recorded
            .chunks_exact(4)
            .map(|frame| [sample(&frame[..2]), sample(&frame[2..])])
            .collect()
    }
}
