// SPDX-License-Identifier: Apache-2.0

//! The RPMB device: a guest that has the key and one that has not send any frames, the service dies
//! and comes back. Whatever comes in, an answer has no more frames than there is room, each is
//! signed once there is a key, and only what the key has signed moves the counter, by one.

#![no_main]

use std::io;
use std::sync::{Arc, Mutex};

use agl_virtio_rpmb::engine::{Engine, Limits, Request, Responder};
use agl_virtio_rpmb::key::Key;
use agl_virtio_rpmb::statistics::Statistics;
use agl_virtio_rpmb::store::{Medium, Shape, Store};
use agl_virtio_rpmb::wire::{FRAME_SIZE, Frame};
use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use zerocopy::{FromBytes, IntoBytes};

const KEY: [u8; 32] = [7; 32];
const SHAPE: Shape = Shape { capacity_units: 1, most_written: 2 };
const LIMITS: Limits = Limits { capacity_units: 1, most_written: 2, most_read: 4 };

/// What happens next.
#[derive(Arbitrary, Debug)]
enum Deed {
    /// Frames that could be a request.
    Plausible { frames: Vec<Small>, signed: bool, wish: bool, room: u8, deaths: u8 },
    /// Any bytes, repeated to whole frames or not.
    Any { bytes: Vec<u8>, frames: u8, room: u16, deaths: u8 },
    /// The service dies, and another one goes on.
    Die,
}

/// A frame of small numbers.
#[derive(Arbitrary, Debug)]
struct Small { kind: u8, address: u16, blocks: u8, ahead: i8, key: bool, data: u8 }

#[derive(Clone)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Medium for Memory {
    fn read(&mut self, at: u64, buffer: &mut [u8]) -> io::Result<()> {
        let at = at as usize;
        buffer.copy_from_slice(&self.0.lock().unwrap()[at..at + buffer.len()]);
        Ok(())
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> io::Result<()> {
        let at = at as usize;
        self.0.lock().unwrap()[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn alignment(&self) -> u64 {
        256
    }
}

fn engine(memory: &Memory, statistics: &Arc<Statistics>) -> Engine {
    let store = Store::open(Box::new(memory.clone()), &SHAPE, None).expect("the store opens");
    Engine::new(store, LIMITS, Arc::clone(statistics))
}

fuzz_target!(|deeds: Vec<Deed>| {
    let memory = Memory(Arc::new(Mutex::new(vec![0; 160 * 1024])));
    let statistics = Arc::new(Statistics::default());
    let mut device = engine(&memory, &statistics);
    for deed in deeds {
        let before = statistics.counter();
        let (bytes, room, deaths) = match deed {
            Deed::Die => {
                let register = device.register();
                device = engine(&memory, &statistics);
                device.restore_register(&register);
                assert_eq!(statistics.counter(), before);
                continue;
            }
            Deed::Plausible { frames, signed, wish, room, deaths } => {
                let mut made: Vec<Frame> = frames
                    .iter()
                    .take(5)
                    .map(|small| {
                        let mut frame = Frame::of(u16::from(small.kind % 7));
                        frame.address.set(small.address % 520);
                        frame.block_count.set(u16::from(small.blocks % 6));
                        frame.write_counter.set(before.wrapping_add_signed(small.ahead.into()));
                        frame.data = [small.data; 256];
                        frame.key_mac = if small.key { KEY } else { [small.data; 32] };
                        frame
                    })
                    .collect();
                let mac = Key::new(KEY).sign(&made);
                if let Some(last) = made.last_mut().filter(|_| signed) {
                    last.key_mac = mac;
                }
                if wish {
                    made.push(Frame::of(5));
                    made.last_mut().unwrap().block_count.set(1);
                }
                (made.as_bytes().to_vec(), usize::from(room % 7) * FRAME_SIZE, deaths % 3)
            }
            Deed::Any { bytes, frames, room, deaths } => {
                let len = usize::from(frames % 5) * FRAME_SIZE;
                let filled = bytes.iter().copied().cycle().take(len).collect();
                (if bytes.len() % 3 == 0 { filled } else { bytes }, room.into(), deaths)
            }
        };
        let Ok(request) = Request::parse(&bytes, room, deaths) else { continue };
        let answer = device.answer(&request);
        assert!(answer.len() * FRAME_SIZE <= room);
        let now = statistics.counter();
        assert!(now == before || now == before + 1);
        // Only who has the key writes; the fuzzer's key may be another one.
        if now != before {
            let first = Frame::read_from_bytes(&bytes[..FRAME_SIZE]).unwrap();
            assert_eq!((first.req_resp.get(), first.write_counter.get()), (3, before));
        }
    }
});
