// SPDX-License-Identifier: Apache-2.0

//! The service with resources in objects of other devices: the test is the VMM that has a table of
//! them, answers as it likes, or does not answer at all.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

#[path = "../../codec/tests/bench/mod.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod bench;
#[allow(dead_code, reason = "other tests use the rest")]
mod player;

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use agl_virtio_codec::{Codec, Size};
use bench::{encode, plain};
use frontend::clients::video::{
    DONE, Draft, INPUT, INVALID_OPERATION, INVALID_PARAMETER, INVALID_RESOURCE_ID,
    INVALID_STREAM_ID, OK, OUT_OF_MEMORY, OUTPUT, Params, VideoClient, done, word,
};
use frontend::protocol::protocol_feature;
use frontend::service_under_test::{ServiceUnderTest, built_program};
use frontend::shared_objects::{SharedObjects, answer, next_lookup};
use frontend::{ChainId, Deadline};
use player::{LIBVPX8, NV12, Player, VP8, attach_object, launch, name, object};

/// The feature: resources may lie in objects.
const F_VIRTIO_OBJECT: u64 = 1 << 2;

/// A guest whose VMM knows objects.
fn client(service: &ServiceUnderTest) -> VideoClient {
    let mut options = VideoClient::options();
    options.wishes.protocol |= protocol_feature::SHARED_OBJECT;
    let stream = service.connect(Deadline::patient()).unwrap();
    VideoClient::start(stream, &options).unwrap()
}

/// Waits for the lookup of an object, and answers so.
fn answer_lookup(driver: &mut VideoClient, value: u64, objects: &[BorrowedFd<'_>]) {
    let session = driver.guest_mut().session().unwrap();
    let channel = session.channel().unwrap();
    let (_, asked) = next_lookup(channel, Deadline::patient()).unwrap();
    answer(channel, &asked, value, objects).unwrap();
}

fn kind(driver: &mut VideoClient, chain: ChainId) -> u32 {
    word(&driver.finish(chain).unwrap(), 0)
}

/// Decodes a clip into objects, right to the bit.
fn plays_into_objects(driver: &mut VideoClient, stream: u32) {
    let clip = encode(LIBVPX8, Size::new(175, 143), 8);
    let mut player = Player::into_objects(driver, stream, VP8, NV12);
    player.play(&clip.units, 500);
    assert_eq!(player.sums, plain(Codec::Vp8, &clip));
    player.close();
}

#[test]
fn pictures_are_decoded_into_objects_as_the_host_decodes_them() {
    for (dialect, draft) in [("v5", Draft::V5), ("v3", Draft::V3)] {
        let directory = tempfile::tempdir().unwrap();
        let service = launch(directory.path(), "decoder").args(["--dialect", dialect]);
        let service = service.start().unwrap();
        let mut driver = client(&service).speaking(draft);
        plays_into_objects(&mut driver, 1);
    }
}

#[test]
fn pictures_are_encoded_out_of_an_object() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path(), "encoder").start().unwrap();
    let mut driver = client(&service);
    let size = Size::new(176, 144);
    assert_eq!(driver.create_in(1, VP8, [1, 1]).unwrap(), OK);
    let raw = Params::new(INPUT, NV12, size.width, size.height);
    assert_eq!(driver.set_params(1, &raw).unwrap(), OK);
    let mut coded = Params::new(OUTPUT, VP8, size.width, size.height);
    coded.0[12] = player::CODED;
    assert_eq!(driver.set_params(1, &coded).unwrap(), OK);
    let mut objects = SharedObjects::default();
    let bytes = driver.params(1, INPUT).unwrap().plane(0).0;
    for (queue, bytes) in [(INPUT, bytes), (OUTPUT, player::CODED)] {
        objects.add(name(queue, 1), object(bytes.into()));
        let attached = attach_object(&mut driver, &objects, (1, queue, 1), name(queue, 1));
        assert_eq!(attached, OK);
    }
    let memory = |queue| objects.get(name(queue, 1)).unwrap();
    let pictures = bench::raw(size, 4);
    let mut units = Vec::new();
    for picture in &pictures {
        memory(INPUT).write_all_at(picture, 0).unwrap();
        let input = driver.queue(1, INPUT, 1, 0, bytes).unwrap();
        let output = driver.queue(1, OUTPUT, 1, 0, 0).unwrap();
        assert_eq!(kind(&mut driver, input), DONE);
        let unit = done(&driver.finish(output).unwrap());
        let mut coded = vec![0; unit.sizes[0] as usize];
        memory(OUTPUT).read_exact_at(&mut coded, 0).unwrap();
        units.push(coded);
    }
    let back = bench::decoded(Codec::Vp8, &units);
    assert_eq!(back.len(), pictures.len());
    for (back, raw) in back.iter().zip(&pictures) {
        let psnr = bench::psnr(back, raw);
        assert!(psnr > 28.0, "{psnr:.1} dB");
    }
}

