// SPDX-License-Identifier: Apache-2.0

//! A camera that shows the test picture, and what a driver does to have pictures of it.

use std::path::{Path, PathBuf};
use std::process::Command;

use agl_virtio_media::camera::modes::{Mode, PixelFormat};
use agl_virtio_media::camera::picture::{Look, Picture};
use agl_virtio_media::rate::Rate;
use agl_virtio_media::v4l2::{Buffer, Format, PixFormat, RequestBuffers};
use frontend::memory::Buffer as GuestBuffer;
use frontend::service_under_test::Launch;
use rustix::io::Errno;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use crate::driver::Driver;

pub(crate) const G_FMT: u32 = 4;
pub(crate) const S_FMT: u32 = 5;
pub(crate) const REQBUFS: u32 = 8;
pub(crate) const QBUF: u32 = 15;
pub(crate) const STREAMON: u32 = 18;
/// Bytes of a small picture.
pub(crate) const SIZE: u32 = 320 * 240 * 3 / 2;

pub(crate) fn launch(directory: &Path) -> Launch {
    Launch::new(
        env!("CARGO_BIN_EXE_agl-virtio-media"),
        directory.join("socket"),
    )
    .args(["--log", "error", "--bus", "none"])
}

/// The keeper beside our service; built where it is not there, because only this service's tests
/// were asked for.
pub(crate) fn keeper() -> PathBuf {
    let service = Path::new(env!("CARGO_BIN_EXE_agl-virtio-media"));
    let keeper = service.with_file_name("agl-virtio-keeper");
    if !keeper.exists() {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "agl-virtio-keeper"]);
        if service.parent().unwrap().ends_with("release") {
            build.arg("--release");
        }
        assert!(
            build.status().unwrap().success(),
            "the keeper does not build"
        );
    }
    keeper
}

/// The number that a picture shows, if it is that picture to the byte.
pub(crate) fn number(bytes: &[u8]) -> Option<u64> {
    let row = &bytes[238 * 320..];
    let shown = (0..32).fold(0, |number, bit| {
        number << 1 | u64::from(row[bit * 10 + 5] > 90)
    });
    let mode = Mode {
        format: PixelFormat::Nv12,
        width: 320,
        height: 240,
        rate: Rate::USUAL,
    };
    let mut picture = Picture::new(mode);
    picture.draw(shown, Look::default());
    let mut at = 0;
    while at < bytes.len() {
        let run = picture.run_at(at);
        if bytes[at..at + run.len()] != *run {
            return None;
        }
        at += run.len();
    }
    Some(shown)
}

/// As a driver is told of it.
pub(crate) fn errno(error: Errno) -> u32 {
    error.raw_os_error().unsigned_abs()
}

impl Driver {
    pub(crate) fn format(&mut self, session: u32) -> PixFormat {
        let mut format = Format::single(&PixFormat::default());
        assert_eq!(self.ioctl(session, G_FMT, &mut format), 0);
        format.pix()
    }

    /// Chooses the small format.
    pub(crate) fn choose(&mut self, session: u32) {
        let mut format = Format::single(&PixFormat {
            width: 320,
            height: 240,
            pixelformat: u32::from_le_bytes(*b"NV12"),
            ..PixFormat::default()
        });
        assert_eq!(self.ioctl(session, S_FMT, &mut format), 0);
        assert_eq!(format.pix().sizeimage, SIZE);
    }

    /// Chooses the small format and asks for so many buffers, to be in the guest's pages.
    pub(crate) fn prepare(&mut self, session: u32, count: u32) {
        self.choose(session);
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
