// SPDX-License-Identifier: Apache-2.0

//! Two guests whose services share one eMMC, a region each: both write at the same time, the
//! services are killed under them, and each finds its own key, counter and data. `tests/bench/
//! check-rpmb` runs it where there is an eMMC.
//!
//! `shared-card CARD HOST_KEY SERVICE KEEPER`; panics with what was wrong.

#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test, a panic is the verdict"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::path::Path;

use agl_virtio_rpmb::key::Key;
use frontend::Deadline;
use frontend::service_under_test::{Launch, ServiceUnderTest};
use support::{client, counter, program, read, send, write};

/// Where the guests' regions begin, which nobody has written to: 523 blocks each.
const REGIONS: [u16; 2] = [600, 1200];
/// Writes of each guest.
const WRITES: u32 = 24;
/// After each so many of a guest's writes its service is killed.
const LIFE: u32 = 8;

/// Like no block that is written: whether it lies on the card can be seen.
fn key_of(first_block: u16) -> [u8; 32] {
    let first = if first_block == REGIONS[0] {
        0x80
    } else {
        0xc0
    };
    std::array::from_fn(|at| first | at as u8)
}

fn service(directory: &Path, words: &[String], first_block: u16) -> ServiceUnderTest {
    let [card, host_key, service, keeper] = words else {
        panic!("shared-card CARD HOST_KEY SERVICE KEEPER");
    };
    let config = directory.join(format!("{first_block}.toml"));
    let text = format!(
        "[devices.rpmb]\ntype = \"rpmb\"\nbackend = \"mmc\"\npath = \"{card}\"\n\
         capacity_kib = 128\nmax_write_blocks = 4\n\
         [devices.rpmb.region]\nfirst_block = {first_block}\nhost_key = \"{host_key}\"\n"
    );
    std::fs::write(&config, text).unwrap();
    Launch::new(service, directory.join(format!("{first_block}.sock")))
        .args(["--bus", "none", "--log", "warn", "--config"])
        .args([config])
        .below_keeper(keeper)
        .start()
        .unwrap()
}

fn block(first_block: u16, number: u32) -> [u8; 256] {
    let fill = number.wrapping_mul(7) as u8 ^ first_block as u8;
    [fill; 256]
}

/// Writes, is killed, and reads back.
fn guest(service: &ServiceUnderTest, first_block: u16) {
    let mut driver = client(service);
    let key = Key::new(key_of(first_block));
    assert_eq!(program(&mut driver, key_of(first_block)), 0);
    assert_eq!(
        program(&mut driver, [1; 32]),
        5,
        "the key is programmed once"
    );
    for number in 0..WRITES {
        let data = block(first_block, number);
        if number % LIFE == LIFE - 1 {
            let old = service.kill_service().unwrap();
            service
                .wait_service_pid(Some(old), Deadline::patient())
                .unwrap();
        }
        let answer = send(&mut driver, &write(&key, number, number as u16, data), 1);
        assert!(key.verifies(&answer), "{first_block}: a forged answer");
        let said = (answer[0].result.get(), answer[0].write_counter.get());
        assert_eq!(said, (0, number + 1), "{first_block}: write {number}");
    }
    // The other guest's key signs nothing here, and the region ends where it ends.
    let other = Key::new(key_of(REGIONS[0] + REGIONS[1] - first_block));
    for (key, address, result) in [(&other, 0, 2), (&key, 512, 4)] {
        let frames = write(key, WRITES, address, [0; 256]);
        assert_eq!(send(&mut driver, &frames, 1)[0].result.get(), result);
    }
    assert_eq!(counter(&mut driver, &key), WRITES);
    let blocks = read(&mut driver, &key, 0, WRITES as u16);
    for (number, frame) in (0..).zip(blocks) {
        assert_eq!(frame.data, block(first_block, number), "{first_block}");
    }
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let directory = tempfile::tempdir().unwrap();
    let services = REGIONS.map(|first| service(directory.path(), &words, first));
    std::thread::scope(|scope| {
        for (first, service) in REGIONS.into_iter().zip(&services) {
            scope.spawn(move || guest(service, first));
        }
    });
    println!(
        "2 guests, {WRITES} writes each, {} kills",
        2 * WRITES / LIFE
    );
}
