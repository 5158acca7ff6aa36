// SPDX-License-Identifier: Apache-2.0

//! A program on a device whose codec says what a test has it say.

use std::sync::Arc;
use std::time::Duration;

use agl_virtio_codec::coder::Job;
use agl_virtio_codec::scripted::Script;
use agl_virtio_codec::{Bell, Codec, Event as Told, Limits, Size};
use agl_virtio_media::codec::{CodecDevice, Offer, Way};
use agl_virtio_media::function::{Context, Function};
use agl_virtio_media::outbox::Outbox;
use agl_virtio_media::payload::{Answer, Input};
use agl_virtio_media::statistics::Statistics;
use agl_virtio_media::v4l2::control::Control;
use agl_virtio_media::v4l2::format::PixFormatMplane;
use agl_virtio_media::v4l2::input::CaptureParm;
use agl_virtio_media::v4l2::{
    BufType, Buffer, BufferFlags, EventSubscription, Format, Ioctl, Plane, RequestBuffers, event,
};
use agl_virtio_media::wire::SgEntry;
use rustix::io::Errno;
use virtio_device::Memory;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes};

/// The queue that the program fills.
pub(crate) const OUTPUT: u32 = 10;
/// The queue that the device fills.
pub(crate) const CAPTURE: u32 = 9;
/// Each buffer has so much, wherever it is.
const ROOM: u32 = 256 << 10;

/// What the program was told.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Heard {
    /// An input buffer is back: which one, with what time.
    Output(u32, i64),
    /// An output buffer is full.
    Picture(u32, i64),
    /// An output buffer is empty, and the last one.
    Last(u32),
    /// A buffer is back with an error.
    Damaged(u32),
    SourceChange,
    End,
}

/// The program.
pub(crate) struct Program {
    device: CodecDevice,
    script: Script,
    pages: Arc<GuestMemoryMmap>,
    memory: Memory,
    outbox: Outbox,
    statistics: Arc<Statistics>,
    lost: Vec<(u32, Errno)>,
    pub(crate) session: u32,
}

impl Program {
    pub(crate) fn new(way: Way) -> Self {
        let (script, statistics) = (Script::default(), Arc::<Statistics>::default());
        let ranges = [(GuestAddress(0), 32 << 20)];
        let pages = Arc::new(GuestMemoryMmap::from_ranges(&ranges).unwrap());
        let offer = Offer {
            way,
            codecs: vec![Codec::H264, Codec::Vp8],
            limits: Limits {
                least: Size::new(16, 16),
                most: Size::new(512, 512),
            },
            max_streams: 2,
            max_pixel_rate: 512 * 512 * 60,
            max_input_bytes: 4 << 20,
            max_runs: 100,
        };
        let mut program = Self {
            device: CodecDevice::new(
                offer,
                Box::new(script.clone()),
                Arc::new(Bell::default()),
                Arc::clone(&statistics),
            ),
            script,
            statistics,
            memory: Memory::new(Arc::clone(&pages)),
            pages,
            outbox: Outbox::default(),
            lost: Vec::new(),
            session: 1,
        };
        program.open(1);
        program
    }

    /// Another session, which wants to hear of all that there is.
    pub(crate) fn open(&mut self, session: u32) {
        self.device.open(session).unwrap();
        let before = std::mem::replace(&mut self.session, session);
        assert_eq!(self.subscribe(event::EOS), 0);
        self.subscribe(event::SOURCE_CHANGE);
        self.session = before;
    }

    pub(crate) fn close(&mut self, session: u32) {
        let context = &mut Context {
            budget: None,
            memory: &self.memory,
            now: Duration::ZERO,
            outbox: &mut self.outbox,
        };
        self.device.close(session, context);
    }

    fn run(&mut self, ioctl: Ioctl, payload: &[u8]) -> Answer {
        let context = &mut Context {
            budget: None,
            memory: &self.memory,
            now: Duration::ZERO,
            outbox: &mut self.outbox,
        };
        let input = Input::new(payload);
        let answer = self.device.ioctl(self.session, ioctl, input, context);
        self.turn();
        answer
    }

    /// Time for the device to go on.
    pub(crate) fn turn(&mut self) {
        let context = &mut Context {
            budget: None,
            memory: &self.memory,
            now: Duration::ZERO,
            outbox: &mut self.outbox,
        };
        self.lost.extend(self.device.turn(context));
    }

