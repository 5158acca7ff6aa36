// SPDX-License-Identifier: Apache-2.0

//! Streams from the host's encoders, what the host's decoders make of them, and a player.

pub(crate) mod streams;

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agl_virtio_codec::{
    Codec, Decoder, Elements, Event, Host, Layout, Library, Picture, PixelFormat, Position,
    Session, Size,
};
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app::AppSink;

/// How long a busy machine may take for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What memory has around a picture.
const AROUND: u8 = 0xa5;

/// A coded clip.
#[derive(Clone)]
pub(crate) struct Clip {
    /// What an encoder gave for each picture, in the order of decoding.
    pub(crate) units: Vec<Vec<u8>>,
    /// When each of them is shown.
    shown: Vec<u64>,
}

impl Clip {
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.units.concat()
    }

    /// Timestamps `from`, `from` + 1, … of the units, in the order in which they are shown.
    pub(crate) fn in_order_of_display(&self, from: u64) -> Vec<u64> {
        let mut order: Vec<usize> = (0..self.units.len()).collect();
        order.sort_by_key(|unit| self.shown[*unit]);
        order.iter().map(|unit| from + *unit as u64).collect()
    }
}

/// Runs a pipeline that ends in `appsink name=out` and returns its buffers.
fn run(description: &str) -> Vec<gst::Sample> {
    gst::init().unwrap();
    let pipeline =
        gst::parse::launch(description).unwrap_or_else(|error| panic!("{description}: {error}"));
    let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
    let sink = pipeline
        .by_name("out")
        .unwrap()
        .downcast::<AppSink>()
        .unwrap();
    sink.set_property("sync", false);
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut samples = Vec::new();
    while let Ok(sample) = sink.pull_sample() {
        samples.push(sample);
    }
    let error = pipeline
        .bus()
        .unwrap()
        .pop_filtered(&[gst::MessageType::Error]);
    assert!(error.is_none(), "{description}: {error:?}");
    pipeline.set_state(gst::State::Null).unwrap();
    samples
}

/// A moving picture, coded.
pub(crate) fn encode(encoder: &str, size: Size, pictures: u32) -> Clip {
    let Size { width, height } = size;
    let samples = run(&format!(
        "videotestsrc pattern=ball num-buffers={pictures} \
         ! video/x-raw,format=I420,width={width},height={height},framerate=30/1 \
         ! {encoder} ! appsink name=out"
    ));
    Clip {
        shown: samples
            .iter()
            .map(|sample| sample.buffer().unwrap().pts().unwrap().nseconds())
            .collect(),
        units: samples.iter().map(bytes_of).collect(),
    }
}

/// A moving picture in NV12 without padding; its width is a multiple of four.
pub(crate) fn raw(size: Size, pictures: u32) -> Vec<Vec<u8>> {
    let Size { width, height } = size;
    let samples = run(&format!(
        "videotestsrc pattern=ball num-buffers={pictures} \
         ! video/x-raw,format=NV12,width={width},height={height},framerate=25/1 ! appsink name=out"
    ));
    samples.iter().map(bytes_of).collect()
}

fn bytes_of(sample: &gst::Sample) -> Vec<u8> {
    sample.buffer().unwrap().map_readable().unwrap().to_vec()
}

/// What a parser finds in the headers of a stream.
pub(crate) fn parsed(parser: &str, stream: &[u8]) -> gst::Caps {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), stream).unwrap();
    let path = file.path().display();
    let samples = run(&format!(
        "filesrc location={path} ! {parser} ! appsink name=out"
    ));
    samples[0].caps_owned().unwrap()
}

/// What the host's own decoder makes of access units, in NV12.
pub(crate) fn decoded(codec: Codec, units: &[Vec<u8>]) -> Vec<Vec<u8>> {
    decoded_as(codec, units, PixelFormat::Nv12)
}

/// The same in another format, as its rows lie: those of a multiple of eight pixels have nothing between
/// them.
pub(crate) fn decoded_as(codec: Codec, units: &[Vec<u8>], format: PixelFormat) -> Vec<Vec<u8>> {
    let shown = (0..units.len() as u64).map(|number| number * 40_000_000);
    let clip = Clip {
        units: units.to_vec(),
        shown: shown.collect(),
    };
    samples_of(codec, &clip, format)
        .iter()
        .map(bytes_of)
        .collect()
}

/// How near a picture is to another, in dB.
pub(crate) fn psnr(one: &[u8], other: &[u8]) -> f64 {
    assert_eq!(one.len(), other.len());
    let squares = one.iter().zip(other).map(|(one, other)| {
        let difference = f64::from(*one) - f64::from(*other);
        difference * difference
    });
    let mean = squares.sum::<f64>() / one.len() as f64;
    10.0 * (255.0 * 255.0 / mean.max(1e-9)).log10()
}

