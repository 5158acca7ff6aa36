// SPDX-License-Identifier: Apache-2.0

//! MMAP buffers: memory of the service that a guest has in shared memory region 0, over a VMM that
//! maps and unmaps as QEMU does.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

#[path = "driver/camera.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod camera;
mod driver;

use std::os::fd::AsFd;

use agl_virtio_media::v4l2::{Buffer, CreateBuffers, Format, PixFormat, RequestBuffers};
use camera::{QBUF, REQBUFS, SIZE, STREAMON, errno, keeper, launch, number};
use driver::Driver;
use frontend::clients::media::{MediaClient, Posted};
use frontend::protocol::protocol_feature;
use frontend::service_under_test::ServiceUnderTest;
use frontend::{Deadline, SharedMemory};
use rustix::io::Errno;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

const QUERYBUF: u32 = 9;
const CREATE_BUFS: u32 = 92;
const PREPARE_BUF: u32 = 93;
const MMAP: u32 = 4;
const MUNMAP: u32 = 5;
const PIECE: u64 = 64 << 10;
/// What a small picture takes of the region.
const PLACE: u64 = 2 * PIECE;
/// `V4L2_BUF_FLAG_MAPPED`
const MAPPED: u32 = 1;
/// `V4L2_BUF_FLAG_PREPARED`
const PREPARED: u32 = 0x400;

/// A guest whose VMM maps.
struct Guest {
    driver: Driver,
    shared: SharedMemory,
}

impl Guest {
    fn new(service: &ServiceUnderTest) -> Self {
        let mut driver = Driver::new(service);
        let shared = SharedMemory::ask(driver.0.guest_mut().session().unwrap()).unwrap();
        Self { driver, shared }
    }

    /// A session with so many small MMAP buffers.
    fn prepare(&mut self, count: u32) -> u32 {
        let session = self.driver.open().unwrap();
        self.driver.choose(session);
        let mut request = request(count);
        assert_eq!(self.driver.ioctl(session, REQBUFS, &mut request), 0);
        assert_eq!((request.count, request.capabilities & 1), (count, 1));
        session
    }

    fn query(&mut self, session: u32, index: u32) -> Buffer {
        let mut buffer = buffer(index);
        assert_eq!(self.driver.ioctl(session, QUERYBUF, &mut buffer), 0);
        buffer
    }

    /// What the VMM is asked for next, and whether it does it.
    fn serve(&mut self) -> bool {
        let guest = self.driver.0.guest_mut();
        let channel = guest.session().unwrap().channel().unwrap();
        self.shared.serve(channel, Deadline::patient()).unwrap()
    }

    /// Waits until the VMM has a request to read.
    fn wait_asked(&mut self) {
        let guest = self.driver.0.guest_mut();
        let channel = guest.session().unwrap().channel().unwrap();
        let fd = channel.connection().as_fd();
        assert!(Deadline::patient().readable(fd).unwrap());
    }

    fn post_mmap(&mut self, session: u32, flags: u32, offset: u64) -> Posted {
        let command = [MMAP, 0, session, flags, offset as u32];
        self.driver.0.post(command.as_bytes(), 24).unwrap()
    }

    fn finish(&mut self, posted: Posted) -> Result<(u64, u64), u32> {
        let answer = self.driver.0.finish(posted).unwrap();
        let word = |at: usize| u64::from_le_bytes(answer[at..at + 8].try_into().unwrap());
        match u32::from_le_bytes(answer[..4].try_into().unwrap()) {
            0 if answer.len() == 24 => Ok((word(8), word(16))),
            0 => Ok((0, 0)),
            status => Err(status),
        }
    }

    /// MMAP that the VMM does; where the plane is in the region.
    fn map(&mut self, session: u32, flags: u32, offset: u64) -> u64 {
        let posted = self.post_mmap(session, flags, offset);
        assert!(self.serve());
        let (place, len) = self.finish(posted).unwrap();
        assert_eq!(len, u64::from(SIZE));
        place
    }

    /// MMAP that is refused before the VMM hears of it.
    fn map_refused(&mut self, session: u32, offset: u64) -> u32 {
        let posted = self.post_mmap(session, 1, offset);
        self.finish(posted).unwrap_err()
    }

    fn post_munmap(&mut self, place: u64) -> Posted {
        let mut command = [MUNMAP, 0].as_bytes().to_vec();
        command.extend_from_slice(place.as_bytes());
        self.driver.0.post(&command, 8).unwrap()
    }

