// SPDX-License-Identifier: Apache-2.0
//! A whole guest: memory, rings and a session that comes and goes, driven as QEMU drives it.
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::inflight::Inflight;
use crate::memory::{Memory, MemoryLayout};
use crate::protocol::{protocol_feature, status};
use crate::ring::{ChainId, Ring, RingOptions};
use crate::session::{Session, Wishes};

/// How a guest is made.
#[derive(Debug, Clone)]
pub struct GuestOptions {
    /// Its memory.
    pub memory: MemoryLayout,
    /// Its queues, one entry each.
    pub queues: Vec<RingOptions>,
    /// What it negotiates.
    pub wishes: Wishes,
}

impl GuestOptions {
    /// Scattered memory, `queues` queues of 256 descriptors, all features.
    #[must_use]
    pub fn new(queues: usize) -> Self {
        Self {
            memory: MemoryLayout::scattered(),
            queues: vec![RingOptions::default(); queues],
            wishes: Wishes::default(),
        }
    }
}

/// Where the rings stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Running {
    /// Stopped, or never started.
    No,
    /// Between a start and the next stop or hang-up.
    Yes,
}

/// A guest with one device.
#[derive(Debug)]
pub struct Guest {
    memory: Arc<Memory>,
    rings: Vec<Ring>,
    bases: Vec<u16>,
    wishes: Wishes,
    session: Option<Session>,
    inflight: Option<Inflight>,
    running: Running,
}