#[test]
fn only_a_vmm_that_can_find_objects_is_offered_them() {
    let directory = tempfile::tempdir().unwrap();
    let keeper = built_program("agl-virtio-keeper").unwrap();
    let services = [
        launch(directory.path(), "decoder"),
        launch(directory.path(), "decoder").below_keeper(keeper),
    ];
    for service in services {
        let service = service.start().unwrap();
        let stream = service.connect(Deadline::patient()).unwrap();
        let mut driver = VideoClient::start(stream, &VideoClient::options()).unwrap();
        let offered = driver.guest_mut().session().unwrap().offered();
        assert_eq!(offered & F_VIRTIO_OBJECT, 0);
        let refused = driver.create_in(1, VP8, [0, 1]).unwrap();
        assert_eq!(refused, INVALID_PARAMETER);
        driver.guest_mut().hang_up().unwrap();
        let mut driver = client(&service);
        let offered = driver.guest_mut().session().unwrap().offered();
        assert_eq!(offered & F_VIRTIO_OBJECT, F_VIRTIO_OBJECT);
        assert_eq!(driver.create_in(1, VP8, [0, 1]).unwrap(), OK);
    }
}

#[test]
fn what_cannot_be_used_is_refused_and_the_stream_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path(), "decoder").start().unwrap();
    let pid = service.service_pid();
    let mut driver = client(&service);
    assert_eq!(driver.create_in(1, VP8, [0, 1]).unwrap(), OK);
    let (empty, good) = (object(0), object(1 << 20));
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.unwrap();
    let (pipe, _other_end) = rustix::pipe::pipe().unwrap();
    // What the VMM says: its number, and the descriptors with it.
    let answers: [(u64, Vec<BorrowedFd<'_>>); 6] = [
        (1, vec![]),
        (u64::MAX, vec![good.as_fd()]),
        (0, vec![empty.as_fd()]),
        (0, vec![null.as_fd()]),
        (0, vec![pipe.as_fd()]),
        (0, vec![good.as_fd(), good.as_fd()]),
    ];
    for (number, (value, objects)) in answers.into_iter().enumerate() {
        let chain = driver.attach_objects(1, OUTPUT, 1, &[name(OUTPUT, 1)]);
        answer_lookup(&mut driver, value, &objects);
        let refused = kind(&mut driver, chain.unwrap());
        assert_eq!(refused, INVALID_RESOURCE_ID, "answer {number}");
        let queued = driver.queue(1, OUTPUT, 1, 0, 0).unwrap();
        assert_eq!(kind(&mut driver, queued), INVALID_RESOURCE_ID);
    }
    let chain = driver.attach_objects(1, OUTPUT, 1, &[name(OUTPUT, 1)]);
    answer_lookup(&mut driver, 0, &[good.as_fd()]);
    assert_eq!(kind(&mut driver, chain.unwrap()), OK);
    assert_eq!(driver.destroy(1).unwrap(), OK);
    plays_into_objects(&mut driver, 2);
    assert_eq!(service.service_pid(), pid, "the service never died");
}

#[test]
fn an_object_that_is_too_small_or_is_cut_short_is_an_error_and_no_signal() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path(), "encoder").start().unwrap();
    let pid = service.service_pid();
    let mut driver = client(&service);
    assert_eq!(driver.create_in(1, VP8, [1, 0]).unwrap(), OK);
    let raw = Params::new(INPUT, NV12, 176, 144);
    assert_eq!(driver.set_params(1, &raw).unwrap(), OK);
    let bytes = driver.params(1, INPUT).unwrap().plane(0).0;
    let mut objects = SharedObjects::default();
    objects.add(name(INPUT, 1), object(u64::from(bytes) - 1));
    objects.add(name(INPUT, 2), object(bytes.into()));
    for id in [1, 2] {
        let attached = attach_object(&mut driver, &objects, (1, INPUT, id), name(INPUT, id));
        assert_eq!(attached, OK);
    }
    objects.get(name(INPUT, 2)).unwrap().set_len(4096).unwrap();
    for id in [1, 2] {
        let queued = driver.queue(1, INPUT, id, 0, bytes).unwrap();
        assert_eq!(kind(&mut driver, queued), INVALID_PARAMETER, "{id}");
    }
    objects
        .get(name(INPUT, 2))
        .unwrap()
        .set_len(bytes.into())
        .unwrap();
    let queued = driver.queue(1, INPUT, 2, 0, bytes).unwrap();
    assert_eq!(kind(&mut driver, queued), DONE);
    assert_eq!(service.service_pid(), pid, "the service never died");
}

