// SPDX-License-Identifier: Apache-2.0

//! The ground floor: a device that answers each request with its own bytes.

#![no_main]

use std::cell::RefCell;
use std::sync::Arc;

use agl_virtio_fuzz::{Arena, Deed};
use frontend::{Deadline, Guest, Segment};
use libfuzzer_sys::fuzz_target;
use virtio_device::{Chain, ChainError, Device, Handler, Io, QueueSpec, ThreadPlan};

struct Echo;

struct EchoHandler;

impl Device for Echo {
    fn id(&self) -> u32 {
        4
    }

    fn features(&self) -> u64 {
        0
    }

    fn queues(&self) -> &[QueueSpec] {
        &[QueueSpec { name: "fuzzed" }, QueueSpec { name: "healthy" }]
    }

    fn config(&self) -> Vec<u8> {
        Vec::new()
    }

    fn threads(&self) -> Vec<ThreadPlan> {
        vec![ThreadPlan { name: "echo", queues: vec![0, 1], handler: Box::new(EchoHandler) }]
    }
}

fn answer(io: &Io, chain: &Chain) -> Result<u32, ChainError> {
    let len = chain.readable().min(chain.writable()).min(4096);
    let mut bytes = vec![0; len];
    chain.read(io.memory(), 0, &mut bytes)?;
    chain.write(io.memory(), 0, &bytes)?;
    Ok(len as u32)
}

impl Handler for EchoHandler {
    fn kicked(&mut self, io: &mut Io, queue: usize) {
        while let Some(chain) = io.pop(queue) {
            match answer(io, &chain) {
                Ok(written) => io.complete(chain, written),
                Err(_) => io.fail(chain, 0),
            }
        }
    }

    fn reset(&mut self, _io: &mut Io) {}
}

fn alive(guest: &mut Guest) {
    let memory = Arc::clone(guest.memory());
    let (question, answer) = (memory.alloc(4, 4).unwrap(), memory.alloc(4, 4).unwrap());
    memory.write(question.addr, b"ping").unwrap();
    let ring = guest.ring_mut(1);
    ring.add(&[Segment::Readable(question), Segment::Writable(answer)]).unwrap();
    ring.kick().unwrap();
    assert_eq!(ring.wait(Deadline::patient()).unwrap().written, 4);
    assert_eq!(memory.bytes(answer.addr, 4).unwrap(), b"ping");
    memory.free(question);
    memory.free(answer);
}

thread_local! {
    static ARENA: RefCell<Arena> = RefCell::new(Arena::new(Arc::new(Echo), alive));
}

fuzz_target!(|deeds: Vec<Deed>| ARENA.with_borrow_mut(|arena| arena.run(0, &deeds)));