    fn unmap(&mut self, place: u64) {
        let posted = self.post_munmap(place);
        assert!(self.serve());
        self.finish(posted).unwrap();
    }

    fn unmap_refused(&mut self, place: u64) -> u32 {
        let posted = self.post_munmap(place);
        self.finish(posted).unwrap_err()
    }

    fn picture(&self, place: u64) -> Vec<u8> {
        self.shared.read(0, place, SIZE as usize).unwrap()
    }
}

fn request(count: u32) -> RequestBuffers {
    let mut request = RequestBuffers::new_zeroed();
    (request.count, request.type_, request.memory) = (count, 1, 1);
    request
}

fn buffer(index: u32) -> Buffer {
    let mut buffer = Buffer::new_zeroed();
    (buffer.index, buffer.type_, buffer.memory) = (index, 1, 1);
    buffer
}

#[test]
fn pictures_are_seen_where_their_buffers_are_mapped() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let mut guest = Guest::new(&service);
    assert_eq!(guest.shared.sizes(), [256 << 20]);
    let session = guest.prepare(3);
    let mut places = Vec::new();
    for index in 0..3 {
        let told = guest.query(session, index);
        assert_eq!((told.length, told.flags & MAPPED), (SIZE, 0));
        places.push(guest.map(session, 1, told.m));
        assert_ne!(guest.query(session, index).flags & MAPPED, 0);
    }
    let mut prepared = Buffer {
        seconds: 7,
        ..buffer(1)
    };
    assert_eq!(guest.driver.ioctl(session, PREPARE_BUF, &mut prepared), 0);
    assert_ne!(prepared.flags & PREPARED, 0);
    assert_eq!(prepared.seconds, 0, "a time before it is queued");
    let again = guest.driver.ioctl(session, PREPARE_BUF, &mut prepared);
    assert_eq!(again, errno(Errno::INVAL));
    for index in 0..3 {
        let mut queued = buffer(index);
        assert_eq!(guest.driver.ioctl(session, QBUF, &mut queued), 0);
        assert_eq!(queued.m, guest.query(session, index).m);
    }
    assert_eq!(guest.driver.word(session, STREAMON, 1), 0);
    for _ in 0..12 {
        let (code, of, bytes) = guest.driver.event();
        assert_eq!((code, of), (1, session));
        guest.driver.0.offer_event().unwrap();
        let (told, _) = Buffer::read_from_prefix(&bytes).unwrap();
        assert_eq!((told.bytesused, told.length), (SIZE, SIZE));
        assert!(number(&guest.picture(places[told.index as usize])).is_some());
        let mut again = buffer(told.index);
        assert_eq!(guest.driver.ioctl(session, QBUF, &mut again), 0);
    }
}

#[test]
fn a_mapping_outlives_its_buffer_its_session_and_the_memory_is_not_given_again() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let mut guest = Guest::new(&service);
    let session = guest.prepare(2);
    let offset = guest.query(session, 1).m;
    let place = guest.map(session, 1, offset);
    guest.shared.write(0, place, b"the guest's").unwrap();
    // Once more, to be read only, at a place of its own.
    let reading = guest.map(session, 0, offset);
    assert_ne!(reading, place);
    assert_eq!(guest.shared.read(0, reading, 11).unwrap(), b"the guest's");
    assert!(guest.shared.write(0, reading, b"x").is_err());
    let mut none = request(0);
    assert_eq!(guest.driver.ioctl(session, REQBUFS, &mut none), 0);
    assert_eq!(guest.map_refused(session, offset), errno(Errno::INVAL));
    guest.driver.close(session);
    assert_eq!(guest.map_refused(session, offset), errno(Errno::NODEV));
    let next = guest.prepare(2);
    let other = guest.map(next, 1, offset);
    assert_eq!(guest.shared.read(0, other, 11).unwrap(), [0; 11]);
    assert_eq!(guest.shared.read(0, place, 11).unwrap(), b"the guest's");
    for place in [place, reading, other] {
        guest.unmap(place);
        assert_eq!(guest.unmap_refused(place), errno(Errno::INVAL));
    }
    assert!(guest.shared.mapped().is_empty());
}

