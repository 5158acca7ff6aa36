// SPDX-License-Identifier: Apache-2.0
//! One connection's negotiation, and the messages of the protocol one by one: what a VMM says.
//!
//! [`crate::guest::Guest`] says them in the right order; a hostile test says them in any other, or
//! says what no method here does with [`Session::connection`].
use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::connection::{Acknowledge, Connection, Message};
use crate::error::{Error, Result};
use crate::event::Event;
use crate::memory::{Memory, Region};
use crate::protocol::{backend_request, feature, header, protocol_feature, request};
use crate::ring::Ring;

/// What a front end is willing to negotiate.
#[derive(Debug, Clone, Copy)]
pub struct Wishes {
    /// Virtio features to accept where they are offered.
    pub features: u64,
    /// Protocol features to accept where they are offered.
    pub protocol: u64,
    /// Which messages ask for an acknowledgement.
    pub acknowledge: Acknowledge,
}

impl Default for Wishes {
    /// All that this driver can do, everything acknowledged.
    fn default() -> Self {
        Self {
            features: !feature::UNSUPPORTED,
            protocol: protocol_feature::SUPPORTED,
            acknowledge: Acknowledge::Everything,
        }
    }
}

/// One connection to a back end.
#[derive(Debug)]
pub struct Session {
    connection: Connection,
    wishes: Wishes,
    offered: u64,
    features: u64,
    protocol: u64,
    channel: Option<BackendChannel>,
    /// Guest addresses of the regions that were added one by one: only what is missing is added
    /// at the next start of the same connection.
    added: Mutex<BTreeSet<u64>>,
}

impl Session {
    /// Negotiate in the order of QEMU: features, protocol features, the back-end channel, owner.
    /// The virtio features are only chosen here; [`Self::set_features`] sends them.
    ///
    /// # Errors
    /// Where the back end refuses, hangs up or is silent.
    pub fn negotiate(stream: UnixStream, wishes: Wishes) -> Result<Self> {
        let mut session = Self::raw(stream);
        session.wishes = wishes;
        session.offered = session.ask_u64(request::GET_FEATURES)?;
        session.features = session.offered & wishes.features;
        if session.features & feature::PROTOCOL_FEATURES != 0 {
            let offered = session.ask_u64(request::GET_PROTOCOL_FEATURES)?;
            let accepted = offered & wishes.protocol;
            session.tell_u64(request::SET_PROTOCOL_FEATURES, accepted)?;
            session.protocol = accepted;
        }
        if session.has(protocol_feature::BACKEND_REQ) {
            session.open_channel()?;
        }
        session.tell(request::SET_OWNER, &[], &[])?;
        if session.has(protocol_feature::SHARED_OBJECT) {
            // Some features are offered to those who have this; QEMU asks a second time as well.
            session.offered = session.ask_u64(request::GET_FEATURES)?;
            session.features = session.offered & wishes.features;
        }
        Ok(session)
    }

    /// A connection on which nothing has been said.
    #[must_use]
    pub fn raw(stream: UnixStream) -> Self {
        Self {
            connection: Connection::new(stream),
            wishes: Wishes::default(),
            offered: 0,
            features: 0,
            protocol: 0,
            channel: None,
            added: Mutex::default(),
        }
    }

    /// The connection, to say on it what the other methods do not.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The connection, to change its patience.
    pub fn connection_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// The virtio features that the back end offered.
    #[must_use]
    pub fn offered(&self) -> u64 {
        self.offered
    }

    /// The virtio features that were chosen.
    #[must_use]
    pub fn features(&self) -> u64 {
        self.features
    }

    /// The protocol features that were negotiated.
    #[must_use]
    pub fn protocol(&self) -> u64 {
        self.protocol
    }

    /// Whether all these protocol features were negotiated.
    #[must_use]
    pub fn has(&self, protocol_features: u64) -> bool {
        self.protocol & protocol_features == protocol_features
    }

    /// The channel on which the back end sends requests, where it was negotiated.
    #[must_use]
    pub fn channel(&self) -> Option<&BackendChannel> {
        self.channel.as_ref()
    }

