// SPDX-License-Identifier: Apache-2.0

//! The same with the crate that our services are built on: it accepts what a replay says, in the
//! order in which it is said, and what it would hang up on does not reach it.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may fail where it stands"
)]

mod peers;

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};

use agl_virtio_relay::message::Message;
use agl_virtio_relay::{End, Handle, Record, Relay, ServiceFault};
use peers::{Peer, Vmm, addr, event, ring_fd, single, state, table};
use rustix::event::EventfdFlags;
use vhost::vhost_user::message::{FrontendReq as R, VhostUserProtocolFeatures};
use vhost::vhost_user::{Backend, Listener};
use vhost_user_backend::{VhostUserBackendMut, VhostUserDaemon, VringRwLock};
use vm_memory::{GuestMemoryAtomic, GuestMemoryMmap};
use vmm_sys_util::epoll::EventSet;

const MEMORY: (u64, u64, u64) = (0x4000_0000, 0x10_0000, 0x7000_0000);
const MORE: (u64, u64, u64) = (0x8000_0000, 0x10_0000, 0x9000_0000);

/// What a service knows when it has been told everything.
#[derive(Default)]
struct Device {
    features: u64,
    memory_updates: usize,
    has_channel: bool,
    config: Vec<u8>,
}

impl VhostUserBackendMut for Device {
    type Bitmap = ();
    type Vring = VringRwLock;

    fn num_queues(&self) -> usize {
        4
    }

    fn max_queue_size(&self) -> usize {
        256
    }

    fn features(&self) -> u64 {
        peers::FEATURES
    }

    fn acked_features(&mut self, features: u64) {
        self.features = features;
    }

    fn protocol_features(&self) -> VhostUserProtocolFeatures {
        VhostUserProtocolFeatures::CONFIG
            | VhostUserProtocolFeatures::MQ
            | VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS
            | VhostUserProtocolFeatures::RESET_DEVICE
    }

    fn set_event_idx(&mut self, _enabled: bool) {}

    fn get_config(&self, _offset: u32, size: u32) -> Vec<u8> {
        vec![0xcf; size.try_into().unwrap()]
    }

    fn set_config(&mut self, _offset: u32, content: &[u8]) -> io::Result<()> {
        self.config = content.to_vec();
        Ok(())
    }

    fn update_memory(&mut self, _memory: GuestMemoryAtomic<GuestMemoryMmap>) -> io::Result<()> {
        self.memory_updates += 1;
        Ok(())
    }

    fn set_backend_req_fd(&mut self, _channel: Backend) {
        self.has_channel = true;
    }

    fn queues_per_thread(&self) -> Vec<u64> {
        Vec::new()
    }

    fn handle_event(
        &mut self,
        _event: u16,
        _events: EventSet,
        _vrings: &[VringRwLock],
        _thread: usize,
    ) -> io::Result<()> {
        Ok(())
    }
}

struct Service {
    daemon: VhostUserDaemon<Arc<Mutex<Device>>>,
    device: Arc<Mutex<Device>>,
}

impl Service {
    fn start(relay: &mut Relay, folder: &std::path::Path) -> Self {
        let path = folder.join("service");
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        relay.attach(UnixStream::connect(&path).unwrap());
        let device = Arc::new(Mutex::new(Device::default()));
        let memory = GuestMemoryAtomic::new(GuestMemoryMmap::new());
        let mut daemon =
            VhostUserDaemon::new("test".to_owned(), Arc::clone(&device), memory).unwrap();
        daemon.start(&mut Listener::from(listener)).unwrap();
        Self { daemon, device }
    }

    fn die(mut self) {
        self.daemon.request_shutdown();
        self.daemon.wait().unwrap();
    }
}

/// A test that fails must not leave the relay's thread running.
struct ShutDown(Handle);

impl Drop for ShutDown {
    fn drop(&mut self) {
        self.0.shut_down();
    }
}

/// What the test's thread tells the relay's thread to do with the service.
enum Order {
    Kill,
}

