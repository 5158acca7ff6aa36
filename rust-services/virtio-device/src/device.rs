// SPDX-License-Identifier: Apache-2.0

//! What a device brings: its identity, and what to do with requests.

use crate::io::Io;
use crate::vmm::{Answer, Ticket};

/// One virtqueue of a device.
#[derive(Clone, Copy, Debug)]
pub struct QueueSpec {
    /// The specification's name of the queue, for statistics and logs.
    pub name: &'static str,
}

/// A queue thread and what it serves.
pub struct ThreadPlan {
    /// Thread name, at most 15 bytes.
    pub name: &'static str,
    /// Indices of the queues that this thread owns. No queue belongs to two threads.
    pub queues: Vec<usize>,
    /// Serves them.
    pub handler: Box<dyn Handler>,
}

/// A virtio device as the session sees it. Called from control threads only.
pub trait Device: Send + Sync + 'static {
    /// Virtio device id (VIRTIO 1.4, section 5).
    fn id(&self) -> u32;

    /// The device type's own feature bits. The ground floor adds `VERSION_1`, `INDIRECT_DESC` and
    /// `EVENT_IDX`.
    fn features(&self) -> u64;

    /// The queues, in the order of their indices.
    fn queues(&self) -> &[QueueSpec];

    /// The configuration space, whole, little endian. Reads beyond its end are zero.
    fn config(&self) -> Vec<u8>;

    /// The driver wrote to the configuration space. Read-only fields ignore writes, so the default
    /// does nothing.
    fn write_config(&self, offset: u32, data: &[u8]) {
        let _ = (offset, data);
    }

    /// Bytes of each shared memory region by its id, multiples of the page size; 0 where there is
    /// none of this id (VIRTIO 1.4, 2.10). At most 256, and the same during the life of the device.
    /// A VMM that negotiates `SHMEM` shows them to the guest, empty; [`Io::ask`] has it map files
    /// there. Without any, `SHMEM` is not offered.
    fn shared_memory(&self) -> Vec<u64> {
        Vec::new()
    }

    /// Those of [`Device::features`] that need objects of other devices
    /// ([`Request::LookUp`](crate::Request::LookUp)): offered to a VMM that has negotiated
    /// `SHARED_OBJECT`, which is offered where there are any. Of the first 32 bits.
    fn features_of_shared_objects(&self) -> u32 {
        0
    }

    /// The queue threads. Asked once, when the service starts.
    fn threads(&self) -> Vec<ThreadPlan>;
}

/// How a queue came to run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Start {
    /// A driver set it up anew.
    Fresh,
    /// It had been paused: chains the handler holds are still the driver's.
    Resumed,
    /// A former process of this service died while it ran. The chains that process had not
    /// completed come out of [`Io::pop`] first, in the order they were popped then, with
    /// [`Chain::deaths`](crate::Chain::deaths) above zero.
    Recovered,
}

/// Serves the queues of one thread. All calls come from that thread.
///
/// A chain taken from [`Io::pop`] may be held as long as the device needs, and is given back with
/// [`Io::complete`]. What is completed during one call is signalled once, after it.
pub trait Handler: Send {
    /// `queue` runs from now on; [`Handler::kicked`] follows whether the driver kicks or not.
    fn started(&mut self, io: &mut Io, queue: usize, start: Start) {
        let _ = (io, queue, start);
    }

    /// The driver made buffers available in `queue`: take them with [`Io::pop`].
    fn kicked(&mut self, io: &mut Io, queue: usize);

    /// `queue` is frozen. Held chains are kept until [`Start::Resumed`] or [`Handler::reset`].
    fn stopped(&mut self, io: &mut Io, queue: usize) {
        let _ = (io, queue);
    }

    /// The driver reset the device, or went away: back to the state after start of the service.
    /// Chains held are void; completing one has no effect.
    fn reset(&mut self, io: &mut Io);

    /// The service ends. Nothing is reset: what is in flight stays in the record, and a successor
    /// under the same keeper goes on with it. Data on its way into a back end is to be flushed.
    fn shut_down(&mut self, io: &mut Io) {
        let _ = io;
    }

    /// Something registered under `token` with [`Io::watch`] or [`Io::waker`] became ready.
    fn woken(&mut self, io: &mut Io, token: u32) {
        let _ = (io, token);
    }

    /// The answer to what was asked with [`Io::ask`], exactly once for each. It comes after a reset
    /// too: what a VMM has mapped in answer to a request from before its own reset stays mapped.
    fn answered(&mut self, io: &mut Io, ticket: Ticket, answer: Answer) {
        let _ = (io, ticket, answer);
    }

    /// The instant set with [`Io::set_deadline`] has passed.
    fn deadline(&mut self, io: &mut Io) {
        let _ = io;
    }
}