    /// Send a message that has an answer of its own, and wait for the answer.
    ///
    /// # Errors
    /// Where the back end hangs up, is silent, or answers something else.
    pub fn ask(&self, number: u32, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Result<Message> {
        self.connection
            .send(number, header::VERSION, payload, fds)?;
        let answer = self.connection.receive()?;
        if answer.request != number || answer.flags & header::REPLY == 0 {
            return Err(Error::BadReply {
                request: number,
                problem: format!("message {} with flags {:#x}", answer.request, answer.flags),
            });
        }
        Ok(answer)
    }

    /// Send a message without payload whose answer is a u64.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn ask_u64(&self, number: u32) -> Result<u64> {
        self.ask(number, &[], &[])?.as_u64()
    }

    /// Send a message that has no answer of its own; by [`Wishes::acknowledge`] one is asked for
    /// and judged.
    ///
    /// # Errors
    /// [`Error::Refused`] where the answer is not 0; as [`Self::ask`] otherwise.
    pub fn tell(&self, number: u32, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        let about_memory = matches!(
            number,
            request::SET_MEM_TABLE | request::ADD_MEM_REG | request::REM_MEM_REG
        );
        let acknowledged = self.has(protocol_feature::REPLY_ACK)
            && match self.wishes.acknowledge {
                Acknowledge::Everything => true,
                Acknowledge::Memory => about_memory,
                Acknowledge::Nothing => false,
            };
        if acknowledged {
            self.tell_and_wait(number, payload, fds)
        } else {
            self.connection.send(number, header::VERSION, payload, fds)
        }
    }

    /// Send a message with NEED_REPLY, whatever was negotiated, and judge the answer.
    ///
    /// # Errors
    /// [`Error::Refused`] where the answer is not 0; as [`Self::ask`] otherwise.
    pub fn tell_and_wait(&self, number: u32, payload: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
        self.connection
            .send(number, header::VERSION | header::NEED_REPLY, payload, fds)?;
        let answer = self.connection.receive()?;
        if answer.request != number {
            return Err(Error::BadReply {
                request: number,
                problem: format!("message {}", answer.request),
            });
        }
        match answer.as_u64()? {
            0 => Ok(()),
            status => Err(Error::Refused {
                request: number,
                status,
            }),
        }
    }

    fn tell_u64(&self, number: u32, value: u64) -> Result<()> {
        self.tell(number, &value.to_le_bytes(), &[])
    }

    fn tell_ring(&self, number: u32, ring: u16, value: u32) -> Result<()> {
        let payload = [u32::from(ring).to_le_bytes(), value.to_le_bytes()].concat();
        self.tell(number, &payload, &[])
    }

    /// Wait until all that was sent has been handled: an exchange that changes nothing.
    ///
    /// # Errors
    /// Where the back end hangs up or is silent.
    pub fn synchronise(&self) -> Result<()> {
        self.ask_u64(request::GET_FEATURES).map(drop)
    }

    /// SET_FEATURES with what was chosen.
    ///
    /// # Errors
    /// As [`Self::tell`].
    pub fn set_features(&self) -> Result<()> {
        self.tell_u64(request::SET_FEATURES, self.features)
    }