#[test]
fn what_makes_no_sense_is_refused_and_no_guest_has_more_than_its_region() {
    let directory = tempfile::tempdir().unwrap();
    let config = directory.path().join("guest.toml");
    std::fs::write(
        &config,
        "[devices.rear]\ntype = \"media\"\nmmap_memory = 1\n",
    )
    .unwrap();
    let service = launch(directory.path())
        .args(["--config", config.to_str().unwrap(), "--device", "rear"])
        .start()
        .unwrap();
    let mut guest = Guest::new(&service);
    assert_eq!(guest.shared.sizes(), [1 << 20]);
    let session = guest.prepare(2);
    let offset = guest.query(session, 0).m;
    for wrong in [0, 1, offset + 1, offset ^ (1 << 31), u64::from(u32::MAX)] {
        assert_eq!(guest.map_refused(session, wrong), errno(Errno::INVAL));
    }
    assert_eq!(guest.map_refused(session + 7, offset), errno(Errno::NODEV));
    for wrong in [0, 1, PIECE, 1 << 20, u64::MAX] {
        assert_eq!(
            guest.unmap_refused(wrong),
            errno(Errno::INVAL),
            "{wrong:#x}"
        );
    }
    // Without room for the answer nobody could take it back.
    let command = [MMAP, 0, session, 1, offset as u32];
    let short = guest.driver.0.exchange(command.as_bytes(), 8).unwrap();
    assert_eq!(short[..4], errno(Errno::INVAL).to_le_bytes());
    let cut = guest.driver.0.exchange([MUNMAP, 0].as_bytes(), 8).unwrap();
    assert_eq!(cut[..4], errno(Errno::INVAL).to_le_bytes());
    // The region holds eight of them, and then one more when there is room again.
    let places: Vec<u64> = (0..8).map(|_| guest.map(session, 1, offset)).collect();
    assert_eq!(guest.map_refused(session, offset), errno(Errno::NOMEM));
    guest.unmap(places[3]);
    assert_eq!(guest.map(session, 1, offset), places[3]);
    // Of memory there are eight buffers too.
    let mut create = CreateBuffers::new_zeroed();
    (create.count, create.memory) = (32, 1);
    create.format = Format::single(&PixFormat {
        sizeimage: SIZE,
        ..PixFormat::default()
    });
    assert_eq!(guest.driver.ioctl(session, CREATE_BUFS, &mut create), 0);
    assert_eq!((create.index, create.count), (2, 6));
    create.count = 1;
    let status = guest.driver.ioctl(session, CREATE_BUFS, &mut create);
    assert_eq!(status, errno(Errno::NOMEM));
    // No two kinds of memory in one queue.
    create.memory = 2;
    let status = guest.driver.ioctl(session, CREATE_BUFS, &mut create);
    assert_eq!(status, errno(Errno::INVAL));
    let mut wrong = buffer(0);
    (wrong.memory, wrong.length) = (2, SIZE);
    let status = guest.driver.ioctl(session, QBUF, &mut wrong);
    assert_eq!(status, errno(Errno::INVAL));
}

#[test]
fn a_vmm_that_refuses_or_does_not_map_is_told_to_the_driver() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let mut guest = Guest::new(&service);
    let session = guest.prepare(2);
    let offset = guest.query(session, 0).m;
    let place = guest.map(session, 1, offset);
    // The VMM forgets it, as it does with a reset: what is not there is unmapped.
    guest.shared.reset();
    let posted = guest.post_munmap(place);
    assert!(!guest.serve());
    guest.finish(posted).unwrap();
    // What the VMM refuses is answered so, and the next one goes to another place.
    let taken = place + PLACE;
    guest.shared.occupy(0, taken, PLACE).unwrap();
    let posted = guest.post_mmap(session, 1, offset);
    assert!(!guest.serve());
    assert_eq!(guest.finish(posted), Err(errno(Errno::NOMEM)));
    assert_eq!(guest.map(session, 1, offset), taken + PLACE);
}

#[test]
fn other_commands_go_on_while_a_vmm_takes_its_time() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let mut guest = Guest::new(&service);
    let session = guest.prepare(2);
    let offset = guest.query(session, 0).m;
    let waits = guest.post_mmap(session, 1, offset);
    // The ring gives this one back first, and the driver can even close its session and pause.
    let other = guest.driver.open().unwrap();
    guest.driver.close(other);
    guest.driver.close(session);
    let vm = guest.driver.0.guest_mut();
    vm.pause().unwrap();
    // The answer comes while nothing can be given back.
    assert!(guest.serve());
    guest.driver.0.guest_mut().resume().unwrap();
    let (place, _) = guest.finish(waits).unwrap();
    guest.unmap(place);
}

