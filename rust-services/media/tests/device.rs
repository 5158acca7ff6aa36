// SPDX-License-Identifier: Apache-2.0

//! The service as a process, driven over vhost-user: by good drivers, by hostile ones, and through
//! its own death.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

#[path = "driver/camera.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod camera;
mod driver;

use agl_virtio_media::v4l2::control::Control;
#[cfg(feature = "gstreamer")]
use agl_virtio_media::v4l2::{BufType, PixFormatMplane};
use agl_virtio_media::v4l2::{Buffer, Format, RequestBuffers};
use camera::{G_FMT, REQBUFS, SIZE, STREAMON, errno, keeper, launch, number};
use driver::Driver;
use frontend::Deadline;
use frontend::clients::media::COMMANDS;
use frontend::hostile::{Attack, Request, endure};
use frontend::memory::Buffer as GuestBuffer;
use rustix::io::Errno;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

const STREAMOFF: u32 = 19;
const G_CTRL: u32 = 27;
const S_CTRL: u32 = 28;
const HFLIP: u32 = 0x98_0914;

#[test]
fn a_driver_gets_one_picture_after_the_other() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let mut driver = Driver::new(&service);
    let session = driver.open().unwrap();
    driver.prepare(session, 3);
    let pages: Vec<_> = (0..3).map(|_| driver.pages()).collect();
    for (index, pages) in pages.iter().enumerate() {
        assert_eq!(driver.queue(session, index as u32, pages), 0);
    }
    let twice = driver.queue(session, 0, &pages[0]);
    assert_eq!(twice, errno(Errno::INVAL));
    assert_eq!(driver.word(session, STREAMON, 1), 0);
    let mut last = None;
    for index in 0..3 {
        let (code, of, rest) = driver.event();
        assert_eq!((code, of), (1, session));
        let (buffer, _) = Buffer::read_from_prefix(&rest).unwrap();
        assert_eq!((buffer.index, buffer.bytesused, buffer.m), (index, SIZE, 0));
        let memory = driver.0.guest_mut().memory();
        let bytes = memory.bytes(pages[index as usize].addr, SIZE).unwrap();
        let shown = number(&bytes).expect("the picture is right to the byte");
        assert!(last.is_none_or(|last| last < shown), "{last:?}, {shown}");
        last = Some(shown);
    }
    driver.close(session);
}

#[test]
fn pages_that_were_taken_back_are_not_touched() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    for end in ["streamoff", "close"] {
        let mut driver = Driver::new(&service);
        let session = driver.open().unwrap();
        driver.prepare(session, 2);
        let pages: Vec<_> = (0..2).map(|_| driver.pages()).collect();
        assert_eq!(driver.queue(session, 0, &pages[0]), 0);
        assert_eq!(driver.word(session, STREAMON, 1), 0);
        assert_eq!(driver.event().0, 1);
        assert_eq!(driver.queue(session, 1, &pages[1]), 0);
        if end == "close" {
            driver.close(session);
        } else {
            assert_eq!(driver.word(session, STREAMOFF, 1), 0);
        }
        let memory = driver.0.guest_mut().memory();
        for pages in &pages {
            memory.fill(pages.addr, SIZE, 0x5a).unwrap();
        }
        // Another session streams on, so that time passes for the camera.
        if end == "streamoff" {
            driver.close(session);
        }
        let other = driver.open().unwrap();
        driver.prepare(other, 2);
        let more = driver.pages();
        assert_eq!(driver.queue(other, 0, &more), 0);
        assert_eq!(driver.word(other, STREAMON, 1), 0);
        assert_eq!(driver.event().1, other);
        let memory = driver.0.guest_mut().memory();
        for pages in &pages {
            let bytes = memory.bytes(pages.addr, SIZE).unwrap();
            assert!(bytes.iter().all(|byte| *byte == 0x5a), "{end}");
        }
    }
}

#[test]
fn what_the_specification_replaces_is_not_answered() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let mut driver = Driver::new(&service);
    let session = driver.open().unwrap();
    for number in [0, 17, 61, 62, 70, 89, 104, 192, u32::MAX] {
        let (status, _) = driver.command(&[3, 0, session, number], &[0; 256], 256);
        assert_eq!(status, errno(Errno::NOTTY), "{number}");
    }
}

/// Every ioctl with scraps of payloads, and commands that are none.
fn send_scraps(driver: &mut Driver) {
    let session = driver.open().unwrap();
    for number in 0..=104 {
        for (len, fill) in [(0, 0), (4, 1), (19, 1), (88, 0xff), (400, 0xff), (400, 2)] {
            let payload = vec![fill; len];
            driver.command(&[3, 0, session, number], &payload, 300);
            driver.command(&[3, 0, session, number], &payload, 0);
        }
    }
    for words in [[9, 0], [0, 0], [4, 0], [5, 0], [3, 0]] {
        assert_ne!(driver.command(&words, &[], 16).0, 0);
    }
    let unknown = driver.command(&[3, 0, 999, G_FMT], &[0; 208], 208).0;
    assert_eq!(unknown, errno(Errno::NODEV));
    driver.close(session);
}