    /// GET_QUEUE_NUM.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn queue_count(&self) -> Result<u64> {
        self.ask_u64(request::GET_QUEUE_NUM)
    }

    /// Share all regions: by ADD_MEM_REG one by one where slots were negotiated (those that the
    /// back end has already are left out, as QEMU does), else by SET_MEM_TABLE.
    ///
    /// # Errors
    /// As [`Self::tell`].
    pub fn share_memory(&self, memory: &Memory) -> Result<()> {
        if !self.has(protocol_feature::CONFIGURE_MEM_SLOTS) {
            return self.set_memory_table(memory);
        }
        for region in memory.regions() {
            let known = self.added().contains(&region.spec.guest_base);
            if !known {
                self.add_region(region)?;
            }
        }
        Ok(())
    }

    /// SET_MEM_TABLE with all regions.
    ///
    /// # Errors
    /// As [`Self::tell`].
    pub fn set_memory_table(&self, memory: &Memory) -> Result<()> {
        let regions = memory.regions();
        let mut payload = (regions.len() as u64).to_le_bytes().to_vec();
        payload.extend(regions.iter().flat_map(Region::descriptor));
        let fds: Vec<_> = regions.iter().map(Region::fd).collect();
        self.tell(request::SET_MEM_TABLE, &payload, &fds)
    }

    /// ADD_MEM_REG.
    ///
    /// # Errors
    /// As [`Self::tell`].
    pub fn add_region(&self, region: &Region) -> Result<()> {
        let payload = [&[0; 8], region.descriptor().as_slice()].concat();
        self.tell(request::ADD_MEM_REG, &payload, &[region.fd()])?;
        self.added().insert(region.spec.guest_base);
        Ok(())
    }

    /// REM_MEM_REG.
    ///
    /// # Errors
    /// As [`Self::tell`].
    pub fn remove_region(&self, region: &Region) -> Result<()> {
        let payload = [&[0; 8], region.descriptor().as_slice()].concat();
        self.tell(request::REM_MEM_REG, &payload, &[])?;
        self.added().remove(&region.spec.guest_base);
        Ok(())
    }

    fn added(&self) -> MutexGuard<'_, BTreeSet<u64>> {
        self.added.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// GET_MAX_MEM_SLOTS.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn max_memory_slots(&self) -> Result<u64> {
        self.ask_u64(request::GET_MAX_MEM_SLOTS)
    }

    /// SET_VRING_NUM, BASE, ADDR, CALL, KICK and (where it matters) ERR of one ring, with any base.
    ///
    /// # Errors
    /// As [`Self::tell`].
    pub fn set_up_ring(&self, ring: &Ring, base: u16) -> Result<()> {
        self.set_ring_size(ring.index(), ring.size().into())?;
        self.set_ring_base(ring.index(), base.into())?;
        self.set_ring_addresses(ring)?;
        self.set_ring_event(
            request::SET_VRING_ERR,
            ring.index(),
            Some(ring.error_event()),
        )?;
        self.set_ring_event(
            request::SET_VRING_CALL,
            ring.index(),
            Some(ring.call_event()),
        )?;
        self.set_ring_event(
            request::SET_VRING_KICK,
            ring.index(),
            Some(ring.kick_event()),
        )
    }

    /// SET_VRING_NUM, honest or not.
    ///
    /// # Errors
    /// As [`Self::tell`].
    pub fn set_ring_size(&self, ring: u16, size: u32) -> Result<()> {
        self.tell_ring(request::SET_VRING_NUM, ring, size)
    }

    /// SET_VRING_BASE, honest or not.
    ///
    /// # Errors
    /// As [`Self::tell`].
    pub fn set_ring_base(&self, ring: u16, base: u32) -> Result<()> {
        self.tell_ring(request::SET_VRING_BASE, ring, base)
    }

    /// SET_VRING_ADDR of a ring where it lies.
    ///
    /// # Errors
    /// As [`Self::tell`]; [`Error::Memory`] where the ring is not in memory.
    pub fn set_ring_addresses(&self, ring: &Ring) -> Result<()> {
        let (layout, memory) = (ring.layout(), ring.memory());
        self.set_ring_user_addresses(
            ring.index(),
            memory.user_address(layout.descriptors)?,
            memory.user_address(layout.used)?,
            memory.user_address(layout.available)?,
        )
    }

    /// SET_VRING_ADDR with any front-end addresses, honest or not.
    ///
    /// # Errors
    /// As [`Self::tell`].
    pub fn set_ring_user_addresses(
        &self,
        ring: u16,
        descriptors: u64,
        used: u64,
        available: u64,
    ) -> Result<()> {
        let mut payload = u64::from(ring).to_le_bytes().to_vec();
        for word in [descriptors, used, available, 0] {
            payload.extend_from_slice(&word.to_le_bytes());
        }
        self.tell(request::SET_VRING_ADDR, &payload, &[])
    }

    /// SET_VRING_KICK, SET_VRING_CALL or SET_VRING_ERR; without an event the message says that
    /// there is none (the ring is to be polled, or nobody is to be called).
    ///
    /// # Errors
    /// As [`Self::tell`].
    pub fn set_ring_event(&self, number: u32, ring: u16, event: Option<&Event>) -> Result<()> {
        /// Bit 8 of the value: no descriptor comes along.
        const NO_FD: u64 = 1 << 8;
        match event {
            Some(event) => self.tell(number, &u64::from(ring).to_le_bytes(), &[event.as_fd()]),
            None => self.tell_u64(number, u64::from(ring) | NO_FD),
        }
    }

    /// SET_VRING_ENABLE.
    ///
    /// # Errors
    /// As [`Self::tell`].
    pub fn enable_ring(&self, ring: u16, on: bool) -> Result<()> {
        self.tell_ring(request::SET_VRING_ENABLE, ring, on.into())
    }

    /// GET_VRING_BASE: stop a ring, and learn the next index that the device would have taken.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub fn stop_ring(&self, ring: u16) -> Result<u16> {
        let payload = [u32::from(ring).to_le_bytes(), [0; 4]].concat();
        let number = request::GET_VRING_BASE;
        let answer = self.ask(number, &payload, &[])?.as_u64()?;
        if answer & 0xffff_ffff != u64::from(ring) {
            return Err(Error::BadReply {
                request: number,
                problem: format!("{answer:#x} is not about ring {ring}"),
            });
        }
        u16::try_from(answer >> 32).map_err(|_| Error::BadReply {
            request: number,
            problem: format!("base {:#x} is no ring index", answer >> 32),
        })
    }

    /// SET_STATUS, where STATUS was negotiated; else nothing.
    ///
    /// # Errors
    /// As [`Self::tell`].
    pub fn set_status(&self, status: u64) -> Result<()> {
        if self.has(protocol_feature::STATUS) {
            self.tell_u64(request::SET_STATUS, status)?;
        }
        Ok(())
    }

    /// RESET_DEVICE.
    ///
    /// # Errors
    /// [`Error::NotNegotiated`] without the feature; as [`Self::tell`] otherwise.
    pub fn reset_device(&self) -> Result<()> {
        if !self.has(protocol_feature::RESET_DEVICE) {
            return Err(Error::NotNegotiated("RESET_DEVICE"));
        }
        self.tell(request::RESET_DEVICE, &[], &[])
    }

    /// SET_BACKEND_REQ_FD with a fresh channel.
    ///
    /// # Errors
    /// As [`Self::tell`].
    pub fn open_channel(&mut self) -> Result<()> {
        let (ours, theirs) =
            UnixStream::pair().map_err(|source| Error::io("make a socket pair", source))?;
        self.tell(request::SET_BACKEND_REQ_FD, &[], &[theirs.as_fd()])?;
        self.channel = Some(BackendChannel {
            connection: Connection::new(ours),
        });
        Ok(())
    }
}

/// The receiving end of the channel on which a back end sends requests of its own.
#[derive(Debug)]
pub struct BackendChannel {
    connection: Connection,
}

impl BackendChannel {
    /// The next request before the deadline. One that needs a reply gets `status` as its answer
    /// (0: done).
    ///
    /// # Errors
    /// Where none comes, or the back end closed the channel.
    pub fn receive(&self, deadline: crate::Deadline, status: u64) -> Result<Message> {
        let message = self.connection.receive_by(deadline)?;
        if message.needs_reply() {
            let flags = header::VERSION | header::REPLY;
            self.connection
                .send(message.request, flags, &status.to_le_bytes(), &[])?;
        }
        Ok(message)
    }

    /// Wait for CONFIG_CHANGE_MSG.
    ///
    /// # Errors
    /// Where none comes, or another request does.
    pub fn wait_config_change(&self, deadline: crate::Deadline) -> Result<()> {
        let message = self.receive(deadline, 0)?;
        if message.request == backend_request::CONFIG_CHANGE_MSG {
            return Ok(());
        }
        Err(Error::BadReply {
            request: message.request,
            problem: "not CONFIG_CHANGE_MSG".into(),
        })
    }

    /// The channel's connection, to say on it what no good VMM does.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.connection
    }
}
