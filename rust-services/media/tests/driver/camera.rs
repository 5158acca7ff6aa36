// SPDX-License-Identifier: Apache-2.0

//! What a driver does to have pictures of a camera.

use agl_virtio_media::v4l2::{Buffer, Format, PixFormat, RequestBuffers};
use frontend::memory::Buffer as GuestBuffer;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::driver::Driver;

pub(crate) const G_FMT: u32 = 4;
const S_FMT: u32 = 5;
pub(crate) const REQBUFS: u32 = 8;
const QBUF: u32 = 15;
pub(crate) const STREAMON: u32 = 18;
/// Bytes of a small picture.
pub(crate) const SIZE: u32 = 320 * 240 * 3 / 2;

impl Driver {
    pub(crate) fn format(&mut self, session: u32) -> PixFormat {
        let mut format = Format::single(&PixFormat::default());
        assert_eq!(self.ioctl(session, G_FMT, &mut format), 0);
        format.pix()
    }

    /// Chooses the small format and asks for so many buffers.
    pub(crate) fn prepare(&mut self, session: u32, count: u32) {
        let mut format = Format::single(&PixFormat {
            width: 320,
            height: 240,
            pixelformat: u32::from_le_bytes(*b"NV12"),
            ..PixFormat::default()
        });
        assert_eq!(self.ioctl(session, S_FMT, &mut format), 0);
        assert_eq!(format.pix().sizeimage, SIZE);
        let mut request = RequestBuffers::new_zeroed();
        (request.count, request.type_, request.memory) = (count, 1, 2);
        assert_eq!(self.ioctl(session, REQBUFS, &mut request), 0);
        assert_eq!(request.count, count);
    }

    pub(crate) fn pages(&mut self) -> GuestBuffer {
        let memory = self.0.guest_mut().memory();
        let pages = memory.alloc(SIZE, 4096).unwrap();
        memory.fill(pages.addr, SIZE, 0xee).unwrap();
        pages
    }

    /// Queues pages as a buffer; they are told in two runs.
    pub(crate) fn queue(&mut self, session: u32, index: u32, pages: &GuestBuffer) -> u32 {
        let mut buffer = Buffer::new_zeroed();
        (buffer.index, buffer.type_, buffer.memory) = (index, 1, 2);
        (buffer.length, buffer.m) = (SIZE, 0x1234_5678);
        let mut payload = buffer.as_bytes().to_vec();
        for (start, len) in [(pages.addr, 4096), (pages.addr + 4096, SIZE - 4096)] {
            payload.extend_from_slice(start.as_bytes());
            payload.extend_from_slice([len, 0].as_bytes());
        }
        let (status, answer) = self.command(&[3, 0, session, QBUF], &payload, 88);
        if status == 0 {
            let told = Buffer::read_from_bytes(&answer).unwrap();
            assert_eq!(told.m, 0x1234_5678, "the pointer comes back as it was");
        }
        status
    }
}