/// Pictures of the host's own decoder, as they lie in memory without padding.
pub(crate) fn plain(codec: Codec, clip: &Clip) -> Vec<u64> {
    plain_as(codec, clip, PixelFormat::Nv12)
}

pub(crate) fn plain_as(codec: Codec, clip: &Clip, format: PixelFormat) -> Vec<u64> {
    let pictures = pictures_of(codec, clip, format);
    pictures.into_iter().map(|(sum, _)| sum).collect()
}

/// The same, each with the time at which it is shown.
fn pictures_of(codec: Codec, clip: &Clip, format: PixelFormat) -> Vec<(u64, Option<u64>)> {
    samples_of(codec, clip, format)
        .iter()
        .map(|sample| {
            let info = gstreamer_video::VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
            let frame = gstreamer_video::VideoFrame::from_buffer_readable(
                sample.buffer_owned().unwrap(),
                &info,
            );
            let shown = sample.buffer().and_then(gst::BufferRef::pts);
            (
                sum_of(&frame.unwrap(), format),
                shown.map(gst::ClockTime::nseconds),
            )
        })
        .collect()
}

fn samples_of(codec: Codec, clip: &Clip, format: PixelFormat) -> Vec<gst::Sample> {
    gst::init().unwrap();
    let elements = Elements::default();
    let name = match format {
        PixelFormat::Nv12 => "NV12",
        PixelFormat::I420 => "I420",
        PixelFormat::Yv12 => "YV12",
        PixelFormat::Argb => "ARGB",
        PixelFormat::Bgra => "BGRA",
        PixelFormat::Rgba => "RGBA",
    };
    let caps = match codec {
        Codec::Mpeg2 => "video/mpeg,mpegversion=2,systemstream=false",
        Codec::Mpeg4 => "video/mpeg,mpegversion=4,systemstream=false",
        Codec::H264 => "video/x-h264,stream-format=byte-stream",
        Codec::Hevc => "video/x-h265,stream-format=byte-stream",
        Codec::Vp8 => "video/x-vp8",
        Codec::Vp9 => "video/x-vp9",
        Codec::Av1 => "video/x-av1",
    };
    let description = format!(
        "appsrc name=in caps={caps} format=time ! {} ! videoconvert ! video/x-raw,format={name} \
         ! appsink name=out sync=false",
        elements.decoders[&codec]
    );
    let pipeline = gst::parse::launch(&description)
        .unwrap()
        .downcast::<gst::Pipeline>()
        .unwrap();
    let source = pipeline
        .by_name("in")
        .unwrap()
        .downcast::<gstreamer_app::AppSrc>()
        .unwrap();
    let sink = pipeline
        .by_name("out")
        .unwrap()
        .downcast::<AppSink>()
        .unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    for (unit, shown) in clip.units.iter().zip(&clip.shown) {
        let mut buffer = gst::Buffer::from_slice(unit.clone());
        buffer
            .get_mut()
            .unwrap()
            .set_pts(gst::ClockTime::from_nseconds(*shown));
        source.push_buffer(buffer).unwrap();
    }
    source.end_of_stream().unwrap();
    let mut samples = Vec::new();
    while let Ok(sample) = sink.pull_sample() {
        samples.push(sample);
    }
    pipeline.set_state(gst::State::Null).unwrap();
    samples
}

fn sum_of(
    frame: &gstreamer_video::VideoFrame<gstreamer_video::video_frame::Readable>,
    format: PixelFormat,
) -> u64 {
    use gstreamer_video::prelude::*;
    let size = Size::new(frame.width(), frame.height());
    let mut sum = Fnv::new();
    for (plane, (bytes_in_row, rows)) in visible(format, size).into_iter().enumerate() {
        let stride = usize::try_from(frame.plane_stride()[plane]).unwrap();
        let data = frame.plane_data(plane as u32).unwrap();
        for row in 0..rows {
            sum.add(&data[row * stride..][..bytes_in_row]);
        }
    }
    sum.0
}

/// For each plane: visible bytes of a row, rows.
fn visible(format: PixelFormat, size: Size) -> Vec<(usize, usize)> {
    let (width, height) = (size.width as usize, size.height as usize);
    let (half, rows) = (width.div_ceil(2), height.div_ceil(2));
    match format {
        PixelFormat::Nv12 => vec![(width, height), (half * 2, rows)],
        PixelFormat::I420 | PixelFormat::Yv12 => vec![(width, height), (half, rows), (half, rows)],
        _ => vec![(width * 4, height)],
    }
}

/// A sum of bytes.
pub(crate) struct Fnv(u64);

impl Fnv {
    pub(crate) fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    pub(crate) fn value(&self) -> u64 {
        self.0
    }

    pub(crate) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

/// The bytes in pieces of odd lengths.
pub(crate) fn splits(bytes: &[u8], seed: usize) -> Vec<Vec<u8>> {
    let mut rest = bytes;
    let mut state = seed;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        state = state.wrapping_mul(1_103_515_245).wrapping_add(12_345);
        let len = (1 + (state >> 16) % 3000).min(rest.len());
        let (now, later) = rest.split_at(len);
        pieces.push(now.to_vec());
        rest = later;
    }
    pieces
}