    fn status(answer: &Answer) -> i32 {
        answer.error.map_or(0, Errno::raw_os_error)
    }

    pub(crate) fn ioctl<T: IntoBytes + FromBytes + Immutable>(
        &mut self,
        ioctl: Ioctl,
        value: &mut T,
    ) -> i32 {
        let answer = self.run(ioctl, value.as_bytes());
        if answer.error.is_none() {
            *value = T::read_from_bytes(&answer.payload).unwrap();
        }
        Self::status(&answer)
    }

    pub(crate) fn word(&mut self, ioctl: Ioctl, word: u32) -> i32 {
        Self::status(&self.run(ioctl, word.as_bytes()))
    }

    /// A command whose first word is its code, and the rest is to be ignored.
    pub(crate) fn command<T: FromZeros + IntoBytes + FromBytes + Immutable>(
        &mut self,
        ioctl: Ioctl,
        code: u32,
    ) -> i32 {
        let mut bytes = vec![0xff; size_of::<T>()];
        bytes[..4].copy_from_slice(code.as_bytes());
        let answer = self.run(ioctl, &bytes);
        if answer.error.is_none() {
            assert!(answer.payload[4..].iter().all(|byte| *byte == 0));
        }
        Self::status(&answer)
    }

    pub(crate) fn control(&mut self, id: u32, value: i32) -> i32 {
        self.ioctl(Ioctl::SCtrl, &mut Control { id, value })
    }

    /// Pictures per second that an encoder's program announces.
    pub(crate) fn rate(&mut self, rate: u32) -> i32 {
        let mut parm = CaptureParm::new_zeroed();
        parm.type_ = OUTPUT;
        (parm.interval.numerator, parm.interval.denominator) = (1, rate);
        self.ioctl(Ioctl::SParm, &mut parm)
    }

    pub(crate) fn subscribe(&mut self, type_: u32) -> i32 {
        let mut wish = EventSubscription::new_zeroed();
        wish.type_ = type_;
        let answer = self.run(Ioctl::SubscribeEvent, wish.as_bytes());
        Self::status(&answer)
    }

    pub(crate) fn try_set_format(
        &mut self,
        queue: u32,
        fourcc: &[u8; 4],
        width: u32,
        height: u32,
    ) -> i32 {
        let pix = PixFormatMplane {
            width,
            height,
            pixelformat: u32::from_le_bytes(*fourcc),
            num_planes: 1,
            ..PixFormatMplane::default()
        };
        let mut format = Format::multi(BufType::parse(queue).unwrap(), &pix);
        self.ioctl(Ioctl::SFmt, &mut format)
    }

    pub(crate) fn set_format(&mut self, queue: u32, fourcc: &[u8; 4], width: u32, height: u32) {
        assert_eq!(self.try_set_format(queue, fourcc, width, height), 0);
    }

    fn format(&mut self, queue: u32) -> PixFormatMplane {
        let type_ = BufType::parse(queue).unwrap();
        let mut format = Format::multi(type_, &PixFormatMplane::default());
        assert_eq!(self.ioctl(Ioctl::GFmt, &mut format), 0);
        format.pix_mplane()
    }

    pub(crate) fn size_of(&mut self, queue: u32) -> (u32, u32) {
        let pix = self.format(queue);
        (pix.width, pix.height)
    }

    pub(crate) fn planes_of(&mut self, queue: u32) -> Vec<u32> {
        let pix = self.format(queue);
        let planes = pix.planes;
        let count = usize::from(pix.num_planes);
        planes[..count]
            .iter()
            .map(|plane| plane.sizeimage)
            .collect()
    }

    pub(crate) fn request(&mut self, queue: u32, count: u32) {
        let mut request = RequestBuffers::new_zeroed();
        (request.count, request.type_, request.memory) = (count, queue, 2);
        assert_eq!(self.ioctl(Ioctl::ReqBufs, &mut request), 0);
        assert_eq!(request.count, count);
    }

    fn place(queue: u32, index: u32) -> u64 {
        u64::from(queue - 8) * (8 << 20) + u64::from(index * ROOM)
    }

