// SPDX-License-Identifier: Apache-2.0

//! A program of a guest that uses a camera or a codec as any program of V4L2 does.

use agl_virtio_media::v4l2::event::{EOS, SOURCE_CHANGE};
use agl_virtio_media::v4l2::input::{CaptureParm, DecoderCmd, Selection};
use agl_virtio_media::v4l2::{
    BufType, Buffer, BufferFlags, EventSubscription, Format, PixFormat, PixFormatMplane, Plane,
    RequestBuffers,
};
use agl_virtio_media::wire::SgEntry;
use frontend::memory::Buffer as Page;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::driver::Driver;

const G_FMT: u32 = 4;
const S_FMT: u32 = 5;
const REQBUFS: u32 = 8;
const QBUF: u32 = 15;
const STREAMON: u32 = 18;
const STREAMOFF: u32 = 19;
const S_PARM: u32 = 22;
const SUBSCRIBE_EVENT: u32 = 90;
const G_SELECTION: u32 = 94;
const DECODER_CMD: u32 = 96;
/// What is seen of a picture.
const COMPOSE: u32 = 0x100;
/// Buffers are pages of the guest.
const USERPTR: u32 = 2;
/// Codes of events.
const DONE: u32 = 1;
const TOLD: u32 = 2;
/// A guest's memory comes in pages.
const PAGE: u32 = 4096;

/// The queue that a camera fills.
pub(crate) const CAMERA: u32 = 1;
/// The queue that a codec fills, and the one it takes from.
pub(crate) const CAPTURE: u32 = 9;
pub(crate) const OUTPUT: u32 = 10;

/// A buffer's memory.
pub(crate) struct Memory {
    pages: Vec<Page>,
    bytes: u32,
}

/// What a format says of its only plane.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) stride: u32,
    pub(crate) bytes: u32,
}

/// What a program is told.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Heard {
    /// A buffer is back: of which queue and which one, its bytes, and its time in seconds.
    Done(u32, u32, u32, i64),
    /// An empty buffer is the last one.
    Last,
    /// The size has changed.
    SourceChange,
    /// A drain has ended.
    End,
}

/// The program.
pub(crate) struct Program<'a> {
    driver: &'a mut Driver,
    pub(crate) session: u32,
}

impl<'a> Program<'a> {
    pub(crate) fn open(driver: &'a mut Driver) -> Self {
        let session = driver.open().unwrap();
        let mut program = Self { driver, session };
        for event in [EOS, SOURCE_CHANGE] {
            let mut wish = EventSubscription::new_zeroed();
            wish.type_ = event;
            // An encoder's size never changes, and a camera has no end.
            program.ask(SUBSCRIBE_EVENT, wish.as_bytes(), 0);
        }
        program
    }

    fn ask(&mut self, ioctl: u32, payload: &[u8], room: usize) -> u32 {
        let answer = self
            .driver
            .command(&[3, 0, self.session, ioctl], payload, room);
        answer.0
    }

    fn shape(format: &Format) -> Shape {
        if format.type_ == CAMERA {
            let pix = format.pix();
            return Shape {
                width: pix.width,
                height: pix.height,
                stride: pix.bytesperline,
                bytes: pix.sizeimage,
            };
        }
        let pix = format.pix_mplane();
        let [plane, ..] = pix.planes;
        Shape {
            width: pix.width,
            height: pix.height,
            stride: plane.bytesperline,
            bytes: plane.sizeimage,
        }
    }

    /// Chooses a format; what the device makes of it. Bytes are those of coded pictures.
    pub(crate) fn set_format(
        &mut self,
        queue: u32,
        fourcc: &[u8; 4],
        size: (u32, u32),
        bytes: u32,
    ) -> Shape {
        let pixelformat = u32::from_le_bytes(*fourcc);
        let mut format = if queue == CAMERA {
            Format::single(&PixFormat {
                width: size.0,
                height: size.1,
                pixelformat,
                ..PixFormat::default()
            })
        } else {
            let mut pix = PixFormatMplane {
                width: size.0,
                height: size.1,
                pixelformat,
                num_planes: 1,
                ..PixFormatMplane::default()
            };
            let mut planes = pix.planes;
            planes[0].sizeimage = bytes;
            pix.planes = planes;
            Format::multi(BufType::parse(queue).unwrap(), &pix)
        };
        assert_eq!(self.driver.ioctl(self.session, S_FMT, &mut format), 0);
        Self::shape(&format)
    }

    /// The format that is.
    pub(crate) fn format(&mut self, queue: u32) -> Shape {
        let type_ = BufType::parse(queue).unwrap();
        let mut format = Format::multi(type_, &PixFormatMplane::default());
        assert_eq!(self.driver.ioctl(self.session, G_FMT, &mut format), 0);
        Self::shape(&format)
    }

    /// How much of a decoded picture is seen.
    pub(crate) fn seen(&mut self) -> (u32, u32) {
        let mut selection = Selection::new_zeroed();
        // The single-planar name counts for both.
        (selection.type_, selection.target) = (CAMERA, COMPOSE);
        assert_eq!(
            self.driver.ioctl(self.session, G_SELECTION, &mut selection),
            0
        );
        (selection.r.width, selection.r.height)
    }

