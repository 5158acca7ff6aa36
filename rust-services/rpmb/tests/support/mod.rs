// SPDX-License-Identifier: Apache-2.0

//! What a driver of the tests says to the service.

#![allow(dead_code, unreachable_pub, reason = "each program uses a part of it")]

use agl_virtio_rpmb::key::Key;
use agl_virtio_rpmb::wire::{Frame, RequestType};
use frontend::Deadline;
use frontend::clients::rpmb::RpmbClient;
use frontend::service_under_test::ServiceUnderTest;
use zerocopy::{FromBytes, IntoBytes};

/// A driver.
pub fn client(service: &ServiceUnderTest) -> RpmbClient {
    let stream = service.connect(Deadline::patient()).unwrap();
    RpmbClient::start(stream, &RpmbClient::options()).unwrap()
}

/// A request of one block.
pub fn one(kind: RequestType) -> Frame {
    let mut frame = Frame::of(kind.code());
    frame.block_count.set(1);
    frame
}

/// A frame as it goes to the device.
pub fn bytes(frame: &Frame) -> [u8; 512] {
    frame.as_bytes().try_into().unwrap()
}

/// Sends frames; what is answered.
pub fn send(client: &mut RpmbClient, frames: &[Frame], answers: usize) -> Vec<Frame> {
    let frames: Vec<_> = frames.iter().map(bytes).collect();
    let answer = client.exchange(&frames, answers).unwrap();
    answer
        .iter()
        .map(|frame| Frame::read_from_bytes(frame).unwrap())
        .collect()
}

/// Programs a key; the result.
pub fn program(client: &mut RpmbClient, key: [u8; 32]) -> u16 {
    let mut frame = one(RequestType::ProgramKey);
    frame.key_mac = key;
    let answer = send(client, &[frame, one(RequestType::ResultRead)], 1);
    answer[0].result.get()
}

/// A signed write of one block and the wish for its result.
pub fn write(key: &Key, counter: u32, address: u16, data: [u8; 256]) -> [Frame; 2] {
    let mut frame = one(RequestType::DataWrite);
    frame.data = data;
    frame.address.set(address);
    frame.write_counter.set(counter);
    frame.key_mac = key.sign([&frame]);
    [frame, one(RequestType::ResultRead)]
}

/// The write counter, signed.
pub fn counter(client: &mut RpmbClient, key: &Key) -> u32 {
    let answer = send(client, &[one(RequestType::GetWriteCounter)], 1);
    assert!(key.verifies(&answer));
    answer[0].write_counter.get()
}

/// Blocks, signed.
pub fn read(client: &mut RpmbClient, key: &Key, address: u16, count: u16) -> Vec<Frame> {
    let mut frame = one(RequestType::DataRead);
    frame.address.set(address);
    frame.block_count.set(count);
    let answer = send(client, &[frame], count.into());
    assert!(key.verifies(&answer));
    answer
}