#[test]
fn a_vmm_that_never_answers_holds_up_nobody_else() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path(), "decoder").start().unwrap();
    let mut driver = client(&service);
    assert_eq!(driver.create_in(1, VP8, [0, 1]).unwrap(), OK);
    let waiting = driver.attach_objects(1, OUTPUT, 1, &[name(OUTPUT, 1)]);
    let clip = encode(LIBVPX8, Size::new(96, 80), 3);
    let mut player = Player::new(&mut driver, 2, VP8, NV12);
    player.play(&clip.units, 0);
    assert_eq!(player.sums, plain(Codec::Vp8, &clip));
    player.close();
    // It gives up, and hears no answer to something else in one that comes too late.
    let refused = kind(&mut driver, waiting.unwrap());
    assert_eq!(refused, INVALID_RESOURCE_ID);
    let late = object(1 << 20);
    answer_lookup(&mut driver, 0, &[late.as_fd()]);
    let queued = driver.queue(1, OUTPUT, 1, 0, 0).unwrap();
    assert_eq!(kind(&mut driver, queued), INVALID_RESOURCE_ID);
    plays_into_objects(&mut driver, 3);
}

#[test]
fn a_silent_vmm_is_not_asked_without_end() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path(), "decoder").start().unwrap();
    let mut driver = client(&service);
    let deadline = Deadline::after(Duration::from_secs(120));
    let mut refused = false;
    while !refused {
        assert!(!deadline.passed());
        assert_eq!(driver.create_in(1, VP8, [0, 1]).unwrap(), OK);
        // As many as a driver may have at once.
        let chains: Vec<ChainId> = (1..=32)
            .map(|id| driver.attach_objects(1, OUTPUT, id, &[name(OUTPUT, id); 8]))
            .map(Result::unwrap)
            .collect();
        assert_eq!(driver.destroy(1).unwrap(), OK);
        for chain in chains {
            match kind(&mut driver, chain) {
                OUT_OF_MEMORY => refused = true,
                // The stream has ended, or the VMM was given up.
                INVALID_OPERATION | INVALID_RESOURCE_ID => {}
                other => panic!("{other:#x}"),
            }
        }
    }
}

#[test]
fn a_vmm_that_has_an_object_and_does_not_hand_it_over_is_not_asked_again() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path(), "decoder").start().unwrap();
    let mut driver = client(&service);
    assert_eq!(driver.create_in(1, VP8, [0, 1]).unwrap(), OK);
    let chain = driver.attach_objects(1, OUTPUT, 1, &[name(OUTPUT, 1)]);
    answer_lookup(&mut driver, 0, &[]);
    let refused = kind(&mut driver, chain.unwrap());
    assert_eq!(refused, INVALID_RESOURCE_ID);
    // Nobody answers this one.
    let chain = driver.attach_objects(1, OUTPUT, 2, &[name(OUTPUT, 2)]);
    let refused = kind(&mut driver, chain.unwrap());
    assert_eq!(refused, INVALID_RESOURCE_ID);
    let session = driver.guest_mut().session().unwrap();
    let asked = next_lookup(session.channel().unwrap(), Deadline::after(Duration::ZERO));
    assert!(asked.is_err(), "{asked:?}");
    driver.reset().unwrap();
    plays_into_objects(&mut driver, 2);
}

#[test]
fn a_stream_that_ends_under_a_lookup_answers_who_waits() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path(), "decoder").start().unwrap();
    let mut driver = client(&service);
    assert_eq!(driver.create_in(1, VP8, [0, 1]).unwrap(), OK);
    let waiting = driver.attach_objects(1, OUTPUT, 1, &[name(OUTPUT, 1)]);
    assert_eq!(driver.destroy(1).unwrap(), OK);
    let ended = kind(&mut driver, waiting.unwrap());
    assert_eq!(ended, INVALID_OPERATION);
    let late = object(1 << 20);
    answer_lookup(&mut driver, 0, &[late.as_fd()]);
    plays_into_objects(&mut driver, 1);
}

#[test]
fn after_a_death_under_a_lookup_the_driver_hears_so_and_objects_work_again() {
    let directory = tempfile::tempdir().unwrap();
    let service = launch(directory.path(), "decoder")
        .below_keeper(built_program("agl-virtio-keeper").unwrap())
        .start()
        .unwrap();
    let mut driver = client(&service);
    for round in 0..2 {
        let stream = 1 + 2 * round;
        let pid = service.wait_service_pid(None, Deadline::patient()).unwrap();
        assert_eq!(driver.create_in(stream, VP8, [0, 1]).unwrap(), OK);
        let waiting = driver.attach_objects(stream, OUTPUT, 1, &[name(OUTPUT, 1)]);
        let session = driver.guest_mut().session().unwrap();
        let channel = session.channel().unwrap();
        let (_, asked) = next_lookup(channel, Deadline::patient()).unwrap();
        assert_eq!(service.kill_service().unwrap(), pid);
        let lost = kind(&mut driver, waiting.unwrap());
        assert_eq!(lost, INVALID_STREAM_ID, "round {round}");
        // The answer was for the dead one.
        let late = object(1 << 20);
        let session = driver.guest_mut().session().unwrap();
        answer(session.channel().unwrap(), &asked, 0, &[late.as_fd()]).unwrap();
        driver.event(Deadline::patient()).unwrap();
        plays_into_objects(&mut driver, stream + 1);
    }
}