#[test]
fn what_a_vmm_does_too_late_is_taken_back_and_its_place_used_again() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let mut guest = Guest::new(&service);
    let session = guest.prepare(2);
    let offset = guest.query(session, 0).m;
    let first = guest.map(session, 1, offset);
    let (maps, unmaps) = (
        guest.post_mmap(session, 1, offset),
        guest.post_munmap(first),
    );
    for waits in [maps, unmaps] {
        assert_eq!(guest.finish(waits), Err(errno(Errno::TIMEDOUT)));
    }
    // Neither is the guest's, as long as nobody knows what is there.
    for place in [first, first + PLACE] {
        assert_eq!(guest.unmap_refused(place), errno(Errno::INVAL));
    }
    // The VMM wakes up, and does both.
    assert!(guest.serve() && guest.serve());
    assert_eq!(guest.shared.mapped().len(), 1);
    // What it has mapped for nobody is to go.
    assert!(guest.serve());
    assert!(guest.shared.mapped().is_empty());
    let again = guest.map(session, 1, offset);
    guest.unmap(again);
}

#[test]
fn a_reset_takes_all_back_and_what_the_vmm_maps_after_it_too() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let mut guest = Guest::new(&service);
    let session = guest.prepare(2);
    let offset = guest.query(session, 0).m;
    let before = guest.map(session, 1, offset);
    let _void = guest.post_mmap(session, 1, offset);
    // It is asked for when the next command has been answered.
    guest.driver.open().unwrap();
    let vm = guest.driver.0.guest_mut();
    vm.reset_by_message().unwrap();
    vm.resume().unwrap();
    guest.shared.reset();
    // Done now, for a driver that is gone: the service has it taken back.
    assert!(guest.serve());
    assert_eq!(guest.shared.mapped().len(), 1);
    assert!(guest.serve());
    assert!(guest.shared.mapped().is_empty());
    assert_eq!(guest.unmap_refused(before), errno(Errno::INVAL));
    let session = guest.prepare(2);
    guest.map(session, 1, offset);
}

#[test]
fn a_successor_knows_what_is_mapped_and_has_taken_back_what_was_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path())
        .below_keeper(keeper())
        .start()
        .unwrap();
    let mut guest = Guest::new(&service);
    let mut kept = Vec::new();
    for round in 0..3_u8 {
        let pid = service.wait_service_pid(None, Deadline::patient()).unwrap();
        let session = guest.prepare(2);
        let offset = guest.query(session, 0).m;
        let place = guest.map(session, 1, offset);
        assert!(!kept.contains(&place));
        kept.push(place);
        guest.shared.write(0, place, &[round; 8]).unwrap();
        // The VMM is asked, and the service dies before it is answered.
        let lost = guest.post_mmap(session, 1, offset);
        guest.driver.open().unwrap();
        guest.wait_asked();
        assert_eq!(service.kill_service().unwrap(), pid);
        assert!(guest.serve());
        service
            .wait_service_pid(Some(pid), Deadline::patient())
            .unwrap();
        // The successor does not know, and has it taken back.
        assert!(guest.serve());
        assert_eq!(guest.finish(lost), Err(errno(Errno::NODEV)));
        assert_eq!(guest.shared.mapped().len(), kept.len());
        for _ in 0..2 {
            assert_eq!(guest.driver.event().0, 0, "both sessions are lost");
            guest.driver.0.offer_event().unwrap();
        }
        // What the guest had it still has, and nobody writes there any more.
        for (round, &place) in kept.iter().enumerate() {
            let bytes = guest.shared.read(0, place, 8).unwrap();
            assert_eq!(bytes, [round as u8; 8]);
        }
    }
    for place in kept {
        guest.unmap(place);
    }
    assert!(guest.shared.mapped().is_empty());
}

#[test]
fn without_a_vmm_that_maps_there_is_no_such_memory() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path()).start().unwrap();
    let mut options = MediaClient::options();
    options.wishes.protocol &= !protocol_feature::SHMEM;
    let stream = service.connect(Deadline::patient()).unwrap();
    let mut driver = Driver(MediaClient::start(stream, &options, 16).unwrap());
    let session = driver.open().unwrap();
    let mut request = request(2);
    let status = driver.ioctl(session, REQBUFS, &mut request);
    assert_eq!(status, errno(Errno::INVAL));
    let (status, _) = driver.command(&[MMAP, 0, session, 1, 0], &[], 16);
    assert_eq!(status, errno(Errno::INVAL));
}