pub(crate) fn library() -> Library {
    Library::load(&Elements::default()).unwrap()
}

pub(crate) fn host(patience_ms: u64) -> (Host, Receiver<()>) {
    let (sender, receiver) = channel();
    let sender: Mutex<Sender<()>> = Mutex::new(sender);
    let host = Host {
        notify: Arc::new(move || {
            let _ = sender.lock().unwrap().send(());
        }),
        prepare: Arc::new(|| ()),
        patience: Duration::from_millis(patience_ms),
    };
    (host, receiver)
}

/// Pushes, and takes what comes out.
pub(crate) struct Player {
    pub(crate) session: Decoder,
    told: Receiver<()>,
    pub(crate) format: PixelFormat,
    /// Where in its memory a picture is put.
    pub(crate) origin: Position,
    pub(crate) pictures: Vec<u64>,
    pub(crate) timestamps: Vec<u64>,
    pub(crate) keys: Vec<bool>,
    pub(crate) sizes: Vec<Size>,
    /// How many pictures there were when each size was told.
    pub(crate) first_of_size: Vec<usize>,
}

impl Player {
    pub(crate) fn new(codec: Codec) -> Self {
        Self::with(&library(), codec, 60_000)
    }

    pub(crate) fn with(library: &Library, codec: Codec, patience_ms: u64) -> Self {
        let (host, told) = host(patience_ms);
        Self {
            session: Decoder::open(library, codec, &host).unwrap(),
            told,
            format: PixelFormat::Nv12,
            origin: Position::default(),
            pictures: Vec::new(),
            timestamps: Vec::new(),
            keys: Vec::new(),
            sizes: Vec::new(),
            first_of_size: Vec::new(),
        }
    }

    pub(crate) fn forget(&mut self) {
        self.pictures.clear();
        self.timestamps.clear();
    }

    /// The next event; waits for it.
    pub(crate) fn next(&mut self) -> Option<Event<Picture>> {
        loop {
            if let Some(event) = self.session.poll() {
                return Some(event);
            }
            let wait = self.session.look_after().unwrap_or(PATIENCE).min(PATIENCE);
            match self.told.recv_timeout(wait) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) if wait < PATIENCE => {}
                Err(error) => panic!("nothing comes: {error}"),
            }
        }
    }

    pub(crate) fn push(&mut self, bytes: Vec<u8>, timestamp: u64) {
        while !self.session.room() {
            while let Some(event) = self.session.poll() {
                self.note(&event);
            }
            if !self.session.room() {
                self.told.recv_timeout(PATIENCE).expect("no room comes");
            }
        }
        self.session.push(bytes, timestamp);
    }

    pub(crate) fn drain(&mut self) {
        self.session.drain();
        self.until(|event| matches!(event, Event::Drained));
    }

    pub(crate) fn flush(&mut self) {
        self.session.flush();
        self.until(|event| matches!(event, Event::Flushed));
    }

    pub(crate) fn until(&mut self, end: impl Fn(&Event<Picture>) -> bool) {
        loop {
            let event = self.next().unwrap();
            if end(&event) {
                return;
            }
            self.note(&event);
        }
    }

    fn note(&mut self, event: &Event<Picture>) {
        match event {
            Event::Size(size) => {
                self.sizes.push(*size);
                self.first_of_size.push(self.pictures.len());
            }
            Event::Output(picture) => self.keep(picture),
            other => panic!("unexpected: {other:?}"),
        }
    }

    fn keep(&mut self, picture: &Picture) {
        // Wider rows than needed, and more of them.
        let size = Size::new(picture.size().width + 20, picture.size().height + 6);
        let mut layout = Layout::packed(self.format, size, 64);
        layout.origin = self.origin;
        let planes = layout.planes();
        let mut memory: Vec<Vec<u8>> = planes
            .iter()
            .map(|plane| vec![AROUND; plane.size()])
            .collect();
        let written = picture.write(&layout, |plane, offset, bytes| {
            memory[plane][offset..][..bytes.len()].copy_from_slice(bytes);
            Ok::<(), ()>(())
        });
        written.unwrap();
        let mut sum = Fnv::new();
        for (number, (bytes_in_row, rows)) in
            visible(self.format, picture.size()).into_iter().enumerate()
        {
            for row in 0..rows {
                let seen = &mut memory[number][planes[number].row(row)..][..bytes_in_row];
                sum.add(seen);
                seen.fill(AROUND);
            }
        }
        let untouched = memory.concat().iter().all(|byte| *byte == AROUND);
        assert!(untouched, "something was written around the picture");
        self.pictures.push(sum.0);
        self.timestamps.push(picture.timestamp());
        self.keys.push(picture.is_key());
    }
}
