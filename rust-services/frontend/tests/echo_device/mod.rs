// SPDX-License-Identifier: Apache-2.0
//! A small device on the crate's own worker: each chain's readable bytes are copied into its
//! writable part. It can be told to break one rule, to show that the driver notices.
#![allow(
    clippy::unwrap_used,
    clippy::arithmetic_side_effects,
    reason = "part of a test"
)]

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tempfile::TempDir;
use vhost::vhost_user::Listener;
use vhost::vhost_user::message::VhostUserProtocolFeatures;
use vhost_user_backend::{VhostUserBackendMut, VhostUserDaemon, VringRwLock, VringT};
use virtio_queue::QueueOwnedT;
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;
use vmm_sys_util::event::{
    EventConsumer, EventFlag, EventNotifier, new_event_consumer_and_notifier,
};

/// A rule that the device breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Fault {
    /// None: an honest device.
    #[default]
    None,
    /// The first chain comes back twice.
    ReturnsTwice,
    /// used.len is one more than the writable part.
    WritesTooMuch,
    /// A head that is not out comes back.
    InventsHead,
    /// No call, ever.
    NeverCalls,
}

struct Echo {
    memory: GuestMemoryAtomic<GuestMemoryMmap>,
    event_idx: bool,
    fault: Fault,
    config: [u8; 64],
    exit: Mutex<Option<(EventConsumer, EventNotifier)>>,
}

impl Echo {
    fn drain(&self, vring: &VringRwLock) -> io::Result<bool> {
        let memory = self.memory.memory();
        let broken = |error| io::Error::other(format!("{error:?}"));
        let chains: Vec<_> = vring
            .get_mut()
            .get_queue_mut()
            .iter(memory.clone())
            .map_err(io::Error::other)?
            .collect();
        for chain in &chains {
            let head = chain.head_index();
            let mut bytes = Vec::new();
            chain
                .clone()
                .reader(&*memory)
                .map_err(broken)?
                .read_to_end(&mut bytes)?;
            let mut writer = chain.clone().writer(&*memory).map_err(broken)?;
            let room = writer.available_bytes();
            bytes.truncate(room);
            writer.write_all(&bytes)?;
            let len = bytes.len() as u32;
            match self.fault {
                Fault::WritesTooMuch => vring.add_used(head, room as u32 + 1),
                Fault::InventsHead => vring.add_used(head + 1, len),
                Fault::ReturnsTwice => vring
                    .add_used(head, len)
                    .and_then(|()| vring.add_used(head, len)),
                Fault::None | Fault::NeverCalls => vring.add_used(head, len),
            }
            .map_err(io::Error::other)?;
        }
        if !chains.is_empty()
            && self.fault != Fault::NeverCalls
            && vring.needs_notification().map_err(io::Error::other)?
        {
            vring.signal_used_queue()?;
        }
        Ok(!chains.is_empty())
    }
}

impl VhostUserBackendMut for Echo {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        2
    }

    fn max_queue_size(&self) -> usize {
        1024
    }

    fn features(&self) -> u64 {
        use frontend::protocol::feature;
        feature::VERSION_1
            | feature::EVENT_IDX
            | feature::INDIRECT_DESC
            | feature::PROTOCOL_FEATURES
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::BACKEND_REQ
            | VhostUserProtocolFeatures::RESET_DEVICE
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
    }

    fn set_event_idx(&mut self, enabled: bool) {
        self.event_idx = enabled;
    }

    fn get_config(&self, offset: u32, size: u32) -> Vec<u8> {
        let mut bytes = vec![0; size as usize];
        let from = (offset as usize).min(self.config.len());
        let have = &self.config[from..(from + size as usize).min(self.config.len())];
        bytes[..have.len()].copy_from_slice(have);
        bytes
    }

    fn set_config(&mut self, offset: u32, bytes: &[u8]) -> io::Result<()> {
        let from = offset as usize;
        self.config
            .get_mut(from..from + bytes.len())
            .ok_or(io::ErrorKind::InvalidInput)?
            .copy_from_slice(bytes);
        Ok(())
    }

    fn update_memory(&mut self, memory: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        self.memory = memory;
        Ok(())
    }

    fn exit_event(&self, _thread: usize) -> Option<(EventConsumer, EventNotifier)> {
        self.exit.lock().unwrap().take()
    }

    fn handle_event(
        &mut self,
        queue: u16,
        _events: EventSet,
        vrings: &[VringRwLock],
        _thread: usize,
    ) -> io::Result<()> {
        let vring = &vrings[usize::from(queue)];
        if !self.event_idx {
            return self.drain(vring).map(drop);
        }
        loop {
            vring.disable_notification().map_err(io::Error::other)?;
            self.drain(vring)?;
            if !vring.enable_notification().map_err(io::Error::other)? {
                return Ok(());
            }
        }
    }
}

/// The device behind a socket, serving one connection after the other until it is dropped.
pub(crate) struct EchoService {
    folder: TempDir,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl EchoService {
    pub(crate) fn start(fault: Fault) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut listener =
            Listener::from(UnixListener::bind(folder.path().join("socket")).unwrap());
        let stop = Arc::new(AtomicBool::new(false));
        let ending = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !ending.load(Ordering::Acquire) {
                let memory = GuestMemoryAtomic::new(GuestMemoryMmap::<()>::new());
                let exit = new_event_consumer_and_notifier(EventFlag::empty()).unwrap();
                let quit = exit.1.try_clone().unwrap();
                let echo = Arc::new(Mutex::new(Echo {
                    memory: memory.clone(),
                    event_idx: false,
                    fault,
                    config: std::array::from_fn(|at| at as u8),
                    exit: Mutex::new(Some(exit)),
                }));
                let mut daemon = VhostUserDaemon::new("echo".into(), echo, memory).unwrap();
                daemon.start(&mut listener).unwrap();
                // A front end that hangs up ends the session with an error: that is its way.
                let _ = daemon.wait();
                quit.notify().unwrap();
            }
        });
        Self {
            folder,
            stop,
            thread: Some(thread),
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    pub(crate) fn connect(&self) -> UnixStream {
        UnixStream::connect(self.socket()).unwrap()
    }
}

impl Drop for EchoService {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        drop(UnixStream::connect(self.socket()));
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(
                std::thread::panicking() || ended.is_ok(),
                "the echo service panicked"
            );
        }
    }
}