#[test]
fn scraps_of_every_command_are_answered_and_the_camera_works_on() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let pid = service.service_pid();
    let mut driver = Driver::new(&service);
    send_scraps(&mut driver);
    let session = driver.open().unwrap();
    assert_eq!(driver.format(session).field, 1);
    assert_eq!(service.service_pid(), pid, "the service never died");
}

#[cfg(feature = "gstreamer")]
#[test]
fn scraps_of_every_command_are_answered_and_codecs_work_on() {
    for function in ["decoder", "encoder"] {
        let directory = tempfile::tempdir().unwrap();
        let launch = launch(directory.path()).args(["--function", function]);
        let service = launch.start().unwrap();
        let pid = service.service_pid();
        let mut driver = Driver::new(&service);
        send_scraps(&mut driver);
        let session = driver.open().unwrap();
        let mut format = Format::multi(BufType::OutputMplane, &PixFormatMplane::default());
        assert_eq!(driver.ioctl(session, G_FMT, &mut format), 0);
        assert_eq!(format.pix_mplane().num_planes, 1);
        assert_eq!(service.service_pid(), pid, "the service never died");
    }
}

#[test]
fn a_buffer_outside_of_guest_memory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let mut driver = Driver::new(&service);
    let session = driver.open().unwrap();
    driver.prepare(session, 2);
    let addr = driver.0.guest_mut().memory().address_in_gap();
    let nowhere = GuestBuffer { addr, len: SIZE };
    let status = driver.queue(session, 0, &nowhere);
    assert_eq!(status, errno(Errno::FAULT));
    let pages = driver.pages();
    assert_eq!(driver.queue(session, 0, &pages), 0);
}

#[test]
fn sessions_are_bounded_and_one_at_a_time_has_the_pictures() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let mut driver = Driver::new(&service);
    let sessions: Vec<_> = (0..128).map(|_| driver.open().unwrap()).collect();
    let busy = errno(Errno::BUSY);
    assert_eq!(driver.open(), Err(busy));
    driver.prepare(sessions[0], 2);
    let mut request = RequestBuffers::new_zeroed();
    (request.count, request.type_, request.memory) = (2, 1, 2);
    assert_eq!(driver.ioctl(sessions[1], REQBUFS, &mut request), busy);
    driver.close(sessions[0]);
    assert_eq!(driver.ioctl(sessions[1], REQBUFS, &mut request), 0);
    let again = driver.open().unwrap();
    assert!(!sessions.contains(&again), "no number is given twice");
}

#[test]
fn every_attack_is_endured_and_the_device_answers_after_a_reset() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let pid = service.service_pid();
    for attack in Attack::ALL {
        let honest = Request {
            readable: [1_u32, 0].as_bytes().to_vec(),
            writable: 16,
        };
        let mut driver = Driver::new(&service);
        let guest = driver.0.guest_mut();
        match endure(guest, COMMANDS, *attack, &honest, Deadline::patient()) {
            Ok(_) => {}
            Err(error) if *attack == Attack::SameHeadTwice && error.misbehaviour().is_some() => {}
            Err(error) => panic!("{attack:?}: {error}"),
        }
        drop(driver);
        let mut driver = Driver::new(&service);
        let session = driver.open().unwrap();
        assert_eq!(driver.format(session).field, 1, "{attack:?}");
    }
    assert_eq!(service.service_pid(), pid, "the service never died");
}

#[test]
fn after_a_death_sessions_are_told_and_settings_are_kept() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path())
        .below_keeper(keeper())
        .start()
        .unwrap();
    let mut driver = Driver::new(&service);
    for _ in 0..3 {
        let pid = service.wait_service_pid(None, Deadline::patient()).unwrap();
        let session = driver.open().unwrap();
        driver.prepare(session, 2);
        let mut flip = Control {
            id: HFLIP,
            value: 1,
        };
        assert_eq!(driver.ioctl(session, S_CTRL, &mut flip), 0);
        let pages = driver.pages();
        assert_eq!(driver.queue(session, 0, &pages), 0);
        assert_eq!(service.kill_service().unwrap(), pid);
        service
            .wait_service_pid(Some(pid), Deadline::patient())
            .unwrap();
        let (code, of, rest) = driver.event();
        assert_eq!((code, of), (0, session));
        assert_eq!(rest[..4], 104_u32.to_le_bytes(), "ECONNRESET");
        driver.0.offer_event().unwrap();
        let (status, _) = driver.command(&[3, 0, session, G_FMT], &[0; 208], 208);
        assert_eq!(status, errno(Errno::NODEV));
        driver.close(session);
        let new = driver.open().unwrap();
        assert_ne!(new, session);
        assert_eq!(driver.format(new).width, 320);
        flip.value = 0;
        assert_eq!(driver.ioctl(new, G_CTRL, &mut flip), 0);
        assert_eq!(flip.value, 1);
        driver.close(new);
    }
}
