// SPDX-License-Identifier: Apache-2.0

//! A hostile guest whose every word comes from the fuzzer.
//!
//! An input is a list of [`Deed`]s on one queue: descriptors, tables, bytes, heads, indices, kicks.
//! After each input the queue is stopped and started like after a driver's reset; a service that
//! does not answer that, or a request on its healthy queue, has lost.

pub mod coder;
pub mod snd;

use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;

use arbitrary::Arbitrary;
use frontend::ring::{Descriptor, RingOptions};
use frontend::session::Wishes;
use frontend::{Guest, GuestOptions, MemoryLayout};
use virtio_device::{Device, Options, Server};

/// Descriptors per queue: few, so that the fuzzer soon meets the ends.
const SIZE: u16 = 16;
/// Bytes of the page that buffers and tables point to.
const PAGE: u32 = 4096;

/// Where a descriptor points.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Place {
    /// Into the page that [`Deed::Write`] fills.
    Page(u16),
    /// Around the end of a region.
    End(u8),
    /// Nowhere.
    Hole(u16),
    /// Anywhere at all.
    Any(u64),
}

/// How long a buffer is.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Length {
    /// Of the size that requests have.
    Short(u8),
    /// Of the size that payloads have.
    Long(u16),
    /// Any.
    Any(u32),
}

/// One thing that a hostile driver does.
#[derive(Arbitrary, Clone, Debug)]
pub enum Deed {
    /// Writes a descriptor into the queue's own table.
    Describe { slot: u8, place: Place, length: Length, flags: u8, next: u8 },
    /// Writes a descriptor into a table in the page, at entry `entry`.
    Tabulate { entry: u8, place: Place, length: Length, flags: u8, next: u8 },
    /// Writes bytes into the page.
    Write { at: u16, bytes: Vec<u8> },
    /// Writes a 32-bit word into the page: the codes that requests begin with.
    Word { at: u16, value: u32 },
    /// Makes a head available.
    Publish(u8),
    /// Makes any number available.
    PublishAny(u16),
    /// Writes the available index.
    Index(u16),
    /// Kicks.
    Kick,
}

/// A device in this process with a guest on it.
pub struct Arena {
    guest: Guest,
    page: u64,
    end: u64,
    hole: u64,
    /// Fails where the service does not serve any more.
    alive: fn(&mut Guest),
    _socket: tempfile::TempDir,
}

impl Arena {
    /// Serves `device` and connects a guest to it. `alive` is asked after every input.
    #[must_use]
    pub fn new(device: Arc<dyn Device>, alive: fn(&mut Guest)) -> Self {
        let queues = device.queues().len();
        let server = Server::new(device, Options::default()).expect("the device is served");
        let directory = tempfile::tempdir().expect("a directory for the socket");
        let path = directory.path().join("socket");
        let listener = UnixListener::bind(&path).expect("a socket");
        std::thread::spawn(move || server.serve(&listener).expect("the service goes on"));
        let options = GuestOptions {
            memory: MemoryLayout::scattered(),
            queues: vec![RingOptions { size: SIZE, ..RingOptions::default() }; queues],
            wishes: Wishes::default(),
        };
        let stream = UnixStream::connect(path).expect("the service accepts");
        let mut guest = Guest::connect(stream, &options).expect("the service negotiates");
        guest.start().expect("the rings start");
        let memory = Arc::clone(guest.memory());
        let page = memory.alloc(PAGE, 16).expect("a page").addr;
        let (end, hole) = (memory.regions()[0].guest_end(), memory.address_in_gap());
        Self { guest, page, end, hole, alive, _socket: directory }
    }

    /// Does what the fuzzer says on `queue`, and sees that the service lives.
    pub fn run(&mut self, queue: u16, deeds: &[Deed]) {
        for deed in deeds {
            self.act(queue, deed);
        }
        self.guest.ring_mut(queue).kick_always().expect("a kick");
        // The barrier of a stop: whatever was kicked has been looked at.
        self.guest.reset().expect("the service stops its rings");
        self.guest.resume().expect("the service starts its rings");
        (self.alive)(&mut self.guest);
    }

    /// Sees that the service lives, before the first input.
    pub fn check(&mut self) {
        (self.alive)(&mut self.guest);
    }

    fn act(&mut self, queue: u16, deed: &Deed) {
        let memory = Arc::clone(self.guest.memory());
        match deed {
            Deed::Describe { slot, place, length, flags, next } => {
                let descriptor = self.descriptor(*place, *length, *flags, *next);
                let slot = u16::from(*slot) % SIZE;
                self.guest.ring(queue).write_descriptor(slot, descriptor).expect("a slot");
            }
            Deed::Tabulate { entry, place, length, flags, next } => {
                let bytes = self.descriptor(*place, *length, *flags, *next).to_bytes();
                let at = self.page + u64::from(*entry) * 16 % u64::from(PAGE);
                memory.write(at, &bytes).expect("the page");
            }
            Deed::Write { at, bytes } => {
                let at = u32::from(*at) % PAGE;
                let len = bytes.len().min((PAGE - at) as usize);
                memory.write(self.page + u64::from(at), &bytes[..len]).expect("the page");
            }
            Deed::Word { at, value } => {
                let at = self.page + u64::from(u32::from(*at) % (PAGE - 4));
                memory.write(at, &value.to_le_bytes()).expect("the page");
            }
            Deed::Publish(head) => {
                let ring = self.guest.ring_mut(queue);
                ring.publish_unrecorded(u16::from(*head) % SIZE).expect("the ring");
            }
            Deed::PublishAny(head) => {
                self.guest.ring_mut(queue).publish_unrecorded(*head).expect("the ring");
            }
            Deed::Index(index) => {
                self.guest.ring(queue).store_avail_idx(*index).expect("the ring");
            }
            Deed::Kick => self.guest.ring_mut(queue).kick_always().expect("a kick"),
        }
    }

    fn descriptor(&self, place: Place, length: Length, flags: u8, next: u8) -> Descriptor {
        Descriptor {
            addr: match place {
                Place::Page(offset) => self.page + u64::from(offset) % u64::from(PAGE),
                Place::End(before) => self.end - u64::from(before),
                Place::Hole(offset) => self.hole + u64::from(offset),
                Place::Any(address) => address,
            },
            len: match length {
                Length::Short(len) => u32::from(len),
                Length::Long(len) => u32::from(len),
                Length::Any(len) => len,
            },
            // NEXT, WRITE and INDIRECT matter; what lies above them is noise that must not.
            flags: u16::from(flags),
            next: u16::from(next),
        }
    }
}