    /// Pictures in a second.
    pub(crate) fn set_rate(&mut self, queue: u32, rate: u32) {
        let mut parm = CaptureParm::new_zeroed();
        parm.type_ = queue;
        (parm.interval.numerator, parm.interval.denominator) = (1, rate);
        assert_eq!(self.driver.ioctl(self.session, S_PARM, &mut parm), 0);
    }

    /// Asks for buffers, and gives each memory.
    pub(crate) fn buffers(&mut self, queue: u32, count: u32, bytes: u32) -> Vec<Memory> {
        let mut request = RequestBuffers::new_zeroed();
        (request.count, request.type_, request.memory) = (count, queue, USERPTR);
        assert_eq!(self.driver.ioctl(self.session, REQBUFS, &mut request), 0);
        let memory = self.driver.0.guest_mut().memory().clone();
        let page = || memory.alloc(PAGE, u64::from(PAGE)).unwrap();
        let pages = || (0..bytes.div_ceil(PAGE)).map(|_| page()).collect();
        let buffers = (0..request.count).map(|_| Memory {
            pages: pages(),
            bytes,
        });
        buffers.collect()
    }

    /// Gives the memory back.
    pub(crate) fn free(&mut self, buffers: Vec<Memory>) {
        let memory = self.driver.0.guest_mut().memory().clone();
        let pages = buffers.into_iter().flat_map(|buffer| buffer.pages);
        pages.for_each(|page| memory.free(page));
    }

    /// Gives the device a buffer with so many bytes in it and this time, in seconds.
    pub(crate) fn queue(&mut self, queue: u32, index: u32, memory: &Memory, used: u32, time: i64) {
        let mut buffer = Buffer::new_zeroed();
        (buffer.index, buffer.type_, buffer.memory) = (index, queue, USERPTR);
        (buffer.length, buffer.seconds) = (memory.bytes, time);
        let mut plane = Vec::new();
        if queue != CAMERA {
            buffer.length = 1;
            let mut only = Plane::new_zeroed();
            (only.length, only.bytesused) = (memory.bytes, used);
            plane = only.as_bytes().to_vec();
        }
        let mut payload = [buffer.as_bytes(), &plane].concat();
        let room = payload.len();
        let mut left = memory.bytes;
        for page in &memory.pages {
            let entry = SgEntry {
                start: page.addr,
                len: left.min(PAGE),
                reserved: 0,
            };
            left -= entry.len;
            payload.extend_from_slice(entry.as_bytes());
        }
        assert_eq!(self.ask(QBUF, &payload, room), 0);
    }

    /// Writes into a buffer from its beginning.
    pub(crate) fn write(&mut self, memory: &Memory, bytes: &[u8]) {
        assert!(bytes.len() <= memory.bytes as usize, "more than a buffer");
        let guest = self.driver.0.guest_mut().memory();
        for (page, bytes) in memory.pages.iter().zip(bytes.chunks(PAGE as usize)) {
            guest.write(page.addr, bytes).unwrap();
        }
    }

    /// All that is in a buffer.
    pub(crate) fn read(&mut self, memory: &Memory) -> Vec<u8> {
        let guest = self.driver.0.guest_mut().memory();
        let pages = memory.pages.iter();
        let bytes = pages.flat_map(|page| guest.bytes(page.addr, page.len).unwrap());
        bytes.collect()
    }

    pub(crate) fn stream_on(&mut self, queue: u32) {
        assert_eq!(self.driver.word(self.session, STREAMON, queue), 0);
    }

    pub(crate) fn stream_off(&mut self, queue: u32) {
        assert_eq!(self.driver.word(self.session, STREAMOFF, queue), 0);
    }

    /// Has a decoder drain.
    pub(crate) fn stop(&mut self) {
        let mut command = DecoderCmd::new_zeroed();
        command.cmd = 1;
        assert_eq!(
            self.driver.ioctl(self.session, DECODER_CMD, &mut command),
            0
        );
    }

    pub(crate) fn close(self) {
        self.driver.close(self.session);
    }

    /// What it is told next; waits for it.
    pub(crate) fn heard(&mut self) -> Heard {
        let (code, session, rest) = self.driver.event();
        self.driver.0.offer_event().unwrap();
        assert_eq!(session, self.session, "event {code}");
        if code == TOLD {
            return match u32::from_le_bytes(rest[..4].try_into().unwrap()) {
                EOS => Heard::End,
                SOURCE_CHANGE => Heard::SourceChange,
                other => panic!("event {other}"),
            };
        }
        assert_eq!(code, DONE, "{:?}", &rest[..4]);
        let (buffer, planes) = Buffer::read_from_prefix(&rest).unwrap();
        let flags = BufferFlags(buffer.flags);
        assert!(!flags.has(BufferFlags::ERROR), "{buffer:?}");
        let used = if buffer.type_ == CAMERA {
            buffer.bytesused
        } else {
            Plane::read_from_prefix(planes).unwrap().0.bytesused
        };
        if flags.has(BufferFlags::LAST) {
            assert_eq!((buffer.type_, used), (CAPTURE, 0));
            return Heard::Last;
        }
        Heard::Done(buffer.type_, buffer.index, used, buffer.seconds)
    }
}
