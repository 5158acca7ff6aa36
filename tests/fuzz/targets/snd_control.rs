// SPDX-License-Identifier: Apache-2.0

//! The sound device's control queue.

#![no_main]

use std::cell::RefCell;

use agl_virtio_fuzz::{Arena, Deed, snd};
use libfuzzer_sys::fuzz_target;

thread_local! {
    static ARENA: RefCell<Arena> = RefCell::new(snd::arena());
}

fuzz_target!(|deeds: Vec<Deed>| ARENA.with_borrow_mut(|arena| arena.run(0, &deeds)));
