// SPDX-License-Identifier: Apache-2.0
//! What a hostile or broken driver puts into a ring: a catalogue that every device must survive.
//!
//! Each [`Attack`] mutilates a request that would be valid. Its [`Expectation`] says what a good
//! device does then; [`endure`] launches one and checks that, whatever the device is. Beyond the
//! catalogue, [`crate::ring::Ring::reserve`], `write_descriptor` and `publish` build any chain.
use std::sync::atomic::Ordering;

use crate::deadline::Deadline;
use crate::error::{Error, Result};
use crate::guest::Guest;
use crate::memory::Buffer;
use crate::ring::{Completion, Descriptor, Ring, Segment, descriptor_flag};

/// A device's valid request, as material.
#[derive(Debug, Clone)]
pub struct Request {
    /// The device-readable bytes.
    pub readable: Vec<u8>,
    /// Bytes of the device-writable part.
    pub writable: u32,
}

/// What a device must do with an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expectation {
    /// The chain comes back, used.len no more than what it could write, and the ring goes on.
    Returned,
    /// The chain comes back, or the ring is set aside until reset. Other rings go on.
    ReturnedOrSetAside,
    /// The ring is set aside until reset: nothing must come back. Other rings go on.
    SetAside,
}

/// One kind of malformed chain or ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Attack {
    /// A descriptor whose next is itself.
    LoopToSelf,
    /// Two descriptors that lead to each other.
    LoopOfTwo,
    /// next beyond the table.
    NextOutOfRange,
    /// A readable buffer of length 0 in front.
    ZeroLengthReadable,
    /// A writable buffer of length 0 in front of the others.
    ZeroLengthWritable,
    /// All buffers have length 0.
    ZeroLengthEverything,
    /// One readable buffer of 4 GiB - 1.
    LengthMaximum,
    /// Several buffers whose lengths sum up beyond u32.
    LengthSumOverflow,
    /// A readable buffer that no region has.
    ReadableInGap,
    /// A writable buffer that no region has.
    WritableInGap,
    /// A readable buffer that begins in a region and ends beyond it.
    ReadableStraddlesEnd,
    /// A writable buffer that begins in a region and ends beyond it.
    WritableStraddlesEnd,
    /// A buffer at address 0.
    AddressZero,
    /// A buffer that wraps around the end of the address space.
    AddressWraps,
    /// The writable buffer before the readable one.
    WritableBeforeReadable,
    /// No writable part.
    OnlyReadable,
    /// No readable part.
    OnlyWritable,
    /// The request ends after one byte.
    OneByteRequest,
    /// The request is followed by 64 KiB of more.
    OversizedRequest,
    /// The writable part is one byte short.
    ResponseOneByteShort,
    /// Every byte in a descriptor of its own (valid: it must be answered).
    ByteByByte,
    /// Reserved bits of the flags are set.
    UnknownFlags,
    /// INDIRECT and NEXT in one descriptor.
    IndirectWithNext,
    /// A table that contains an INDIRECT descriptor.
    IndirectInIndirect,
    /// A table of 0 bytes.
    IndirectEmpty,
    /// A table whose length is no multiple of 16.
    IndirectOddLength,
    /// The last descriptor of a table goes on beyond it.
    IndirectUnterminated,
    /// A table whose descriptor goes on at its own slot.
    IndirectLoop,
    /// A table that no region has.
    IndirectInGap,
    /// A table that begins in a region and ends beyond it.
    IndirectStraddlesEnd,
    /// A table of 4 GiB - 16.
    IndirectHuge,
    /// A table of 4096 descriptors: more than the queue's size.
    IndirectLongerThanQueue,
    /// INDIRECT and WRITE in one descriptor: the device must ignore WRITE (2.7.5.3.2).
    IndirectWithWrite,
    /// A head beyond the table.
    HeadOutOfRange,
    /// The head 65535.
    HeadMaximum,
    /// avail.idx half the circle ahead.
    AvailIndexJumps,
    /// avail.idx goes back by one.
    AvailIndexGoesBack,
    /// The same head made available twice.
    SameHeadTwice,
}