impl Guest {
    /// Memory and rings, no connection.
    ///
    /// # Errors
    /// Where memory or descriptors run out.
    pub fn new(options: &GuestOptions) -> Result<Self> {
        let memory = Memory::new(&options.memory)?;
        let rings = options
            .queues
            .iter()
            .enumerate()
            .map(|(index, &ring)| Ring::new(&memory, index as u16, ring))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            bases: vec![0; rings.len()],
            memory,
            rings,
            wishes: options.wishes,
            session: None,
            inflight: None,
            running: Running::No,
        })
    }

    /// A guest on a connection, negotiated; [`Self::start`] starts it.
    ///
    /// # Errors
    /// As [`Self::new`] and [`Session::negotiate`].
    pub fn connect(stream: UnixStream, options: &GuestOptions) -> Result<Self> {
        let mut guest = Self::new(options)?;
        guest.reconnect(stream)?;
        Ok(guest)
    }

    /// Negotiate on a new connection; an old one is dropped first. Rings keep what they hold. One
    /// that was not stopped in order goes on from used.idx, as QEMU does when its back end died:
    /// what was out is then up to the inflight record, or lost.
    ///
    /// # Errors
    /// As [`Session::negotiate`].
    pub fn reconnect(&mut self, stream: UnixStream) -> Result<()> {
        self.hang_up()?;
        let session = Session::negotiate(stream, self.wishes)?;
        for ring in &mut self.rings {
            ring.set_features(session.features());
        }
        self.session = Some(session);
        Ok(())
    }

    /// Drop the connection without a word, whatever is going on.
    ///
    /// # Errors
    /// Where a ring's memory is gone.
    pub fn hang_up(&mut self) -> Result<()> {
        if let Some(session) = self.session.take() {
            session.connection().shut_down();
        }
        if self.running == Running::Yes {
            for (base, ring) in self.bases.iter_mut().zip(&self.rings) {
                *base = ring.used_idx()?;
            }
            self.running = Running::No;
        }
        Ok(())
    }

    /// Start all rings where they stand: features, memory, the inflight record (got at the first
    /// start, where negotiated), rings, enable, status.
    ///
    /// # Errors
    /// As [`Session::tell`].
    pub fn start(&mut self) -> Result<()> {
        let session = self.session.as_ref().ok_or(Error::NotConnected)?;
        session.set_features()?;
        session.share_memory(&self.memory)?;
        self.start_rings()
    }

    /// The part of [`Self::start`] after features and memory: for a session that has them.
    ///
    /// # Errors
    /// As [`Session::tell`].
    pub fn start_rings(&mut self) -> Result<()> {
        let session = self.session.as_ref().ok_or(Error::NotConnected)?;
        if session.has(protocol_feature::INFLIGHT_SHMFD) {
            let inflight = match self.inflight.take() {
                Some(inflight) => inflight,
                None => {
                    let size = self.rings.iter().map(Ring::size).max().unwrap_or(0);
                    Inflight::get(session, self.rings.len() as u16, size)?
                }
            };
            inflight.set(session)?;
            self.inflight = Some(inflight);
        }
        for (ring, &base) in self.rings.iter().zip(&self.bases) {
            session.set_up_ring(ring, base)?;
        }
        for ring in &self.rings {
            session.enable_ring(ring.index(), true)?;
        }
        session.set_status(status::RUNNING)?;
        session.synchronise()?;
        self.running = Running::Yes;
        Ok(())
    }

    /// Stop all rings and keep their bases: a paused VM, or the first half of a reset. Returns
    /// the bases that the device told.
    ///
    /// # Errors
    /// As [`Session::tell`].
    pub fn pause(&mut self) -> Result<Vec<u16>> {
        let session = self.session.as_ref().ok_or(Error::NotConnected)?;
        for ring in &self.rings {
            session.enable_ring(ring.index(), false)?;
        }
        for (base, ring) in self.bases.iter_mut().zip(&self.rings) {
            *base = session.stop_ring(ring.index())?;
        }
        session.set_status(0)?;
        self.running = Running::No;
        Ok(self.bases.clone())
    }

    /// Go on after [`Self::pause`].
    ///
    /// # Errors
    /// As [`Session::tell`].
    pub fn resume(&mut self) -> Result<()> {
        self.session()?.set_features()?;
        self.start_rings()
    }

    /// Reset the device as QEMU's generic devices do, without RESET_DEVICE: stop it, and begin
    /// again with zeroed rings and base 0 at the next [`Self::start`]. Returns the chains that
    /// were out, which never come back.
    ///
    /// # Errors
    /// As [`Session::tell`].
    pub fn reset(&mut self) -> Result<Vec<(u16, ChainId)>> {
        if self.running == Running::Yes {
            self.pause()?;
        }
        self.forget_rings()
    }

    /// [`Self::reset`] with RESET_DEVICE.
    ///
    /// # Errors
    /// As [`Session::reset_device`].
    pub fn reset_by_message(&mut self) -> Result<Vec<(u16, ChainId)>> {
        if self.running == Running::Yes {
            self.pause()?;
        }
        self.session()?.reset_device()?;
        self.forget_rings()
    }

    fn forget_rings(&mut self) -> Result<Vec<(u16, ChainId)>> {
        let mut lost = Vec::new();
        for (ring, base) in self.rings.iter_mut().zip(&mut self.bases) {
            let index = ring.index();
            lost.extend(ring.reset()?.into_iter().map(|chain| (index, chain)));
            *base = 0;
        }
        // QEMU frees the record with the device's reset: the next start gets a new one.
        self.inflight = None;
        Ok(lost)
    }

    /// Guest memory.
    #[must_use]
    pub fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// One ring.
    #[must_use]
    pub fn ring(&self, index: u16) -> &Ring {
        &self.rings[usize::from(index)]
    }

    /// One ring, to use it.
    pub fn ring_mut(&mut self, index: u16) -> &mut Ring {
        &mut self.rings[usize::from(index)]
    }

    /// All rings.
    #[must_use]
    pub fn rings(&self) -> &[Ring] {
        &self.rings
    }

    /// All rings, to use several at once.
    pub fn rings_mut(&mut self) -> &mut [Ring] {
        &mut self.rings
    }

    /// The present session.
    ///
    /// # Errors
    /// [`Error::NotConnected`] where there is none.
    pub fn session(&self) -> Result<&Session> {
        self.session.as_ref().ok_or(Error::NotConnected)
    }

    /// The record of chains in flight, where one was negotiated.
    #[must_use]
    pub fn inflight(&self) -> Option<&Inflight> {
        self.inflight.as_ref()
    }

    /// Whether the rings run.
    #[must_use]
    pub fn running(&self) -> Running {
        self.running
    }

    /// The base that a ring starts from next; a test may set another.
    pub fn base_mut(&mut self, index: u16) -> &mut u16 {
        &mut self.bases[usize::from(index)]
    }
}
