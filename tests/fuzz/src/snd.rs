// SPDX-License-Identifier: Apache-2.0

//! The sound device under a hostile guest: its streams run while the fuzzer writes to a queue.

use std::sync::Arc;

use agl_virtio_snd::config::{BackendConfig, NullConfig, SndConfig};
use agl_virtio_snd::device::SoundDevice;
use frontend::clients::snd::CONTROL;
use frontend::clients::snd::wire::{self, Params, request, status};
use frontend::{Deadline, Guest, Segment};

use crate::Arena;

/// The streams of the built-in configuration: two outputs, one input.
const STREAMS: u32 = 3;

/// A card whose sound goes nowhere, with all its streams running.
#[must_use]
pub fn arena() -> Arena {
    let mut config = SndConfig::default();
    for stream in &mut config.streams {
        stream.backend = BackendConfig::Null(NullConfig { pace: true });
    }
    let prepare: agl_virtio_snd::backend::runner::Prepare = Arc::new(|_: &str| {});
    let device = SoundDevice::new("guest", "snd", &config, &prepare).expect("a sound device");
    let mut arena = Arena::new(Arc::new(device), alive);
    arena.check();
    arena
}

/// A request on the control queue is answered; afterwards every stream runs.
fn alive(guest: &mut Guest) {
    let info = wire::query_info(request::PCM_INFO, 0, STREAMS, wire::PCM_INFO_SIZE);
    assert_eq!(ask(guest, &info, STREAMS * wire::PCM_INFO_SIZE), status::OK);
    for stream in 0..STREAMS {
        let set = Params::CD_LIKE.request(stream);
        assert_eq!(ask(guest, &set, 0), status::OK);
        for code in [request::PCM_PREPARE, request::PCM_START] {
            assert_eq!(ask(guest, &wire::pcm(code, stream), 0), status::OK);
        }
    }
}

/// The status of a request.
fn ask(guest: &mut Guest, bytes: &[u8], body: u32) -> u32 {
    let memory = Arc::clone(guest.memory());
    let question = memory.alloc(bytes.len() as u32, 4).expect("guest memory");
    let answer = memory.alloc(4 + body, 4).expect("guest memory");
    memory.write(question.addr, bytes).expect("guest memory");
    let ring = guest.ring_mut(CONTROL);
    ring.add(&[Segment::Readable(question), Segment::Writable(answer)]).expect("room in the ring");
    ring.kick().expect("a kick");
    ring.wait(Deadline::patient()).expect("the device answers");
    let said = wire::u32_at(&memory.bytes(answer.addr, 4).expect("guest memory"), 0);
    memory.free(question);
    memory.free(answer);
    said
}