impl Attack {
    /// All of them.
    pub const ALL: &'static [Self] = &[
        Self::LoopToSelf,
        Self::LoopOfTwo,
        Self::NextOutOfRange,
        Self::ZeroLengthReadable,
        Self::ZeroLengthWritable,
        Self::ZeroLengthEverything,
        Self::LengthMaximum,
        Self::LengthSumOverflow,
        Self::ReadableInGap,
        Self::WritableInGap,
        Self::ReadableStraddlesEnd,
        Self::WritableStraddlesEnd,
        Self::AddressZero,
        Self::AddressWraps,
        Self::WritableBeforeReadable,
        Self::OnlyReadable,
        Self::OnlyWritable,
        Self::OneByteRequest,
        Self::OversizedRequest,
        Self::ResponseOneByteShort,
        Self::ByteByByte,
        Self::UnknownFlags,
        Self::IndirectWithNext,
        Self::IndirectInIndirect,
        Self::IndirectEmpty,
        Self::IndirectOddLength,
        Self::IndirectUnterminated,
        Self::IndirectLoop,
        Self::IndirectInGap,
        Self::IndirectStraddlesEnd,
        Self::IndirectHuge,
        Self::IndirectLongerThanQueue,
        Self::IndirectWithWrite,
        Self::HeadOutOfRange,
        Self::HeadMaximum,
        Self::AvailIndexJumps,
        Self::AvailIndexGoesBack,
        Self::SameHeadTwice,
    ];

    /// What a good device does.
    #[must_use]
    pub fn expectation(self) -> Expectation {
        match self {
            Self::HeadOutOfRange
            | Self::HeadMaximum
            | Self::AvailIndexJumps
            | Self::AvailIndexGoesBack => Expectation::SetAside,
            // The device may notice the second, or answer both: then the head comes back twice.
            Self::SameHeadTwice => Expectation::ReturnedOrSetAside,
            _ => Expectation::Returned,
        }
    }

    /// Put it into the ring and kick.
    ///
    /// # Errors
    /// Where the ring or guest memory has no room for it.
    pub fn launch(self, ring: &mut Ring, request: &Request) -> Result<()> {
        Launch::new(ring, request)?.put(self)?;
        ring.kick_always()
    }
}

/// Launch an attack on a queue and check that the device does what it must: it returns the chain,
/// or sets the ring aside. On return the ring is unusable in the second case: reset the guest.
///
/// # Errors
/// Where the device returned nothing though it must, or broke a rule of the ring.
pub fn endure(
    guest: &mut Guest,
    queue: u16,
    attack: Attack,
    request: &Request,
    deadline: Deadline,
) -> Result<Endured> {
    let ring = guest.ring_mut(queue);
    attack.launch(ring, request)?;
    match attack.expectation() {
        Expectation::Returned => ring.wait(deadline).map(Endured::Returned),
        Expectation::ReturnedOrSetAside => match ring.wait(deadline) {
            Ok(completion) => Ok(Endured::Returned(completion)),
            Err(Error::TimedOut(_)) => Ok(Endured::SetAside),
            // A device that answers at once was given the head back before it met it again.
            Err(other) if other.misbehaviour().is_some() => Ok(Endured::ReturnedTwice),
            Err(other) => Err(other),
        },
        Expectation::SetAside => {
            // A message on the control channel comes back only when the device still lives;
            // whether the queue's thread does is for the caller's next honest request to show.
            guest.session()?.synchronise()?;
            let ring = guest.ring_mut(queue);
            match ring.pop()? {
                None => Ok(Endured::SetAside),
                Some(completion) => Ok(Endured::Returned(completion)),
            }
        }
    }
}

/// What became of an attack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endured {
    /// The chain came back.
    Returned(Completion),
    /// One head that was made available twice came back twice.
    ReturnedTwice,
    /// Nothing came back.
    SetAside,
}

/// The buffers of one attack: they stay allocated, for the device may write them at any time.
struct Launch<'ring> {
    ring: &'ring mut Ring,
    readable: Buffer,
    writable: Buffer,
}

impl<'ring> Launch<'ring> {
    fn new(ring: &'ring mut Ring, request: &Request) -> Result<Self> {
        let memory = ring.memory();
        let readable = memory.alloc(request.readable.len() as u32, 1)?;
        memory.write(readable.addr, &request.readable)?;
        let writable = memory.alloc(request.writable, 1)?;
        Ok(Self {
            readable,
            writable,
            ring,
        })
    }