#[test]
fn the_crate_takes_every_replay_and_never_hangs_up() {
    let folder = std::env::temp_dir().join(format!("agl-relay-test-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let record = Arc::new(Record::create().unwrap());
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut relay = Relay::new(theirs, Some(record)).unwrap();
    let handle = relay.handle();
    let mut vmm = Vmm(Peer::new(ours));
    let (orders, kill) = std::sync::mpsc::channel();
    let wake = rustix::event::eventfd(0, EventfdFlags::CLOEXEC).unwrap();
    let (reports, report) = std::sync::mpsc::channel();

    std::thread::scope(|scope| {
        let (wake, folder) = (&wake, &folder);
        let running = scope.spawn(move || {
            use std::os::fd::AsFd;
            let mut service = Service::start(&mut relay, folder);
            loop {
                match relay.run(&[wake.as_fd()], None).unwrap() {
                    End::Watched => {
                        rustix::io::read(wake, &mut [0; 8]).unwrap();
                        let Order::Kill = kill.recv().unwrap();
                        let device = Arc::clone(&service.device);
                        service.die();
                        reports.send(device).unwrap();
                        let end = relay.run(&[], None).unwrap();
                        assert!(
                            matches!(
                                end,
                                End::ServiceGone(ServiceFault::Left | ServiceFault::Channel(_))
                            ),
                            "{end:?}"
                        );
                        service = Service::start(&mut relay, folder);
                    }
                    End::ShutDown => return,
                    // Nothing else may make the crate hang up.
                    end => panic!("{end:?}"),
                }
            }
        });
        let shut_down = ShutDown(handle);
        let next_service = || {
            orders.send(Order::Kill).unwrap();
            rustix::io::write(wake, &1_u64.to_ne_bytes()).unwrap();
            report.recv_timeout(peers::DEADLINE).unwrap()
        };
        vmm.negotiate();
        // In an order that the crate itself would refuse.
        vmm.done(&table(&[MORE, MEMORY]));
        vmm.done(&single(R::ADD_MEM_REG, (0xc000_0000, 0x1000, 0xa000_0000)));
        let (_channel, end) = UnixStream::pair().unwrap();
        let channel =
            Message::request(R::SET_BACKEND_REQ_FD, vec![]).with_fds(vec![Arc::new(end.into())]);
        vmm.done(&channel);
        vmm.start_ring(0);
        vmm.start_ring(3);
        for round in 0..50_u32 {
            let device = next_service();
            // The one that has just died had been told everything.
            let device = device.lock().unwrap();
            assert_eq!(device.features, peers::FEATURES);
            assert_eq!(device.memory_updates, 2);
            assert!(device.has_channel);
            drop(device);
            for wrong in [
                state(R::SET_VRING_NUM, 0, 100),
                state(R::SET_VRING_NUM, 4, 64),
                addr(0, 0x1000),
                addr(0, 0x7000_0004),
                state(R::SET_VRING_ENABLE, 0, 7),
                ring_fd(R::SET_VRING_CALL, 9, &event()),
            ] {
                assert_eq!(vmm.set(&wrong), 1);
            }
            vmm.done(&Message::request(R::SET_OWNER, vec![]));
            vmm.done(&ring_fd(R::SET_VRING_CALL, 0, &event()));
            let mut config = [0, 8, 0_u32]
                .iter()
                .flat_map(|n| n.to_ne_bytes())
                .collect::<Vec<_>>();
            config.extend(u64::from(round).to_ne_bytes());
            vmm.done(&Message::request(R::SET_CONFIG, config.clone()));
            let reply = vmm.ask(&Message::request(R::GET_CONFIG, config));
            assert_eq!(reply.payload[12..], [0xcf; 8]);
        }
        // Stopped, with another base, and started again.
        let reply = vmm.ask(&state(R::GET_VRING_BASE, 3, 0));
        assert_eq!(reply.u32_at(0), Some(3));
        next_service();
        vmm.start_ring(3);
        vmm.done(&Message::request(R::RESET_DEVICE, vec![]));
        next_service();
        vmm.done(&Message::request_u64(R::SET_FEATURES, peers::FEATURES));
        vmm.done(&state(R::SET_VRING_ENABLE, 3, 1));
        drop(shut_down);
        running.join().unwrap();
    });
    std::fs::remove_dir_all(&folder).unwrap();
}