    /// Queues a buffer of one plane, with so many bytes of a time in seconds. A capture buffer is as
    /// large as the format says.
    pub(crate) fn queue(&mut self, queue: u32, index: u32, used: u32, time: i64) {
        let size = self.planes_of(queue)[0];
        let mut buffer = Buffer::new_zeroed();
        (buffer.index, buffer.type_, buffer.memory) = (index, queue, 2);
        (buffer.length, buffer.seconds) = (1, time);
        let mut plane = Plane::new_zeroed();
        (plane.length, plane.bytesused) = (size, used);
        let entry = SgEntry {
            start: Self::place(queue, index),
            len: size,
            reserved: 0,
        };
        let payload = [buffer.as_bytes(), plane.as_bytes(), entry.as_bytes()].concat();
        let answer = self.run(Ioctl::QBuf, &payload);
        assert_eq!(answer.error, None);
    }

    /// Queues a buffer of `count` pieces of so many bytes, all of them the same ones, `used` of which
    /// mean something.
    pub(crate) fn try_queue(
        &mut self,
        queue: u32,
        index: u32,
        used: u32,
        piece: u32,
        count: u32,
    ) -> i32 {
        let mut buffer = Buffer::new_zeroed();
        (buffer.index, buffer.type_, buffer.memory) = (index, queue, 2);
        buffer.length = 1;
        let mut plane = Plane::new_zeroed();
        (plane.length, plane.bytesused) = (piece * count, used);
        let mut payload = [buffer.as_bytes(), plane.as_bytes()].concat();
        let entry = SgEntry {
            start: 0,
            len: piece,
            reserved: 0,
        };
        for _ in 0..count {
            payload.extend_from_slice(entry.as_bytes());
        }
        Self::status(&self.run(Ioctl::QBuf, &payload))
    }

    /// What was counted under this name.
    pub(crate) fn counted(&self, name: &str) -> u64 {
        let counters = self.statistics.counters();
        let found = counters.iter().find(|(counter, _)| *counter == name);
        found.unwrap().1
    }

    pub(crate) fn bytes(&self, queue: u32, index: u32) -> Vec<u8> {
        let mut bytes = vec![0; ROOM as usize];
        let at = GuestAddress(Self::place(queue, index));
        self.pages.read_slice(&mut bytes, at).unwrap();
        bytes
    }

    pub(crate) fn stream_on(&mut self, queue: u32) {
        assert_eq!(self.word(Ioctl::StreamOn, queue), 0);
    }

    pub(crate) fn stream_off(&mut self, queue: u32) {
        assert_eq!(self.word(Ioctl::StreamOff, queue), 0);
    }

    /// The codec says this.
    pub(crate) fn says<const N: usize>(&mut self, words: [Told<u64>; N]) {
        self.script.says(words);
        self.turn();
    }

    /// The codec's patience ends after this.
    pub(crate) fn look_after(&self, after: Duration) {
        self.script.look_after(after);
    }

    /// When the device wants to go on by itself.
    pub(crate) fn due(&self, now: Duration) -> Option<Duration> {
        self.device.due(now)
    }

    /// Codecs that were opened so far.
    pub(crate) fn opened(&self) -> usize {
        self.script.opened()
    }

    /// What the codec that was opened last is wanted for.
    pub(crate) fn job(&self) -> Job {
        *self.script.jobs().last().unwrap()
    }

    /// What the codec was told so far.
    pub(crate) fn codec(&self) -> Vec<String> {
        self.script.heard()
    }

    /// Sessions that were lost, told once.
    pub(crate) fn lost(&mut self) -> Vec<(u32, Errno)> {
        std::mem::take(&mut self.lost)
    }

    /// What the program was told since the last time.
    pub(crate) fn heard(&mut self) -> Vec<Heard> {
        let letters = self.outbox.take();
        let told = letters.into_iter().map(|bytes| {
            let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            if word(0) == 2 {
                return match word(8) {
                    event::EOS => Heard::End,
                    event::SOURCE_CHANGE => Heard::SourceChange,
                    other => panic!("event {other}"),
                };
            }
            assert_eq!(word(0), 1, "neither a buffer nor an event");
            let (buffer, _) = Buffer::read_from_prefix(&bytes[8..]).unwrap();
            let flags = BufferFlags(buffer.flags);
            match buffer.type_ {
                _ if flags.has(BufferFlags::ERROR) => Heard::Damaged(buffer.index),
                OUTPUT => Heard::Output(buffer.index, buffer.seconds),
                _ if flags.has(BufferFlags::LAST) => Heard::Last(buffer.index),
                _ => Heard::Picture(buffer.index, buffer.seconds),
            }
        });
        told.collect()
    }
}