    fn put(mut self, attack: Attack) -> Result<()> {
        use descriptor_flag::{INDIRECT, NEXT, WRITE};
        let (read, write) = (self.read(), self.write());
        let end = self.region_end();
        let gap = self.ring.memory().address_in_gap();
        match attack {
            Attack::LoopToSelf => self.chain_with(&[read], |slots, chain| {
                (chain[0].flags, chain[0].next) = (NEXT, slots[0]);
            }),
            Attack::LoopOfTwo => self.chain_with(&[read, write], |slots, chain| {
                (chain[1].flags, chain[1].next) = (NEXT | WRITE, slots[0]);
            }),
            Attack::NextOutOfRange => {
                let size = self.ring.size();
                self.chain_with(&[read], |_, chain| {
                    (chain[0].flags, chain[0].next) = (NEXT, size);
                })
            }
            Attack::ZeroLengthReadable => self.chain(&[Descriptor { len: 0, ..read }, read, write]),
            Attack::ZeroLengthWritable => {
                self.chain(&[read, Descriptor { len: 0, ..write }, write])
            }
            Attack::ZeroLengthEverything => self.chain(&[
                Descriptor { len: 0, ..read },
                Descriptor { len: 0, ..write },
            ]),
            Attack::LengthMaximum => self.chain(&[
                Descriptor {
                    len: u32::MAX,
                    ..read
                },
                write,
            ]),
            Attack::LengthSumOverflow => self.chain(
                &[Descriptor {
                    len: u32::MAX,
                    ..read
                }; 3],
            ),
            Attack::ReadableInGap => self.chain(&[Descriptor { addr: gap, ..read }, write]),
            Attack::WritableInGap => self.chain(&[read, Descriptor { addr: gap, ..write }]),
            Attack::ReadableStraddlesEnd => self.chain(&[
                Descriptor {
                    addr: end - 2,
                    len: 0x2000,
                    ..read
                },
                write,
            ]),
            Attack::WritableStraddlesEnd => self.chain(&[
                read,
                Descriptor {
                    addr: end - 2,
                    len: 0x2000,
                    ..write
                },
            ]),
            Attack::AddressZero => self.chain(&[Descriptor { addr: 0, ..read }, write]),
            Attack::AddressWraps => self.chain(&[
                Descriptor {
                    addr: u64::MAX - 3,
                    len: 64,
                    ..read
                },
                write,
            ]),
            Attack::WritableBeforeReadable => self.chain(&[write, read]),
            Attack::OnlyReadable => self.chain(&[read]),
            Attack::OnlyWritable => self.chain(&[write]),
            Attack::OneByteRequest => self.chain(&[Descriptor { len: 1, ..read }, write]),
            Attack::OversizedRequest => {
                let more = self.ring.memory().alloc(0x1_0000, 1)?;
                let more = Descriptor {
                    addr: more.addr,
                    len: more.len,
                    ..read
                };
                self.chain(&[read, more, write])
            }
            Attack::ResponseOneByteShort => {
                let len = write.len.saturating_sub(1);
                self.chain(&[read, Descriptor { len, ..write }])
            }
            Attack::ByteByByte => self.byte_by_byte(),
            Attack::UnknownFlags => self.chain(&[
                Descriptor {
                    flags: 0xff00,
                    ..read
                },
                Descriptor {
                    flags: 0xff00 | WRITE,
                    ..write
                },
            ]),
            Attack::IndirectWithNext => {
                let table = self.table(&[read, write])?;
                self.chain(&[
                    Descriptor {
                        flags: INDIRECT,
                        ..table
                    },
                    write,
                ])
            }
            Attack::IndirectInIndirect => {
                let inner = self.table(&[read, write])?;
                let outer = self.table(&[inner])?;
                self.chain(&[outer])
            }
            Attack::IndirectEmpty => {
                let table = self.table(&[read, write])?;
                self.chain(&[Descriptor { len: 0, ..table }])
            }
            Attack::IndirectOddLength => {
                let table = self.table(&[read, write])?;
                self.chain(&[Descriptor {
                    len: table.len - 5,
                    ..table
                }])
            }
            Attack::IndirectUnterminated => {
                let table = self.table_with(&[read, write], |chain| {
                    (chain[1].flags, chain[1].next) = (NEXT | WRITE, 2);
                })?;
                self.chain(&[table])
            }
            Attack::IndirectLoop => {
                let table = self.table_with(&[read, write], |chain| {
                    (chain[1].flags, chain[1].next) = (NEXT | WRITE, 1);
                })?;
                self.chain(&[table])
            }
            Attack::IndirectInGap => self.chain(&[Descriptor {
                addr: gap,
                len: 32,
                flags: INDIRECT,
                next: 0,
            }]),
            Attack::IndirectStraddlesEnd => self.chain(&[Descriptor {
                addr: end - 16,
                len: 48,
                flags: INDIRECT,
                next: 0,
            }]),
            Attack::IndirectHuge => {
                let table = self.table(&[read, write])?;
                self.chain(&[Descriptor {
                    len: u32::MAX - 15,
                    ..table
                }])
            }
            Attack::IndirectLongerThanQueue => {
                let table = self.table(&[Descriptor { len: 1, ..read }; 4096])?;
                self.chain(&[table])
            }
            Attack::IndirectWithWrite => {
                let table = self.table(&[read, write])?;
                self.chain(&[Descriptor {
                    flags: INDIRECT | WRITE,
                    ..table
                }])
            }
            Attack::HeadOutOfRange => self.ring.publish_unrecorded(self.ring.size()),
            Attack::HeadMaximum => self.ring.publish_unrecorded(u16::MAX),
            Attack::AvailIndexJumps => self
                .ring
                .store_avail_idx(self.ring.avail_idx().wrapping_add(0x8000)),
            Attack::AvailIndexGoesBack => self
                .ring
                .store_avail_idx(self.ring.avail_idx().wrapping_sub(1)),
            Attack::SameHeadTwice => {
                self.chain(&[read, write])?;
                let last = self.ring.avail_idx().wrapping_sub(1);
                let element = self.ring.layout().avail_element(last);
                let head: u16 = self.ring.memory().load(element, Ordering::Relaxed)?;
                self.ring.publish_unrecorded(u16::from_le(head))
            }
        }
    }

