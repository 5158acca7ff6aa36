// SPDX-License-Identifier: Apache-2.0

//! What vhost-user-backend asks of a device, answered from [`Device`] and its queue threads.

use std::io;
use std::sync::Arc;

use agl_virtio_relay::record::MAX_QUEUE_SIZE;
use vhost::vhost_user::message::{VhostUserProtocolFeatures, VhostUserShMemConfig};
use vhost_user_backend::VhostUserBackend;
use virtio_bindings::bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::bindings::virtio_ring::{
    VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC,
};
use vm_memory::GuestAddressSpace;
use vmm_sys_util::epoll::EventSet;

use crate::device::Device;
use crate::memory::Memory;
use crate::server::{Observer, tell};
use crate::vring::{AtomicMemory, Vring, Workers};
use crate::worker::Control;

/// vhost-user's own bit among the virtio features.
const PROTOCOL_FEATURES: u64 = 1 << 30;
const RING_FEATURES: u64 =
    1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_RING_F_INDIRECT_DESC | 1 << VIRTIO_RING_F_EVENT_IDX;

/// The features that a service offers for a device.
pub(crate) fn offered(device: &dyn Device) -> u64 {
    device.features() | RING_FEATURES
}

/// A device in one session.
pub(crate) struct Session {
    pub(crate) device: Arc<dyn Device>,
    pub(crate) workers: Arc<Workers>,
    /// Told of the features that the driver took.
    pub(crate) acked: Arc<std::sync::atomic::AtomicU64>,
    pub(crate) observer: Observer,
}

impl VhostUserBackend for Session {
    type Bitmap = ();
    type Vring = Vring;

    fn num_queues(&self) -> usize {
        self.device.queues().len()
    }

    fn max_queue_size(&self) -> usize {
        usize::from(MAX_QUEUE_SIZE)
    }

    fn features(&self) -> u64 {
        offered(&*self.device) | PROTOCOL_FEATURES
    }

    fn acked_features(&self, features: u64) {
        self.acked.store(
            features & !PROTOCOL_FEATURES,
            std::sync::atomic::Ordering::Relaxed,
        );
        self.workers
            .ask_all(|| Control::Features(features & !PROTOCOL_FEATURES));
        tell(&self.observer);
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        let shared_memory = if self.device.shared_memory().iter().all(|&size| size == 0) {
            VhostUserProtocolFeatures::empty()
        } else {
            VhostUserProtocolFeatures::SHMEM
        };
        let objects = if self.device.features_of_shared_objects() == 0 {
            VhostUserProtocolFeatures::empty()
        } else {
            VhostUserProtocolFeatures::SHARED_OBJECT
        };
        shared_memory
            | objects
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::REPLY_ACK
            | VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::BACKEND_SEND_FD
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::RESET_DEVICE
    }

    fn reset_device(&self) {
        self.workers.ask_all(|| Control::Reset);
    }

    fn set_event_idx(&self, _enabled: bool) {
        // Each ring is told by its own layout when it starts.
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let config = self.device.config();
        let bytes = config.into_iter().chain(std::iter::repeat(0));
        // A reply of another length breaks the front end, whatever it asked for.
        bytes.skip(offset as usize).take(size as usize).collect()
    }

    fn set_config(&self, offset: u32, data: &[u8]) -> io::Result<()> {
        self.device.write_config(offset, data);
        Ok(())
    }

    fn update_memory(&self, memory: AtomicMemory) -> io::Result<()> {
        let table = memory.memory().into_inner();
        self.workers
            .ask_all(|| Control::Memory(Memory::new(Arc::clone(&table))));
        Ok(())
    }

    fn get_shmem_config(&self) -> io::Result<VhostUserShMemConfig> {
        let sizes = self.device.shared_memory();
        // It counts the regions that there are, and then has the sizes by id.
        let regions = sizes.iter().filter(|&&size| size > 0).count();
        Ok(VhostUserShMemConfig::new(
            u32::try_from(regions).unwrap_or(u32::MAX),
            &sizes,
        ))
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        // No queue is served by the crate's own workers.
        Vec::new()
    }

    fn handle_event(
        &self,
        _device_event: u16,
        _events: EventSet,
        _vrings: &[Vring],
        _thread: usize,
    ) -> io::Result<()> {
        // Never called: there is no worker of the crate.
        Ok(())
    }
}