    fn read(&self) -> Descriptor {
        Descriptor {
            addr: self.readable.addr,
            len: self.readable.len,
            flags: 0,
            next: 0,
        }
    }

    fn write(&self) -> Descriptor {
        let flags = descriptor_flag::WRITE;
        Descriptor {
            addr: self.writable.addr,
            len: self.writable.len,
            flags,
            next: 0,
        }
    }

    /// The first address after the last region: nothing follows it.
    fn region_end(&self) -> u64 {
        self.ring
            .memory()
            .regions()
            .iter()
            .map(crate::memory::Region::guest_end)
            .max()
            .unwrap_or(0)
    }

    /// A valid chain of these descriptors.
    fn chain(&mut self, descriptors: &[Descriptor]) -> Result<()> {
        self.chain_with(descriptors, |_, _| ())
    }

    /// A chain, linked, then mutilated.
    fn chain_with(
        &mut self,
        descriptors: &[Descriptor],
        mutilate: impl FnOnce(&[u16], &mut [Descriptor]),
    ) -> Result<()> {
        let slots = self.ring.reserve(descriptors.len())?;
        let mut chain = linked(descriptors, |at| slots[at]);
        mutilate(&slots, &mut chain);
        for (&slot, &descriptor) in slots.iter().zip(&chain) {
            self.ring.write_descriptor(slot, descriptor)?;
        }
        // The most that the device could write without leaving the buffers of the request.
        let writable = u64::from(self.writable.len);
        self.ring
            .publish(slots[0], slots.len() as u16, writable)
            .map(drop)
    }

    /// A table of these descriptors, linked: the descriptor that refers to it.
    fn table(&mut self, descriptors: &[Descriptor]) -> Result<Descriptor> {
        self.table_with(descriptors, |_| ())
    }

    fn table_with(
        &mut self,
        descriptors: &[Descriptor],
        mutilate: impl FnOnce(&mut [Descriptor]),
    ) -> Result<Descriptor> {
        let mut chain = linked(descriptors, |at| at as u16);
        mutilate(&mut chain);
        let bytes: Vec<u8> = chain
            .iter()
            .flat_map(|descriptor| descriptor.to_bytes())
            .collect();
        let table = self.ring.memory().alloc(bytes.len() as u32, 16)?;
        self.ring.memory().write(table.addr, &bytes)?;
        let flags = descriptor_flag::INDIRECT;
        Ok(Descriptor {
            addr: table.addr,
            len: table.len,
            flags,
            next: 0,
        })
    }

    fn byte_by_byte(&mut self) -> Result<()> {
        let bytes = |buffer: Buffer| {
            (0..u64::from(buffer.len)).map(move |at| Buffer {
                addr: buffer.addr + at,
                len: 1,
            })
        };
        // No more than the ring holds; the rest in one piece each.
        let room = self.ring.free_descriptors() / 2 - 1;
        let mut segments = Vec::new();
        for (buffer, segment) in [
            (self.readable, Segment::Readable as fn(Buffer) -> Segment),
            (self.writable, Segment::Writable as fn(Buffer) -> Segment),
        ] {
            let single = (buffer.len as usize).min(room) as u32;
            segments.extend(
                bytes(Buffer {
                    len: single,
                    ..buffer
                })
                .map(segment),
            );
            if single < buffer.len {
                let addr = buffer.addr + u64::from(single);
                segments.push(segment(Buffer {
                    addr,
                    len: buffer.len - single,
                }));
            }
        }
        self.ring.add(&segments).map(drop)
    }
}

/// The descriptors with NEXT set on all but the last; each goes on at the slot of its successor.
fn linked(descriptors: &[Descriptor], slot: impl Fn(usize) -> u16) -> Vec<Descriptor> {
    let mut chain = descriptors.to_vec();
    for at in 1..chain.len() {
        chain[at - 1].flags |= descriptor_flag::NEXT;
        chain[at - 1].next = slot(at);
    }
    chain
}
